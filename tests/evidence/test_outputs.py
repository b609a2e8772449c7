"""Proofs that the outputs of a network lie in a set: with a layer that enforces it, without, and forged."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from constrained_nn.cli import build
from constrained_nn.errors import FileFormatError
from constrained_nn.evidence import certify_outputs, save_network
from constrained_nn.evidence.tracing import evaluate, program_of
from constrained_nn.layers import Constrained, Fixed, HardNetAffine
from constrained_nn.sets import Box, Halfspace, Polyhedron
from constrained_nn.verify import Outcome, check_claims, decode, digest, encode
from constrained_nn.verify.claims import outputs as claims

LOWER, UPPER = [-1.0, -0.5], [1.0, 0.5]


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 2)).double()


def range_of(module: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    x = torch.from_numpy(np.random.default_rng(0).uniform(LOWER, UPPER, (200_000, 2)))
    with torch.no_grad():
        y = module(x).numpy()
    return y.min(0), y.max(0)


@pytest.fixture
def proved(tmp_path: Path) -> dict:
    low, high = range_of(network())
    set = Box(torch.from_numpy(low - 0.02), torch.from_numpy(high + 0.02))
    return certify_outputs(
        save_network(tmp_path, "net", network(), set, lower=LOWER, upper=UPPER), command="t"
    )


def test_box_around_the_samples_is_proved_and_tight(proved: dict, rng: np.random.Generator) -> None:
    (finding,) = check_claims(proved)
    assert finding.outcome is Outcome.HOLDS, finding.text
    claim = proved["claims"][0]
    program = program_of(claim["data"]["network"])
    y = evaluate(program, rng.uniform(LOWER, UPPER, (1_000_000, 2)))
    A, bound = np.array(decode(claim["data"]["A"], "A")).reshape(-1, 2), decode(claim["data"]["bound"], "b")
    excess = (y @ A.T - bound).max()
    assert excess <= float.fromhex(claim["worst"]) <= 0.0
    assert claim["boxes"] < 1000


@pytest.mark.parametrize(
    "set",
    [
        Halfspace(torch.tensor([1.0, 2.0]).double(), torch.tensor(-0.3).double()),
        Polyhedron(
            torch.tensor([[1.0, -1.0]]).double(), torch.tensor([-0.1]).double(), torch.tensor([0.1]).double()
        ),
        Box(torch.tensor([-0.1, -0.1]).double(), torch.tensor([0.1, 0.1]).double()),
    ],
    ids=lambda set: type(set).__name__,
)
def test_layer_puts_every_output_into_its_set(set, tmp_path: Path) -> None:
    """The bare network leaves the set; behind its layer it is proved to stay in it, but for a little room."""
    wide = Polyhedron.of(set)
    wide = Polyhedron(wide.A, wide.lower - 0.02, wide.upper + 0.02)
    bare = certify_outputs(
        save_network(tmp_path, "bare", network(), wide, lower=LOWER, upper=UPPER), command="t"
    )
    assert check_claims(bare)[0].outcome is Outcome.COUNTEREXAMPLE
    module = Constrained(network(), Fixed(set), HardNetAffine())
    path = save_network(tmp_path, "layer", module, wide, lower=LOWER, upper=UPPER)
    (finding,) = check_claims(certify_outputs(path, command="t"))
    assert finding.outcome is Outcome.HOLDS, finding.text


CHANGES = {
    "set shrunk": lambda c: c["data"].update(bound=encode([b - 0.1 for b in decode(c["data"]["bound"], "")])),
    "box enlarged": lambda c: c["data"].update(upper=encode([4.0, 4.0])),
    "row turned": lambda c: c["data"].update(A=encode([-a for a in decode(c["data"]["A"], "")])),
    "cover cut": lambda c: c["data"].update(cover=c["data"]["cover"][:-1]),
    "one box": lambda c: c["data"].update(cover="."),
    "left open": lambda c: c["data"].update(cover="?"),
    "worst made better": lambda c: c.update(worst=encode(1.001 * float.fromhex(c["worst"]))),
    "boxes miscounted": lambda c: c.update(boxes=c["boxes"] + 1),
    "a row less": lambda c: c.update(rows=c["rows"] - 1),
    "a point": lambda c: c["data"].update(point=encode([0.0, 0.0])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_forgeries_are_refused(change: str, proved: dict) -> None:
    certificate = copy.deepcopy(proved)
    claim = certificate["claims"][0]
    CHANGES[change](claim)
    with contextlib.suppress(FileFormatError):
        claim["statement"] = claims.statement(claim, certificate)
    assert check_claims(certificate | {"digest": digest(certificate)})[0].outcome is not Outcome.HOLDS


def test_command_line_and_damaged_files(tmp_path: Path) -> None:
    set = Box(torch.full((2,), -9.0).double(), torch.full((2,), 9.0).double())
    path = save_network(tmp_path, "net", network(), set, lower=LOWER, upper=UPPER)
    run = CliRunner().invoke(build(), ["certify", str(tmp_path)])
    assert run.exit_code == 0, run.output
    assert "A y <= bound" in run.output
    saved = json.loads(path.read_text())
    for change in ({"schema": "x"}, {"rows": 0}, {"A": "0x1p+0"}, {"contexts": "x"}):
        path.write_text(json.dumps(saved | change))
        with pytest.raises(FileFormatError):
            certify_outputs(path, command="t")
    path.write_text("[")
    with pytest.raises(FileFormatError):
        certify_outputs(path, command="t")
