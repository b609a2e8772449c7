"""The program of the plans, against loops over its steps in NumPy and against differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from constrained_nn.training.supervised import (
    PlanSolver,
    draw_starts,
    mirrored_plan,
    mirrored_state,
    plan_cost,
    plan_map,
    plan_set,
    roll_out,
    violations,
)
from constrained_nn.training.supervised.unicycle_plan import _derivative, _path, _step

HORIZON, DT = 4, 0.2
GOAL = np.array([3.5, 0.0, 0.0])


def ellipse(x: np.ndarray) -> float:
    from control_envs.tasks import ELLIPSE

    return float(ELLIPSE[0] * x[0] ** 2 + ELLIPSE[1] * x[1] ** 2)


def drive(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The states after `x`, one explicit Euler step after the other."""
    states = []
    for v, turn in u:
        x = x + DT * np.array([v * math.cos(x[2]), v * math.sin(x[2]), turn])
        states.append(x)
    return np.array(states)


def cost(states: np.ndarray, u: np.ndarray) -> float:
    """Squared errors to the goal, heading on the circle; the last one with (11, 11, 2); 0.1 |u|^2."""
    total = 0.1 * float((u**2).sum())
    for k, x in enumerate(states):
        e = x - GOAL
        e[2] = math.remainder(e[2], 2 * math.pi)
        weights = np.array([11.0, 11.0, 2.0]) if k == len(states) - 1 else np.ones(3)
        total += float(weights @ e**2)
    return total


@pytest.fixture
def plan(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A start state and inputs that turn by more than half a circle."""
    return np.array([-2.0, 0.7, 2.5]), np.stack(
        [rng.uniform(0.2, 2.0, HORIZON), rng.uniform(0.5, 1.5, HORIZON)], -1
    )


def test_start_states_are_in_the_box_and_off_the_obstacle() -> None:
    from control_envs.tasks import KinematicUnicycleTask

    task = KinematicUnicycleTask()
    starts = draw_starts(3, 300)
    assert starts.shape == (300, 3)
    assert (starts >= task.start_low).all()
    assert (starts <= task.start_high).all()
    away = np.array([ellipse(x) - 1.0 for x in starts])
    assert away.min() > 0.2
    assert (np.ptp(starts, axis=0) > 0.9 * (task.start_high - task.start_low)).all()
    far = np.array([ellipse(x) - 1.0 for x in draw_starts(3, 100, margin=2.0)])
    assert far.min() > 2.0


def test_objective_and_states_are_those_of_the_steps(plan) -> None:
    x0, u = plan
    solver, states = PlanSolver(HORIZON), drive(*plan)
    np.testing.assert_allclose(solver.simulate(x0, u), np.vstack([x0, states]), atol=1e-12)
    value, _, margin, _ = solver.evaluate(x0, u)
    assert value == pytest.approx(cost(states, u), rel=1e-12)
    np.testing.assert_allclose(margin, [ellipse(x) - 1.0 for x in states], atol=1e-12)
    start, inputs = torch.from_numpy(x0), torch.from_numpy(u)
    torch.testing.assert_close(roll_out(start, inputs), torch.from_numpy(states))
    y = plan_map(HORIZON).join(torch.from_numpy(states), inputs)
    assert plan_cost(y, HORIZON).item() == pytest.approx(cost(states, u), rel=1e-12)


def test_derivatives_are_differences(plan) -> None:
    x0, u = plan
    solver = PlanSolver(HORIZON)
    _, gradient, _, jacobian = solver.evaluate(x0, u)
    for i in range(2 * HORIZON):
        change = np.zeros(2 * HORIZON)
        change[i] = 1e-6
        ahead, back = (solver.evaluate(x0, (u.T.ravel() + s * change).reshape(2, -1).T) for s in (1, -1))
        assert (ahead[0] - back[0]) / 2e-6 == pytest.approx(gradient[i], rel=1e-6, abs=1e-6)
        np.testing.assert_allclose((ahead[2] - back[2]) / 2e-6, jacobian[:, i], atol=1e-7)


def test_stage_derivatives_are_those_of_autograd(generator: torch.Generator) -> None:
    x, z = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    u = torch.randn(2, generator=generator, dtype=torch.float64)
    found = _derivative(x, u, z, None)
    jacobian = torch.autograd.functional.jacobian
    expected = (
        *jacobian(lambda x, u: _step(x, u, None), (x, u)),
        *jacobian(lambda z, u: _path(z, u, None), (z, u)),
    )
    for block, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(block, exact)


def test_rows_are_violated_by_as_much_as_the_steps(plan) -> None:
    """One wrong state, one fast and one slow input, one state inside of the obstacle."""
    x0, u = plan
    states = drive(x0, u)
    clean = violations(
        plan_map(HORIZON).join(torch.from_numpy(states), torch.from_numpy(u)), torch.from_numpy(x0), HORIZON
    )
    assert clean["dynamics"].max() < 1e-12
    assert clean["limits"].max() == 0.0
    u[0], u[1, 1] = (2.5, -1.75), 1.6
    states[2] = (0.1, 0.2, 0.3)
    y = plan_map(HORIZON).join(torch.from_numpy(states), torch.from_numpy(u))
    found = violations(y, torch.from_numpy(x0), HORIZON)
    before = np.vstack([x0, states[:-1]])
    steps = np.array([drive(x, u[k : k + 1])[0] for k, x in enumerate(before)])
    np.testing.assert_allclose(found["dynamics"].numpy(), np.abs(states - steps), atol=1e-12)
    inside = [max(0.0, 1.0 - ellipse(x)) for x in states]
    np.testing.assert_allclose(found["obstacle"].numpy(), inside, atol=1e-12)
    assert inside[2] > 0.5
    expected = np.maximum(np.maximum(u - [2.0, 1.5], [0.0, -1.5] - u), 0.0)
    np.testing.assert_allclose(found["limits"].numpy(), expected, atol=1e-12)
    assert plan_set(torch.from_numpy(x0), HORIZON).violation(y).item() == pytest.approx(
        max(float(part.max()) for part in found.values())
    )


def test_mirror_is_py_to_minus_py(plan) -> None:
    x0, u = plan
    states = drive(x0, u)
    sign = np.array([1.0, -1.0, -1.0])
    np.testing.assert_array_equal(mirrored_state(torch.from_numpy(states)).numpy(), states * sign)
    mirrored = mirrored_plan(plan_map(HORIZON).join(torch.from_numpy(states), torch.from_numpy(u)), HORIZON)
    other, inputs = plan_map(HORIZON).split(mirrored)
    np.testing.assert_allclose(other.numpy(), drive(x0 * sign, u * [1.0, -1.0]), atol=1e-12)
    np.testing.assert_array_equal(inputs.numpy(), u * [1.0, -1.0])


def test_solver_finds_a_feasible_plan_that_no_guess_beats() -> None:
    solver, x0 = PlanSolver(HORIZON), np.array([-2.5, 0.1, 0.0])
    guesses = solver.guesses(x0)
    arcs = {(v, w) for v in (1.0, 2.0) for w in (-0.8, -0.4, 0.0, 0.4, 0.8)}
    assert {tuple(guess[0]) for guess in guesses[:-1]} == arcs
    assert all((guess == guess[0]).all() for guess in guesses[:-1])
    x = x0
    for u in guesses[-1]:  # the nominal controller along its own way
        from control_envs.tasks import KinematicUnicycleTask

        np.testing.assert_allclose(u, KinematicUnicycleTask().nominal(0.0, x))
        x = drive(x, u[None])[0]
    plan = solver.solve(x0, guesses)
    np.testing.assert_allclose(plan.states, drive(x0, plan.inputs), atol=1e-12)
    assert plan.cost == pytest.approx(cost(plan.states, plan.inputs), rel=1e-12)
    assert plan.violation == pytest.approx(max(0.0, *(1.0 - ellipse(x) for x in plan.states)), abs=1e-12)
    assert plan.violation <= 1e-6
    for guess in guesses:
        states = drive(x0, guess)
        if min(ellipse(x) for x in states) >= 1.0:
            assert plan.cost <= cost(states, guess) + 1e-6
    # of two plans the feasible one is kept, however cheap the other
    through = solver.solve(np.array([-1.6, 0.0, 0.0]), [np.tile([2.0, 0.0], (HORIZON, 1))], steps=1)
    both = solver.solve(
        np.array([-1.6, 0.0, 0.0]), [np.tile([2.0, 0.0], (HORIZON, 1)), np.zeros((HORIZON, 2))]
    )
    assert both.violation <= through.violation
