"""Proofs that a model decreases its Lyapunov function: over a box, as computed, and forged."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from constrained_nn.certificates import BiLipschitzLyapunov, NeuralLyapunov, QuadraticLyapunov
from constrained_nn.cli import build
from constrained_nn.control import AffineModel, AnchoredController, AnchoredModel, Controller
from constrained_nn.errors import FileFormatError, SetTypeError
from constrained_nn.evidence import certify_model, save_model
from constrained_nn.evidence.tracing import evaluate, program_of
from constrained_nn.models import CoILS, StableDynamics
from constrained_nn.verify import Outcome, check_claims, decode, digest, encode
from constrained_nn.verify.claims import model_decrease as claims

LOWER, UPPER, HOLE = [-1.0, -1.0], [1.0, 1.0], 0.3


def body(n: int, m: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n, 6), nn.Tanh(), nn.Linear(6, m))


def coils(kind: str = "anchored") -> CoILS | StableDynamics:
    """Untrained: the guarantee is for every parameter."""
    torch.manual_seed(5)
    origin, hold = torch.zeros(2), torch.full((1,), 0.2)
    policy = AnchoredController(body(2, 1), origin, hold, hold - 2, hold + 2)
    if kind == "free":
        return StableDynamics(body(2, 2), QuadraticLyapunov(torch.eye(2), rate=0.5)).double()
    V = NeuralLyapunov(2, rate=0.5, hidden=(4, 4) if kind == "anchored" else (4,), floor=0.1)
    model = AnchoredModel(body(3, 2), origin, hold)
    if kind == "affine":
        model = AffineModel(body(2, 4), origin, hold)
    return CoILS(model, policy, V).double()


def states(count: int) -> torch.Tensor:
    x = torch.from_numpy(np.random.default_rng(1).uniform(LOWER, UPPER, (4 * count, 2)))
    return x[x.abs().amax(-1) > HOLE][:count].clone()


def saved(folder: Path, model: CoILS | StableDynamics, count: int = 40) -> Path:
    return save_model(folder, "m", model, states=states(count), lower=LOWER, upper=UPPER, hole=HOLE)


class Untraceable(Controller):
    """A feedback law that no certificate can record."""

    def forward(self, t: Any, x: torch.Tensor) -> torch.Tensor:
        return x[..., :1]


@pytest.fixture(scope="module")
def _proved(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return certify_model(saved(tmp_path_factory.mktemp("m"), coils()), command="t")


@pytest.fixture
def proved(_proved: dict) -> dict:
    return copy.deepcopy(_proved)


@pytest.mark.parametrize("kind", ["affine", "free"])
def test_other_models_are_proved(kind: str, tmp_path: Path) -> None:
    (finding,) = check_claims(certify_model(saved(tmp_path, coils(kind)), command="t"))
    assert finding.outcome is Outcome.HOLDS, finding.text


def test_program_is_the_model_and_the_claim_agrees_with_samples(proved: dict) -> None:
    (finding,) = check_claims(proved)
    assert finding.outcome is Outcome.HOLDS, finding.text
    claim, model = proved["claims"][0], coils()
    assert isinstance(model, CoILS)
    x = states(20_000)
    with torch.no_grad():
        loop = model.closed_loop(x)
        value, gradient = model.certificate.value_and_gradient(x)
    raw = evaluate(program_of(claim["data"]["raw"]), x.numpy())
    np.testing.assert_allclose(raw, loop.raw.numpy(), atol=1e-12)
    assert (loop.value != loop.raw).any(
        -1
    ).double().mean() > 0.2  # the correction acts, so the test says something
    assert (value >= float.fromhex(claim["floor"]) * x.square().sum(-1)).all()
    assert gradient.norm(dim=-1).min() > 0
    assert 0 <= float.fromhex(claim["distance"]) <= 1e-12
    assert float.fromhex(claim["excess"]) <= 1e-12


def number(text: str, k: int, change) -> str:
    values = decode(text, "")
    values[k] = change(values[k])
    return encode(values)


def weight(program: dict, change) -> None:
    """A weight of the last affine map, which reads the state by way of the others."""
    item = next(item for item in reversed(program["code"]) if item[0] == "affine")
    item[2] = number(item[2], 0, change)


def dropped(claim: dict) -> None:
    claim["data"]["x"] = encode(decode(claim["data"]["x"], "")[2:])
    claim["data"]["velocity"] = encode(decode(claim["data"]["velocity"], "")[2:])


def uphill(claim: dict) -> None:
    """A velocity along the gradient; the digest of the states is put right."""
    x = torch.tensor(decode(claim["data"]["x"], "")).double().reshape(-1, 2)
    up = coils().certificate.gradient(x)[3].tolist()
    v = decode(claim["data"]["velocity"], "")
    claim["data"]["velocity"] = encode(v[:6] + up + v[8:])
    claim["states_sha256"] = claims.fingerprint(claim["data"])


def nudged(claim: dict) -> None:
    """A velocity that still decreases V, but is not the model's."""
    x = torch.tensor(decode(claim["data"]["x"], "")).double().reshape(-1, 2)
    down = -1e-6 * coils().certificate.gradient(x)[3]
    v = decode(claim["data"]["velocity"], "")
    claim["data"]["velocity"] = encode([*v[:6], *(torch.tensor(v[6:8]).double() + down).tolist(), *v[8:]])
    claim["states_sha256"] = claims.fingerprint(claim["data"])


def in_hole(claim: dict) -> None:
    claim["data"]["x"] = number(number(claim["data"]["x"], 0, lambda v: 0.01), 1, lambda v: 0.01)
    claim["states_sha256"] = claims.fingerprint(claim["data"])


CHANGES = {
    "weight of V": lambda c: weight(c["data"]["certificate"], lambda w: w * (1 + 1e-5)),
    "weight of V turned": lambda c: weight(c["data"]["certificate"], lambda w: -w),
    "weight of the model": lambda c: weight(c["data"]["raw"], lambda w: w * (1 + 1e-5)),
    "rate raised": lambda c: c.update(rate=encode(float.fromhex(c["rate"]) * 1.001)),
    "rate lowered": lambda c: c.update(rate=encode(float.fromhex(c["rate"]) * 0.999)),
    "negative rate": lambda c: c.update(rate=encode(-0.5)),
    "floor raised": lambda c: c.update(floor=encode(10.0)),
    "floor turned": lambda c: c.update(floor=encode(-1.0)),
    "velocity uphill": uphill,
    "velocity nudged": nudged,
    "tolerance": lambda c: c.update(rtol=encode(1e-6)),
    "state dropped": dropped,
    "state dropped and counted": lambda c: (dropped(c), c.update(states=c["states"] - 1)),
    "state in the hole": in_hole,
    "hole smaller": lambda c: c["data"].update(hole=encode([1e-3, 1e-3])),
    "hole moved": lambda c: c["data"].update(center=encode([0.5, 0.5])),
    "box enlarged": lambda c: c["data"].update(upper=encode([40.0, 40.0])),
    "cover cut": lambda c: c["data"].update(cover=c["data"]["cover"][:-1]),
    "one box": lambda c: c["data"].update(cover=".") or c.update(boxes=1),
    "all hole": lambda c: c["data"].update(cover="o") or c.update(boxes=1),
    "left open": lambda c: c["data"].update(cover=c["data"]["cover"].replace(".", "?", 1)),
    "excess made better": lambda c: c.update(excess=encode(float.fromhex(c["excess"]) - 1e-12)),
    "distance made better": lambda c: c.update(distance=encode(0.0)),
    "distance made worse": lambda c: c.update(distance=encode(1e-10)),
    "V with a kink": lambda c: c["data"]["certificate"]["code"].append(
        ["abs", len(c["data"]["certificate"]["code"])]
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_forgeries_are_refused(change: str, proved: dict) -> None:
    claim = proved["claims"][0]
    CHANGES[change](claim)
    with contextlib.suppress(FileFormatError):
        claim["statement"] = claims.statement(claim, proved)
    (finding,) = check_claims(proved | {"digest": digest(proved)})
    assert finding.outcome is not Outcome.HOLDS
    assert (finding.outcome is Outcome.COUNTEREXAMPLE) >= (change == "velocity uphill")


def test_float32_is_no_way_to_a_larger_tolerance(proved: dict) -> None:
    proved["controller"]["dtype"] = "float32"
    assert "float64" in check_claims(proved)[0].text


def test_command_line_report_and_what_is_not_known(tmp_path: Path) -> None:
    path = saved(tmp_path, coils("free"))
    run = CliRunner().invoke(build(), ["certify", str(tmp_path)])
    assert run.exit_code == 0, run.output
    assert "dV/dt" in run.output
    for command in ("check", "report"):
        again = CliRunner().invoke(build(), [command, str(tmp_path / "certificate.json")])
        assert again.exit_code == 0, again.output
    text = path.read_text()
    for damaged in ("[", text.replace("stable-model", "x"), text.replace('"states": 40', '"states": 0')):
        path.write_text(damaged)
        with pytest.raises(FileFormatError):
            certify_model(path, command="t")
    other = StableDynamics(body(2, 2), BiLipschitzLyapunov(2, rate=0.5)).double()
    for model in (other, coils("free").float(), CoILS(other.model, Untraceable(), coils("free").certificate)):
        with pytest.raises(SetTypeError):
            saved(tmp_path, model)
