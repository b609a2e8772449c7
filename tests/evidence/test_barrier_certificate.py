"""Proofs that held inputs keep a safe set: made, checked, not to be forged, and true in simulation."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re

import numpy as np
import pytest
import torch
import typer
from flint import arb
from typer.testing import CliRunner

from constrained_nn.certificates import SampledBarrier
from constrained_nn.cli import certify, check
from constrained_nn.cli.shell import Command
from constrained_nn.errors import ConvergenceError, FileFormatError, SetTypeError, ShapeError
from constrained_nn.evidence.claims import certify_barrier, save_barrier
from constrained_nn.evidence.claims.barrier import certify_barrier_record, cover_start
from constrained_nn.evidence.search import falsify_barrier, quiet
from constrained_nn.evidence.tracing import program_of, trace, trace_derivative
from constrained_nn.layers import HardNetAffine
from constrained_nn.verify import Outcome, check_claims, decode, encode, leaves
from constrained_nn.verify.arithmetic import Jet, interval, order, precision, run, solution
from constrained_nn.verify.claims import barrier as claims
from constrained_nn.verify.enclosures import examine, is_inside, is_outside
from control_envs.simulate import RK4
from control_envs.tasks import DoubleIntegratorTask, KinematicUnicycleTask, PendulumTask

LINE, ROUND = DoubleIntegratorTask(), KinematicUnicycleTask()


@pytest.fixture(scope="module")
def _proof() -> dict:
    return certify_barrier(LINE, command="test")


@pytest.fixture
def proof(_proof) -> dict:
    return copy.deepcopy(_proof)


def limits(task) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(task.input_low), torch.tensor(task.input_high)


def barrier_of(task) -> SampledBarrier:
    low, high = limits(task)
    acts_on = 0  # the force; the speed
    return SampledBarrier(
        task.clearances, task.plant, hold=task.clearance_hold, low=low, high=high, acts_on=acts_on
    )


def test_double_integrator_is_proved(proof) -> None:
    (finding,) = check_claims(proof)
    assert finding.outcome is Outcome.HOLDS, finding.text
    assert "whatever is proposed" in finding.statement
    assert proof["claims"][0]["leaves"] < 100
    assert certify_barrier(LINE, command="test", jobs=4)["claims"] == proof["claims"]


def change_number(claim: dict, key: str, value: float, index: int = 0) -> None:
    values = decode(claim[key], key)
    values[index] = value
    claim[key] = encode(values)


@pytest.mark.once  # samples of what the same functions refuse
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: change_number(c, "low", -0.5), "limits of the input"),  # brakes half as hard
        (lambda c: change_number(c, "upper", 0.05), "face"),
        (lambda c: change_number(c, "upper", 0.6, 1), "face"),
        (
            lambda c: change_number(c["barriers"][0], "gains", 2.0),
            "curvature",
        ),  # kappa too fast for the brakes
        (lambda c: change_number(c["barriers"][2], "gains", 50.0), "rate * hold"),
        (lambda c: change_number(c, "floor", -1.0), "floor"),
        (lambda c: c["data"].update(cover=c["data"]["cover"][:-1]), "expected 9 numbers"),
        (lambda c: c["data"].update(cover=c["data"]["cover"].replace("+", ".", 1)), "0x"),
        (lambda c: c["barriers"][0].update(curvature=c["barriers"][2]["curvature"]), "curvature"),
        (lambda c: c.update(periodic=[0]), "periodic"),
        (lambda c: c["worst"].update(row=encode(0.5)), "worst.row"),
        (lambda c: c.update(hold=encode(0.01)), "hold"),
        (lambda c: c["barriers"].pop(0), "face"),  # no wall, so that the box is left
    ],
)
def test_what_is_not_true_is_not_confirmed(proof, change, says: str) -> None:
    claim = proof["claims"][0]
    change(claim)
    if (
        says == "0x"
    ):  # the dropped witness makes the counts disagree; with the count right, the mathematics refuses
        values = decode(claim["data"]["witness"], "witness")
        claim["data"]["witness"] = encode(values[1:])
        says = "not outside"
    claim["statement"] = claims.statement(claim, proof)
    (finding,) = check_claims(proof)
    assert finding.outcome is not Outcome.HOLDS
    assert says in finding.text


def test_start_box_is_proved_to_lie_in_the_set(tmp_path) -> None:
    """No larger, other or absent box passes with the cover that was proved."""
    start = ([-2.55, -0.38], [-0.45, 0.38])
    folder = tmp_path / "a"
    save_barrier(folder, LINE.name, start)
    proved = certify_barrier_record(folder / "barrier.json", command="t", seconds=60.0, report=quiet)
    (finding,) = check_claims(proved)
    assert finding.outcome is Outcome.HOLDS, finding.text
    assert "S contains every state with p in [-2.55, -0.45]" in finding.statement
    barrier, (low, high) = barrier_of(LINE), (torch.tensor(end, dtype=torch.float64) for end in start)
    x = low + (high - low) * torch.rand(
        10_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    assert (barrier.value(x) >= 0).all()
    assert (barrier.clearance(x) >= 0).all()
    wider = {"lower": encode([-2.55, -0.38]), "upper": encode([-0.45, 0.7])}
    for change, says in (
        ({"start": wider}, "start box"),
        ({"start": {"lower": encode([-3.04, -0.7]), "upper": encode([-3.04, -0.7])}}, "start box"),
        ({"start": wider | {"upper": encode([0.5, 0.38])}}, "start.lower"),
        ({"start": wider | {"lower": encode([-0.4, -0.38])}}, "start.lower"),
        ({"start": None}, "data.start"),
        ({"data": proved["claims"][0]["data"] | {"start": ""}}, "data.start"),
        ({"data": proved["claims"][0]["data"] | {"start": "+"}}, "no leaf"),
    ):
        other = copy.deepcopy(proved)
        other["claims"][0] |= change
        with contextlib.suppress(FileFormatError, TypeError):
            other["claims"][0]["statement"] = claims.statement(other["claims"][0], other)
        (found,) = check_claims(other)
        assert found.outcome is not Outcome.HOLDS
        assert re.search(says, found.text), found.text


def test_start_box_around_a_corner_is_covered_by_pieces() -> None:
    """The unicycle's start box reaches close to the fence: one enclosure is too coarse, its pieces are not."""
    system = system_of(ROUND)
    low, high = [-4.3, -2.4, -0.45], [-2.2, 2.4, 0.45]
    tree = cover_start(system, ROUND, low, high)
    pieces = list(leaves(tree, low, high, claims.STARTS, "start"))
    assert len(pieces) > 1
    assert all(is_inside(system, piece.lower, piece.upper) for piece in pieces)
    assert not is_inside(system, low, high)


@pytest.mark.parametrize(
    ("start", "error", "says"),
    [
        (([-3.04, -0.2], [-2.0, 0.2]), ConvergenceError, "some outside"),
        (([-2.5, -0.3], [-0.1, 0.3]), ConvergenceError, "start states in the safe set"),
        (([-2.5, -0.3], [0.5, 0.3]), ShapeError, "box of 2 states"),
        (([-2.5, -0.3], [-2.6, 0.3]), ShapeError, "box of 2 states"),
        (([-2.5, float("nan")], [-2.4, 0.3]), ShapeError, "box of 2 states"),
        (([-2.5], [-2.4]), ShapeError, "box of 2 states"),
    ],
)
def test_start_box_that_is_not_safe_ends_the_proof(start, error, says: str) -> None:
    with pytest.raises(error, match=says):
        certify_barrier(LINE, command="test", start=start)


def test_start_box_is_refused_where_it_is_saved(tmp_path) -> None:
    for start in (([0.2, 0.0], [-0.2, 0.1]), ([0.2], [0.3, 0.1]), ([float("nan")], [0.0])):
        with pytest.raises(ShapeError, match="lower <= upper"):
            save_barrier(tmp_path, LINE.name, start)


def test_search_that_is_cut_short_says_so() -> None:
    with pytest.raises(ConvergenceError, match=r"none yet on a share of .* 3 boxes\. Raise them"):
        certify_barrier(LINE, command="test", most=3)
    with pytest.raises(ConvergenceError, match="no decision in time"):
        certify_barrier(LINE, command="test", seconds=-1.0, start=([-2.55, -0.38], [-0.45, 0.38]))


def test_unbounded_curvature_gives_no_proof() -> None:
    task = DoubleIntegratorTask()
    task.clearances = tuple(
        dataclasses.replace(c, curvature=lambda x, xp, c=c: 0.5 * c.curvature(x, xp)) for c in task.clearances
    )
    with pytest.raises(ConvergenceError, match=r"curvature of 'far wall'|counterexample"):
        certify_barrier(task, command="test")
    with pytest.raises(SetTypeError, match="clearances"):
        certify_barrier(PendulumTask(), command="test")


@pytest.mark.parametrize("task", [LINE, ROUND], ids=["line", "unicycle"])
def test_held_inputs_behind_the_layer_keep_the_set(task, generator: torch.Generator) -> None:
    """Random and extreme proposals from everywhere in the set; states between the samples count as well."""
    barrier, layer = barrier_of(task), HardNetAffine().eval()
    low, high = limits(task)
    lower, upper = (torch.tensor(v) for v in task.clearance_box)
    x = lower + (upper - lower) * torch.rand(1500, len(lower), generator=generator, dtype=torch.float64)
    x = x[(barrier.value(x) >= 0).all(-1) & (barrier.clearance(x) >= 0).all(-1)]
    worst = torch.inf
    for k in range(25):
        wide = torch.rand(len(x), len(low), generator=generator, dtype=torch.float64)
        raw = low - 1 + (high - low + 2) * (wide if k % 2 else wide.round())
        u = layer(raw, barrier.condition(0.0, x))
        for _ in range(4):
            x = RK4().step(task.plant, 0.0, x, u, None, task.clearance_hold / 4, torch)
            worst = min(worst, float(barrier.value(x).amin()), float(barrier.clearance(x).amin()))
    assert worst > -1e-9


def test_falsifier_agrees_with_the_proof_and_finds_what_is_wrong() -> None:
    assert not falsify_barrier(LINE, count=100, seed=0).is_counterexample
    task = KinematicUnicycleTask()
    task.clearance_hold = 0.4
    task.clearances = tuple(
        dataclasses.replace(c, curvature=lambda x, xp, c=c: 0.0 * c.curvature(x, xp)) for c in task.clearances
    )
    found = falsify_barrier(task, count=300, seed=0)
    assert found.is_counterexample
    assert found.tried > 300


def system_of(task) -> claims.System:
    n = task.plant.state_dim
    barriers = tuple(
        claims.Barrier(
            c.name, program_of(trace(c.value, n)), program_of(trace(c.curvature, n)), tuple(c.gains)
        )
        for c in task.clearances
    )
    return claims.System(
        program_of(trace_derivative(task.plant)),
        barriers,
        tuple(task.input_low),
        tuple(task.input_high),
        task.clearance_hold,
        1e-6,
    )


def test_boxes_of_the_unicycle(rng: np.random.Generator) -> None:
    """Proved or outside where boxes are small; every state that is outside is outside in floating point too."""
    system, barrier = system_of(ROUND), barrier_of(ROUND)
    lower, upper = ROUND.clearance_box
    settled = 0
    for _ in range(12):
        center = rng.uniform(lower, upper)
        half = np.array([0.1, 0.1, 0.08])
        a, b = center - half, center + half
        x = torch.tensor(rng.uniform(a, b, (50, 3)))
        inside = (barrier.value(x) >= 0).all(-1)
        if is_outside(system, tuple(a), tuple(b)):
            assert not inside.any()
            settled += 1
        else:
            settled += examine(system, tuple(a), tuple(b), (0.0, 0.0)).problem is None
    assert settled >= 11


def test_series_contain_the_derivatives_of_samples(rng: np.random.Generator) -> None:
    """Taylor coefficients and slopes over a box contain those at points of it, by finite differences of RK4 runs."""
    plant = program_of(trace_derivative(ROUND.plant))
    a, b = np.array([1.0, -0.5, 0.2]), np.array([1.1, -0.3, 0.5])
    low, high = np.array([0.5, -1.0]), np.array([0.8, 0.5])
    with precision(64), order(4):
        u = [interval(p, q) for p, q in zip(low, high, strict=True)]
        jets = solution(plant, [interval(p, q) for p, q in zip(a, b, strict=True)], u, 3, 0)
        for _ in range(20):
            x0, u0 = rng.uniform(a, b), rng.uniform(low, high)
            exact = solution(plant, [arb(v) for v in x0], [arb(v) for v in u0], 3, 0)
            for over, at in zip(jets, exact, strict=True):
                for k in range(4):
                    assert over.coefficient(k).overlaps(at.coefficient(k))
                    assert over.slope_coefficient(k).overlaps(at.slope_coefficient(k))
            s = 1e-2
            moved = RK4(8).step(ROUND.plant, 0.0, x0, u0, None, s, np)
            value = [sum(float(j.coefficient(k).mid()) * s**k for k in range(4)) for j in exact]
            np.testing.assert_allclose(moved, value, atol=1e-8)


def test_kinks_are_never_enclosed() -> None:
    program = program_of({"inputs": 1, "code": [["relu", 0]]})
    with precision(64), order(3):
        (jet,) = run(program, [Jet.of([interval(-1.0, 1.0)])])
        assert not jet.coefficient(0).is_finite()


def test_command_line_and_record(tmp_path) -> None:
    save_barrier(tmp_path, "double-integrator")
    app = typer.Typer()
    app.command("certify", cls=Command)(certify.command)
    app.command("check", cls=Command)(check.command)
    made = CliRunner().invoke(app, ["certify", str(tmp_path), "--jobs", "2"])
    assert made.exit_code == 0, made.output
    assert "So S is never left" in made.output
    assert CliRunner().invoke(app, ["check", str(tmp_path / "certificate.json")]).exit_code == 0
    refused = CliRunner().invoke(app, ["certify", str(tmp_path), "--search", "5"])
    assert refused.exit_code == 2
    (tmp_path / "barrier.json").write_text("{}")
    damaged = CliRunner().invoke(app, ["certify", str(tmp_path)])
    assert damaged.exit_code == 2
    assert "name of a task" in damaged.output


@pytest.mark.slow
def test_unicycle_is_proved_and_checked() -> None:
    proof = certify_barrier(ROUND, command="test", jobs=2)
    (finding,) = check_claims(proof)
    assert finding.outcome is Outcome.HOLDS
