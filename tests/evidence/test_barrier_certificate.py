"""Proofs that held inputs keep a safe set: made, checked, not to be forged, and true in simulation."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
import typer
from flint import arb
from typer.testing import CliRunner

from constrained_nn.certificates import SampledBarrier
from constrained_nn.cli import certify, check
from constrained_nn.errors import ConvergenceError, SetTypeError
from constrained_nn.evidence._barrier import certify_barrier, save_barrier
from constrained_nn.evidence._builder import program_of
from constrained_nn.evidence._falsify import falsify_barrier
from constrained_nn.evidence._trace import trace, trace_derivative
from constrained_nn.layers import HardNetAffine
from constrained_nn.verify import Outcome, check_claims, decode, encode
from constrained_nn.verify import _barrier as claims
from constrained_nn.verify._balls import interval, precision
from constrained_nn.verify._held import examine, outside
from constrained_nn.verify._jets import Jet, order, run, solution
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


def change_number(claim: dict, key: str, value: float, index: int = 0) -> None:
    values = decode(claim[key], key)
    values[index] = value
    claim[key] = encode(values)


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
        if outside(system, tuple(a), tuple(b)):
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
    app.command("certify")(certify.command)
    app.command("check")(check.command)
    made = CliRunner().invoke(app, ["certify", str(tmp_path)])
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
    proof = certify_barrier(ROUND, command="test")
    (finding,) = check_claims(proof)
    assert finding.outcome is Outcome.HOLDS
