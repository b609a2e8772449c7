"""Rollouts: sub-steps, integrals and extremes against a plain loop; NumPy against torch; gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from control_envs.dynamics import DoubleIntegrator, Pendulum, Unicycle
from control_envs.errors import NonFiniteError, ShapeError
from control_envs.simulate import Euler, InputLimitedSubsteps, rollout
from control_envs.tasks import UnicycleObstacles

pytestmark = pytest.mark.once  # control_envs has no annotations that are checked

TASK = UnicycleObstacles()


def stiff(t, x):
    """A controller whose inputs force sub-steps on some states and not on others."""
    scale = 60.0 * abs(x[..., 1:2])
    return scale * TASK.nominal(t, x)


def plain_loop(x0: np.ndarray, controller, dt: float, horizon: int, limit: float):
    """One element at a time, written from the definition."""
    states, costs, count = [], [], 0
    for x in x0:
        path, cost = [x], 0.0
        for k in range(horizon):
            left = dt
            while left > 1e-12 * dt:
                u = controller(k * dt + dt - left, x)
                held = min(dt * limit / max(abs(u).max(), 1e-300), left)
                cost += held * TASK.stage_cost(0.0, x, u)
                x = x + held * Unicycle().derivative(0.0, x, u)
                left -= held
                count += 1
            path.append(x)
        states.append(path)
        costs.append(cost)
    return np.array(states), np.array(costs), count


def run(x0, controller=stiff, **options):
    return rollout(
        Unicycle(),
        controller,
        x0,
        dt=0.02,
        horizon=10,
        integrator=Euler(),
        substeps=InputLimitedSubsteps(100.0),
        running={"cost": TASK.stage_cost},
        **options,
    )


def test_substeps_equal_a_plain_loop():
    x0 = TASK.published_starts()["test"][:15]
    seen = []
    trajectory = run(x0, observers=[lambda s: seen.append(len(s.x))])
    states, costs, count = plain_loop(x0, stiff, 0.02, 10, 100.0)
    assert sum(seen) == count > 15 * 10  # some states do need sub-steps
    np.testing.assert_allclose(trajectory.x, states, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(trajectory.integrals["cost"], costs, rtol=1e-12)
    assert trajectory.complete.all()


def test_numpy_equals_torch():
    x0 = TASK.published_starts()["test"][:15]
    extremes = {"speed": lambda t, x, u: x[..., 3]}
    a, b = run(x0, extremes=extremes), run(torch.as_tensor(x0), extremes=extremes)
    np.testing.assert_allclose(a.x, b.x, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(a.u, b.u, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(a.worst["speed"], b.worst["speed"], rtol=1e-11)
    np.testing.assert_allclose(a.integrals["cost"], b.integrals["cost"], rtol=1e-11)


def test_elements_do_not_depend_on_their_batch():
    x0 = torch.as_tensor(TASK.published_starts()["test"][:6])
    together = run(x0)
    for i in range(6):
        torch.testing.assert_close(run(x0[i : i + 1]).x[0], together.x[i], rtol=1e-13, atol=1e-13)


def test_runaway_element_is_given_up_and_named():
    x0 = torch.as_tensor(TASK.published_starts()["test"][:3])

    def explode(t, x):
        return torch.where((x[:, :1] - x0[1, 0]).abs() < 1e-3, 1e9, 1.0) * torch.ones_like(x[:, :2])

    trajectory = rollout(
        Unicycle(), explode, x0, dt=0.02, horizon=2, substeps=InputLimitedSubsteps(100.0, max_count=30)
    )
    assert trajectory.complete.tolist() == [True, False, True]


def test_gradient_of_a_substepped_rollout():
    x0 = torch.as_tensor(TASK.published_starts()["test"][:3])
    gain = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def cost(gain):
        return run(x0, lambda t, x: gain * TASK.nominal(t, x)).integrals["cost"].sum()

    (gradient,) = torch.autograd.grad(cost(gain), gain)
    h = 1e-6
    with torch.no_grad():
        numerical = (cost(gain + h) - cost(gain - h)) / (2 * h)
    torch.testing.assert_close(gradient, numerical, rtol=1e-6, atol=0.0)


def test_no_steps_is_the_start():
    trajectory = rollout(Pendulum(), lambda t, x: x[..., :1], np.ones((2, 2)), dt=0.1, horizon=0)
    assert trajectory.x.shape == (2, 1, 2)
    assert trajectory.u.shape == (2, 0, 1)


def test_disturbance_moves_the_plant():
    force = rollout(
        DoubleIntegrator(),
        lambda t, x: 0.0 * x[..., :1],
        np.zeros(2),
        dt=0.5,
        horizon=2,
        disturbance=lambda t, x: np.ones(1),
    )
    np.testing.assert_allclose(force.x[-1], [0.5, 1.0], rtol=1e-14)


def test_wrong_sizes_are_named():
    with pytest.raises(ShapeError, match=r"expected x0 of shape \(\*batch, 5\), got \(2, 4\)"):
        run(np.zeros((2, 4)))
    with pytest.raises(ShapeError, match="for sub-steps"):
        run(np.zeros(5))
    with pytest.raises(ShapeError, match="Unicycle has inputs a, alpha"):
        run(np.zeros((1, 5)), lambda t, x: x)


def test_published_starts_are_regenerated():
    parts = TASK.published_starts()
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [833, 83, 84]
    np.testing.assert_allclose(parts["train"][0], [-3.6473325, 0.23470662, -0.46790912, 0, 0], atol=1e-8)
    np.testing.assert_allclose(parts["test"][-1], [-3.5099045, 0.11524449, -0.43605577, 0, 0], atol=1e-8)


def test_fresh_starts_do_not_depend_on_their_number():
    few, many = (TASK.sample_starts(np.random.default_rng(3), n) for n in (5, 50))
    np.testing.assert_array_equal(few, many[:5])
    assert (TASK.barrier.value(many) >= 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_start_that_is_not_finite_is_named(bad, convert):
    x0 = np.zeros((2, 3, 2))
    x0[1, 2, 1] = bad
    with pytest.raises(NonFiniteError, match=rf"got {bad} at index \[1, 2, 1\] \(omega\)"):
        rollout(Pendulum(), lambda t, x: 0.0 * x[..., :1], convert(x0), dt=0.1, horizon=2)
