"""The SD-LQR experiments: feasible references, every row, the contraction condition."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from constrained_nn import experiments
from constrained_nn.control import Linearization
from control_envs.simulate import rollout

NAMES = ["sd-lqr-spacecraft", "sd-lqr-birotor"]
both = pytest.mark.parametrize("name", NAMES)


def small(name: str, **changes):
    task = experiments.load(name)
    return dataclasses.replace(task, steps=dict.fromkeys(task.steps, 3), batch=8, pairs=4, **changes)


def policy_of(task, factorization):
    return lambda reference: (task._regulator(factorization, reference), 1)


@both
def test_every_row_runs_and_says_what_it_measured(name, tmp_path):
    fast = experiments.load(name).fast()
    if name == "sd-lqr-birotor":
        fast = dataclasses.replace(fast, loop=2)
    for row in fast.rows:
        folder = tmp_path / (f"{row.name}-seed1" if row.seeded else row.name)
        folder.mkdir()
        metrics = fast.run(row.name, 1 if row.seeded else None, folder)
        loops = {f"loop_{count}" for count in (50, 200, 1000)}
        missing = {column.name for column in fast.columns} - set(metrics)
        assert missing in (set(), loops)
        assert not missing or row.name not in ("sd-lqr", "lqr-learned", "ccm", "lqr-known")
        assert all(v >= 0 for v in metrics.values())
    names = tuple(row.name for row in fast.rows)
    if name == "sd-lqr-birotor":
        assert fast.draw_loop(tmp_path, tmp_path / "loop.png").stat().st_size > 10_000
    drawn = fast.draw(tmp_path, tmp_path / "errors.png", names)
    assert drawn.stat().st_size > 10_000


@both
def test_references_are_motions_of_the_plant(name):
    task = small(name, tests=3, horizon=60)
    x, u = task.references
    low, high = torch.from_numpy(task.task.input_low), torch.from_numpy(task.task.input_high)
    assert bool(((low <= u) & (u <= high)).all())
    with torch.no_grad():
        path = rollout(
            task.task.plant, lambda t, _: u[:, round(t / task.task.dt)], x[:, 0], dt=task.task.dt, horizon=60
        )
    torch.testing.assert_close(path.x, x)
    # from its own start a reference is followed without error, whatever the gain
    make = policy_of(task, Linearization(task.task.plant))
    states, _, fell_back = task.fly(make, x[:, 0] + 1e-9, x, u)
    assert (states[0] - x).abs().max() < 1e-6
    assert fell_back == 0.0


def test_double_loop_is_a_motion_of_the_birotor():
    task = small("sd-lqr-birotor")
    x, u = task.double_loop()
    dt = task.task.dt
    middle, held = 0.5 * (x[0, 1:] + x[0, :-1]), 0.5 * (u[0, 1:] + u[0, :-1])
    velocity = (x[0, 1:] - x[0, :-1]) / dt
    error = task.task.plant.derivative(0.0, middle[:-1], held) - velocity[:-1]
    assert error.abs().max() < 2e-2  # second order in dt
    torch.testing.assert_close(x[0, [0, 750, 1500], 0], torch.tensor([-5.0, 0.0, 5.0], dtype=torch.float64))
    assert bool((u >= torch.from_numpy(task.task.input_low)).all())
    assert bool((u <= torch.from_numpy(task.task.input_high)).all())


@both
def test_known_plant_tracks(name):
    task = small(name, tests=6, horizon=450)  # 3 s of the 5 s of the table
    errors, fell_back = task.judge(policy_of(task, Linearization(task.task.plant)))
    assert task._metrics(errors)["median_50"] < 0.95
    assert fell_back == 0.0


def test_a_lost_run_costs_the_others_nothing():
    task = small("sd-lqr-spacecraft", tests=2, horizon=20)

    class Wild:
        def __call__(self, t, x):
            u = torch.zeros(*x.shape[:-1], 3, dtype=x.dtype)
            u[..., 1, 0] = math.nan
            return u

    errors, _ = task.judge(lambda reference: (Wild(), 3))
    found = task._metrics(errors)
    assert errors[:, 0].isfinite().all()
    assert errors[:, 1, -1].isinf().all()
    assert found["lost"] >= 50.0
    assert math.isinf(found["mean_50"])


@pytest.mark.untyped
def test_contraction_condition_is_that_of_autograd(tmp_path, generator):
    """`Ṁ` and the closed loop's Jacobian once more, by automatic differentiation."""
    recipe = small("sd-lqr-birotor").learned("contraction", 1, tmp_path)
    x, e, push = (torch.randn(3, 2, k, generator=generator, dtype=torch.float64) for k in (6, 6, 2))
    push = push + recipe.model.middle
    x_ref = x - e

    def flow(x):
        v = (recipe.gain(x, x_ref) @ (x - x_ref).unsqueeze(-1)).squeeze(-1)
        return recipe.model(x, push + v)

    def metric(x):
        L = recipe.metric(x / recipe.widths).unflatten(-1, (6, 6)).tril()
        return L @ L.mT + 0.1 * torch.eye(6).double()

    rows = torch.arange(3)[:, None], torch.arange(2)
    A = torch.autograd.functional.jacobian(flow, x)[rows[0], rows[1], :, rows[0], rows[1], :]
    M, rate = torch.func.jvp(metric, (x,), (flow(x),))
    expected = rate + M @ A + (M @ A).mT + M
    found, size = recipe.condition(x, e, push)
    torch.testing.assert_close(size, M)
    torch.testing.assert_close(found, expected)


def test_training_is_read_back(tmp_path):
    task = small("sd-lqr-birotor")
    first = task.learned("joint", 1, tmp_path)
    again = task.learned("joint", 1, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    other = task.learned("joint", 2, tmp_path)
    assert not torch.equal(first.net.weights[0], other.net.weights[0])
