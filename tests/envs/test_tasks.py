"""Tasks against formulas written out once more, in plain Python: constraints, costs, nominal controllers, brakes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from control_envs.dynamics import DoubleIntegrator, Quadrotor
from control_envs.tasks import TASKS, RegulationTask, keep_out, limit, make_task


def ellipse(
    px: float, py: float, theta: float, center: tuple[float, float], radii: tuple[float, float]
) -> float:
    """How deep the point 0.1 m ahead is inside an ellipse."""
    dx, dy = px + 0.1 * math.cos(theta) - center[0], py + 0.1 * math.sin(theta) - center[1]
    return 1.0 - (dx / radii[0]) ** 2 - (dy / radii[1]) ** 2


# g <= 0 is safe; states by name
CONSTRAINTS = {
    "unicycle-obstacles": {
        "obstacle-1": lambda q: ellipse(q["px"], q["py"], q["theta"], (-2.25, 0.5), (0.5, 0.75)),
        "obstacle-2": lambda q: ellipse(q["px"], q["py"], q["theta"], (-0.8, 0.0), (0.5, 0.5)),
    },
    "kinematic-unicycle": {"obstacle": lambda q: 1 - 0.51020408 * q["px"] ** 2 - 0.90702948 * q["py"] ** 2},
    "double-integrator": {"p-high": lambda q: q["p"] - 0.1, "v-size": lambda q: abs(q["v"]) - 0.7},
    "pendulum": {"omega-size": lambda q: abs(q["omega"]) - 7.0},
    "cart-pole": {"p-size": lambda q: abs(q["p"]) - 2.0, "theta-size": lambda q: abs(q["theta"]) - 0.3},
    "car": {
        "obstacle": lambda q: 2.0 - math.hypot(q["px"] - 25.0, q["py"] - 0.5),
        "py-size": lambda q: abs(q["py"]) - 4.0,
        "delta-size": lambda q: abs(q["delta"]) - 0.5,
    },
    "planar-rotorcraft": {"py-low": lambda q: -2.0 - q["py"], "phi-size": lambda q: abs(q["phi"]) - 1.0},
    "pvtol": {"py-low": lambda q: -2.0 - q["py"], "phi-size": lambda q: abs(q["phi"]) - 1.0},
    "quadrotor": {
        "pz-low": lambda q: 0.1 - q["pz"],
        "pole": lambda q: 0.3 - math.hypot(q["px"] + 1.0, q["py"]),
    },
    "manipulator": {
        "rate1-size": lambda q: abs(q["rate1"]) - 5.0,
        "rate2-size": lambda q: abs(q["rate2"]) - 5.0,
        "ceiling": lambda q: -0.5 * math.cos(q["q1"]) - 0.5 * math.cos(q["q1"] + q["q2"]) - 0.6,
    },
    "linear": {"x1-size": lambda q: abs(q["x1"]) - 1.5, "x2-size": lambda q: abs(q["x2"]) - 1.5},
    "van-der-pol": {},
    "spacecraft": {},
    "planar-birotor": {},
}


def states_of(task, count: int = 40) -> np.ndarray:
    """States around the region of the task, some of them outside of it."""
    rng = np.random.default_rng(0)
    low, high = np.maximum(task.state_low, -8.0), np.minimum(task.state_high, 30.0)
    return rng.uniform(low, high, (count, task.plant.state_dim))


@pytest.mark.once
@pytest.mark.parametrize("name", TASKS)
def test_constraints_are_those_of_the_description(name: str) -> None:
    task = make_task(name)
    x = states_of(task)
    u = np.zeros((len(x), task.plant.input_dim))
    assert [c.name for c in task.constraints] == list(CONSTRAINTS[name])
    for constraint in task.constraints:
        formula = CONSTRAINTS[name][constraint.name]
        names = [q.name for q in task.plant.state]
        expected = np.array([formula(dict(zip(names, state, strict=True))) for state in x.tolist()])
        np.testing.assert_allclose(constraint.g(0.0, x, u), expected, rtol=1e-12, atol=1e-12)
        both = constraint.g(0.0, torch.from_numpy(x), torch.from_numpy(u))
        np.testing.assert_allclose(both.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.once
def test_keep_out_is_a_ball_around_its_center() -> None:
    outside = keep_out(Quadrotor(), "tree", ("pz", "px"), (2.0, -3.0), 0.5)
    state = {q.name: 0.0 for q in Quadrotor().state}
    for pz, px, depth in (
        (2.0, -3.0, 0.5),
        (2.0, -3.3, 0.2),
        (2.3, -3.4, 0.0),
        (5.0, 1.0, -4.5),
        (-2.0, 3.0, None),
    ):
        x = np.array([{**state, "pz": pz, "px": px}[name] for name in state])
        expected = 0.5 - math.hypot(4.0, 6.0) if depth is None else depth
        assert outside.g(0.0, x, np.zeros(4)) == pytest.approx(expected, abs=1e-12)
    assert (outside.name, outside.unit) == ("tree", "m")


@pytest.mark.once
def test_limits_are_one_sided_or_of_a_size() -> None:
    plant = DoubleIntegrator()
    x = np.array([[-2.0, 5.0], [3.0, -0.5]])
    none = np.zeros((2, 1))
    assert limit(plant, "p", low=-1.0).g(0.0, x, none).tolist() == [1.0, -4.0]
    assert limit(plant, "p", high=1.0).g(0.0, x, none).tolist() == [-3.0, 2.0]
    assert limit(plant, "v", size=2.0).g(0.0, x, none).tolist() == [3.0, -1.5]
    named = [limit(plant, "v", size=2.0), limit(plant, "p", low=0.0), limit(plant, "p", high=0.0)]
    assert [(c.name, c.unit) for c in named] == [("v-size", "m/s"), ("p-low", "m"), ("p-high", "m")]


REGULATED = [name for name, task in TASKS.items() if issubclass(task, RegulationTask)]


def errors_of(task, x: np.ndarray, chord: bool) -> np.ndarray:
    """State less goal; an angle by its chord, or brought into (−π, π]."""
    e = x - task.goal
    for i, quantity in enumerate(task.plant.state):
        if quantity.angle:
            wrapped = (e[:, i] + math.pi) % (2 * math.pi) - math.pi
            e[:, i] = 2 * np.sin(e[:, i] / 2) if chord else wrapped
    return e


@pytest.mark.once
@pytest.mark.parametrize("name", REGULATED)
def test_quadratic_cost_and_saturated_regulator(name: str) -> None:
    task = make_task(name)
    assert isinstance(task, RegulationTask)
    x = states_of(task)
    u = np.random.default_rng(1).uniform(-2, 2, (len(x), task.plant.input_dim)) + task.goal_input
    e = errors_of(task, x, chord=True)
    cost = (e**2) @ task.state_weights + ((u - task.goal_input) ** 2) @ task.input_weights
    np.testing.assert_allclose(task.stage_cost(0.0, x, u), cost, rtol=1e-12)
    if type(task).nominal is not RegulationTask.nominal:
        return  # a controller of its own
    raw = task.goal_input - errors_of(task, x, chord=False) @ task.gain.T
    np.testing.assert_allclose(task.nominal(0.0, x), np.clip(raw, task.input_low, task.input_high), rtol=1e-9)
    # the gain is optimal: K is stationary for the cost of the linear loop
    A, B = task.plant.linearize(task.goal, task.goal_input)
    assert np.linalg.eigvals(A - B @ task.gain).real.max() < 0


@pytest.mark.once
@pytest.mark.parametrize("name", TASKS)
def test_starts_costs_and_inputs_are_in_their_ranges(name: str) -> None:
    task = make_task(name)
    starts = task.sample_starts(np.random.default_rng(3), 50)
    assert starts.shape == (50, task.plant.state_dim)
    assert (starts >= task.start_low - 1e-12).all()
    assert (starts <= task.start_high + 1e-12).all()
    assert (starts[1:] != starts[:-1]).any(-1).all()
    np.testing.assert_array_equal(task.sample_starts(np.random.default_rng(3), 7), starts[:7])
    u = task.nominal(0.0, starts)
    assert u.shape == (50, task.plant.input_dim)
    assert (task.stage_cost(0.0, starts, u) >= 0).all()
    brake = np.clip(task.brake(0.0, starts), task.input_low, task.input_high)
    assert brake.shape == u.shape
    features = task.features(0.0, starts)
    assert (features >= task.feature_low - 1e-9).all()
    assert (features <= task.feature_high + 1e-9).all()


@pytest.mark.once
def test_cost_of_the_unicycle_is_the_published_one() -> None:
    task = make_task("unicycle-obstacles")
    x, u = np.array([1.0, -2.0, 0.7, 3.0, -4.0]), np.array([5.0, -6.0])
    expected = 100 * (1 + 4) + 0.1 * (9 + 16) + 0.1 * (25 + 36)
    assert task.stage_cost(0.0, x, u) == pytest.approx(expected, rel=1e-12)


@pytest.mark.once
def test_limits_can_be_a_range_and_bad_ones_are_refused() -> None:
    plant = DoubleIntegrator()
    x, none = np.array([[-2.0, 5.0], [3.0, -0.5], [1.0, 0.0]]), np.zeros((3, 1))
    between = limit(plant, "p", low=0, high=2)
    assert between.g(0.0, x, none).tolist() == [2.0, 1.0, -1.0]
    assert (between.name, between.unit) == ("p-range", "m")
    for options in ({}, {"low": 1.0, "high": 1.0}, {"low": 0.0, "size": 1.0}, {"size": 0.0}):
        with pytest.raises(ValueError, match=r"limit: expected low, high"):
            limit(plant, "p", **options)
    with pytest.raises(ValueError, match=r"expected a state of DoubleIntegrator, got 'z'. Its states: p, v"):
        limit(plant, "z", low=0.0)
    with pytest.raises(ValueError, match=r"keep_out: expected a center with 2 entries"):
        keep_out(plant, "post", ("p", "v"), (0.0,), 1.0)
    with pytest.raises(ValueError, match=r"keep_out: expected a state"):
        keep_out(plant, "post", ("p", "z"), (0.0, 0.0), 1.0)


@pytest.mark.once
def test_a_name_that_is_taken_is_not_replaced() -> None:
    from control_envs.envs import register

    class Other(TASKS["pendulum"]):
        horizon = 3

    with pytest.raises(ValueError, match=r"'pendulum', which control_envs.tasks.pendulum.PendulumTask has"):
        register(Other)
    assert register(TASKS["pendulum"]) == "Ctrl/Pendulum-v0"
    assert TASKS["pendulum"] is not Other
