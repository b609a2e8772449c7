"""Proofs of Lyapunov decrease: they hold where sampling agrees, and forgeries do not."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flint import arb, arb_mat
from typer.testing import CliRunner

from constrained_nn.cli import build
from constrained_nn.errors import FileFormatError, InfeasibleError
from constrained_nn.evidence import ClosedLoop, save_loop, write
from constrained_nn.evidence.claims import certify_loop, load_loop, suggest_level
from constrained_nn.evidence.claims.lyapunov import claim_decrease
from constrained_nn.evidence.head import describe_task, head
from constrained_nn.verify import Outcome, check_claims, decode, digest, encode
from constrained_nn.verify.claims import lyapunov as claims
from constrained_nn.verify.enclosures import positive_definite
from control_envs.tasks import Task
from tests.evidence.loops import clipped_mass, pendulum

LOOPS = {
    "pendulum": pendulum,
    "pendulum-continuous": lambda: pendulum("continuous"),
    "pendulum-held": lambda: pendulum("held"),
    "clipped-mass": clipped_mass,
}
SAMPLES = 1_000_000


def certified(task: Task, loop: ClosedLoop, level: float, **options) -> dict:
    certificate = head(
        command="test",
        seed=0,
        task=describe_task(task),
        controller={"method": "lqr", "dtype": "float64", "weights": "none", "sha256": "none"},
    )
    certificate["claims"].append(claim_decrease(loop, certificate, level=level, **options))
    return certificate | {"digest": digest(certificate)}


@pytest.fixture(scope="module")
def proved() -> Callable[[str], dict]:
    found: dict[str, dict] = {}

    def get(name: str) -> dict:
        if name not in found:
            found[name] = certified(*LOOPS[name]())
        return copy.deepcopy(found[name])

    return get


SLOW = ("pendulum", "pendulum-continuous", "pendulum-held")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in LOOPS]
)
def test_proof_holds_and_no_sample_speaks_against_it(name: str, proved, rng: np.random.Generator) -> None:
    certificate = proved(name)
    (finding,) = check_claims(certificate)
    assert finding.outcome is Outcome.HOLDS, finding.text
    assert "in ball arithmetic" in finding.text
    claim = certificate["claims"][0]
    _, loop, level = LOOPS[name]()
    count = SAMPLES if name in SLOW else SAMPLES // 100
    P = np.array(decode(claim["data"]["P"], "P")).reshape(2, 2)
    radius, margin, seen = float.fromhex(claim["radius"]), float.fromhex(claim["margin"]), 0
    while seen < count:  # states that the claim is about
        x = loop.sample(rng, SAMPLES // 10)
        e, inside = x - loop.center, loop.lyapunov(x) <= level
        about = x[inside & ((e @ P * e).sum(-1) > radius)]
        assert (loop.change(about) <= -margin + 1e-12).all()
        assert len(about) > 0.05 * len(x)
        seen += len(about)
    if loop.motion == "step":
        near = loop.center + (x - loop.center) * 1e-2
        near = near[
            ((near - loop.center) @ P * (near - loop.center)).sum(-1) <= float.fromhex(claim["radius"])
        ]
        y = loop.move(near) - loop.center
        assert len(near) > 100
        assert ((y @ P * y).sum(-1) <= float.fromhex(claim["radius"])).all()
        end = x[inside]
        for _ in range(400):
            end = loop.move(end[:2000])
        assert np.ptp(end, axis=0).max() < 1e-6  # one equilibrium


CHANGES = {
    "level raised": lambda c: c.update(level=encode(1.5 * float.fromhex(c["level"]))),
    "margin enlarged": lambda c: c.update(margin=encode(2.0 * float.fromhex(c["margin"]))),
    "margin of nothing": lambda c: c.update(margin=encode(0.0)),
    "ellipsoid enlarged": lambda c: c.update(radius=encode(64.0 * float.fromhex(c["radius"]))),
    "ellipsoid of nothing": lambda c: c.update(radius=encode(-1.0)),
    "faster contraction": lambda c: c.update(factor=encode(0.5 * float.fromhex(c["factor"]))),
    "factor above one": lambda c: c.update(factor=encode(1.5)),
    "another motion": lambda c: c.update(motion="step" if c["motion"] == "continuous" else "continuous"),
    "domain enlarged": lambda c: c["data"].update(upper=encode([10.0, 10.0])),
    "domain turned": lambda c: c["data"].update(lower=c["data"]["upper"]),
    "cover cut": lambda c: c["data"].update(cover=c["data"]["cover"][:-1]),
    "cover extended": lambda c: c["data"].update(cover=c["data"]["cover"] + "d"),
    "outside, it says": lambda c: c["data"].update(cover=c["data"]["cover"].replace("d", "o", 1)),
    "all inside, it says": lambda c: c["data"].update(cover=c["data"]["cover"].replace("d", "i")),
    "all outside, it says": lambda c: c["data"].update(cover="o"),
    "one box": lambda c: c["data"].update(cover="d"),
    "left open": lambda c: c["data"].update(cover=c["data"]["cover"].replace("d", "?", 1)),
    "center moved": lambda c: c["data"].update(
        center=encode([v + 0.1 for v in decode(c["data"]["center"], "")])
    ),
    "ellipsoid turned": lambda c: c["data"].update(P=encode([-v for v in decode(c["data"]["P"], "")])),
    "ellipsoid not symmetric": lambda c: c["data"].update(P=encode([1.0, 0.5, 0.0, 1.0])),
    "worst made better": lambda c: c.update(worst=encode(1.001 * float.fromhex(c["worst"]))),
    "worst made worse": lambda c: c.update(worst=encode(0.5 * float.fromhex(c["worst"]))),
    "boxes miscounted": lambda c: c.update(boxes=c["boxes"] + 1),
    "a point": lambda c: c["data"].update(point=encode([0.0, 0.0])),
    "V turned": lambda c: c["data"]["value"].update(
        P=encode([-v for v in decode(c["data"]["value"]["P"], "")])
    ),
    "feedback turned": lambda c: turned(c["data"]["controller"]),
    "input ignored": lambda c: c["data"].update(
        controller={"inputs": 2, "code": [["take", 0, [0]], ["const", "0x0p+0"], ["mul", 1, 2]]}
    ),
    "other hold": lambda c: c.update(hold=encode(1.0)),
}


def turned(program: dict) -> None:
    for item in program["code"]:
        if item[0] == "affine":
            item[2] = encode([-v for v in decode(item[2], "")])


@pytest.mark.once  # samples of what the same functions refuse
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "name", ["clipped-mass", pytest.param("pendulum-continuous", marks=pytest.mark.slow)]
)
def test_forgeries_are_refused(name: str, change: str, proved) -> None:
    certificate = proved(name)
    claim = certificate["claims"][0]
    CHANGES[change](claim)
    with contextlib.suppress(FileFormatError):  # the words, too
        claim["statement"] = claims.statement(claim, certificate)
    (finding,) = check_claims(certificate | {"digest": digest(certificate)})
    assert finding.outcome is not Outcome.HOLDS


def test_too_large_a_level_has_a_counterexample(rng: np.random.Generator) -> None:
    task, loop, _ = pendulum()
    width = np.array([1.4, 6.0])
    wide = ClosedLoop(
        loop.plant, loop.controller, loop.value, loop.center - width, loop.center + width, loop.center
    )
    x = wide.sample(rng, 100_000)
    level = 1.5 * wide.lyapunov(x[wide.change(x) > 0]).min()
    assert suggest_level(wide, rng) < level
    certificate = certified(task, wide, level)
    (finding,) = check_claims(certificate)
    assert finding.outcome is Outcome.COUNTEREXAMPLE
    assert "theta = " in finding.text
    point = np.array(decode(certificate["claims"][0]["data"]["point"], "point"))
    assert wide.change(point) > 0
    assert wide.lyapunov(point) <= level


def test_without_time_the_claim_is_inconclusive() -> None:
    certificate = certified(*pendulum(), seconds=0.0)
    (finding,) = check_claims(certificate)
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert "open" in finding.text


def test_unstable_loop_is_refused() -> None:
    task, loop, level = pendulum()
    turned(loop.controller)
    with pytest.raises(InfeasibleError, match="spectral radius"):
        certified(task, loop, level)


@pytest.mark.once  # in other processes
def test_processes_find_the_same() -> None:
    task, loop, level = clipped_mass()
    lines: list[float] = []
    certificate = certified(task, loop, level, jobs=2, report=lambda share, boxes, open: lines.append(share))
    assert check_claims(certificate)[0].outcome is Outcome.HOLDS
    assert lines[-1] == pytest.approx(1.0)


@pytest.mark.once  # in other processes
def test_command_line(tmp_path: Path) -> None:
    task, loop, level = clipped_mass()
    save_loop(tmp_path, task, loop.controller, loop.value, lower=loop.lower, upper=loop.upper, level=level)
    for words, says in (
        (["certify", str(tmp_path), "--seconds", "100"], "proof: holds"),
        (["check", str(tmp_path / "certificate.json")], "tends to the one equilibrium"),
        (["check", str(tmp_path / "certificate.json"), "--replay"], "traced again"),
    ):
        done = CliRunner().invoke(build(), words)
        assert done.exit_code == 0, done.output
        assert says in done.output
    refused = CliRunner().invoke(build(), ["certify", str(tmp_path), "--runs", "5"])
    assert refused.exit_code == 2
    assert "--runs" in refused.output


@pytest.mark.parametrize(
    ("motion", "says"),
    [
        ("step", ("one step of 0.05 s with the input held", "tends to the one equilibrium", "at every step")),
        (
            "held",
            ("the solution of the differential equation", "is in E from some sample on", "at all times"),
        ),
        ("continuous", ("with continuous feedback", "tends to the one equilibrium", "stays in the box.")),
    ],
)
def test_words_are_those_of_the_motion(motion: str, says: tuple[str, ...]) -> None:
    certificate = certified(*pendulum(motion), seconds=0.0)
    words = claims.statement(certificate["claims"][0], certificate)
    assert all(part in words for part in says)


def test_loop_files(tmp_path: Path) -> None:
    task, loop, level = pendulum("continuous")
    path = save_loop(
        tmp_path,
        task,
        loop.controller,
        loop.value,
        lower=loop.lower,
        upper=loop.upper,
        level=level,
        motion="continuous",
    )
    _, _, again, same = load_loop(path)
    assert same == level
    assert again.plant == loop.plant
    certificate = certify_loop(path, command="test", seconds=0.0)
    write(certificate, tmp_path / "certificate.json")
    saved = json.loads(path.read_text())
    for change in ({"schema": "x"}, {"lower": "0x1p+0"}, {"level": "1.0"}, {"controller": {}}):
        path.write_text(json.dumps(saved | change))
        with pytest.raises(FileFormatError):
            load_loop(path)
    path.write_text("{")
    with pytest.raises(FileFormatError):
        load_loop(path)


def test_positive_definite_is_never_claimed_of_another(rng: np.random.Generator) -> None:
    for _ in range(200):
        root = rng.normal(size=(3, 3))
        M = root @ root.T - rng.uniform(0, 1) * np.eye(3)
        least = np.linalg.eigvalsh(M).min()
        radius = rng.uniform(0, 0.1)
        claimed = positive_definite(arb_mat(3, 3, [arb(v, radius) for v in M.ravel()]))
        assert not claimed or least > 0
        if least > 10 * radius and least > 0.1:
            assert claimed or radius > 0.03 * least
