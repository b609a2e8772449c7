"""HardNet++: the published iteration, its identity with HardNet-Aff, and the constants of its planning task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from constrained_nn.bench import nonlinear
from constrained_nn.bench.rivals import planning_layers as bench
from constrained_nn.experiments import load
from constrained_nn.experiments.tables.hardnet_plus_plus import HORIZON
from constrained_nn.experiments.tables.hardnet_plus_plus.mpc_obstacle import optimal_costs
from constrained_nn.experiments.tables.hardnet_plus_plus.planners import PLANNERS
from constrained_nn.layers import HardNetAffine, HardNetPlusPlus, Retraced, Taped
from constrained_nn.sets import Polyhedron
from constrained_nn.solvers import GaussNewton
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


def plans(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 50, generator=generator).double(), torch.from_numpy(draw_starts(3, count))


def test_one_undamped_step_is_hardnet_affine(generator: torch.Generator) -> None:
    """With all rows, no damping and affine rows of full rank, in value and in every derivative."""
    A = torch.randn(6, 3, 5, generator=generator, dtype=torch.float64)
    lower = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    set = Polyhedron(A, lower, lower + torch.rand(6, 3, generator=generator, dtype=torch.float64))
    y = torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    layer = HardNetPlusPlus(method=GaussNewton.published(steps=1, damping=0.0))
    results = []
    for one in (layer, HardNetAffine()):
        value = one.solve(y, set).value
        results.append((value, torch.autograd.grad(value.square().sum(), y)[0]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-11)


def test_published_iteration_is_the_one_written_out(generator: torch.Generator) -> None:
    """Our general layer against the dense re-implementation with rows written entry by entry."""
    y, x0 = plans(4, generator)
    results = []
    for adjoint in (Retraced(), Taped(), None):
        leaf = y.clone().requires_grad_()
        if adjoint is None:
            value = bench.published_layer(leaf, x0, 15)
        else:
            layer = HardNetPlusPlus(method=GaussNewton.published(steps=15), adjoint=adjoint)
            value = layer.solve(leaf, plan_set(x0, HORIZON)).value
        results.append((value.detach(), torch.autograd.grad(value.square().sum(), leaf)[0]))
    torch.testing.assert_close(results[0], results[2], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(results[1], results[2], rtol=1e-9, atol=1e-9)


def test_published_iteration_is_slow_and_ours_is_not(generator: torch.Generator) -> None:
    y, x0 = plans(20, generator)
    set = plan_set(x0, HORIZON)
    slow = HardNetPlusPlus(method=GaussNewton.published(steps=100)).solve(y, set)
    fast = HardNetPlusPlus().solve(y, set)
    assert slow.violation.max() > 1e-3
    assert fast.ok.all()
    assert fast.steps.max() <= 50
    assert fast.violation.max() <= 1e-10


def test_optimal_costs_are_the_published_ones() -> None:
    """Mean, least and largest optimum of the 100 test states as found by IPOPT."""
    costs = optimal_costs(draw_starts(101, 100), HORIZON)
    np.testing.assert_allclose([costs.mean(), costs.min(), costs.max()], [322.870, 186.84, 480.59], atol=6e-3)


def test_solver_and_set_describe_one_program(rng: np.random.Generator) -> None:
    solver, x0 = PlanSolver(HORIZON), draw_starts(5, 1)[0]
    plan = solver.solve(x0, solver.guesses(x0))
    start = torch.from_numpy(x0)
    y = plan_map(HORIZON).join(torch.from_numpy(plan.states), torch.from_numpy(plan.inputs))
    assert plan_set(start, HORIZON).violation(y) <= 1e-7
    assert plan_cost(y, HORIZON).item() == pytest.approx(plan.cost, rel=1e-12)
    torch.testing.assert_close(roll_out(start, torch.from_numpy(plan.inputs)), torch.from_numpy(plan.states))
    u = rng.uniform(0.0, 1.0, (HORIZON, 2))
    _, gradient, _, jacobian = solver.evaluate(x0, u)
    for i in (0, 7, 12, 19):
        change = np.zeros(20)
        change[i] = 1e-6
        ahead, back = (
            solver.evaluate(x0, (u.T.ravel() + sign * change).reshape(2, -1).T) for sign in (1, -1)
        )
        assert (ahead[0] - back[0]) / 2e-6 == pytest.approx(gradient[i], rel=1e-5, abs=1e-5)
        np.testing.assert_allclose((ahead[2] - back[2]) / 2e-6, jacobian[:, i], atol=1e-6)


def test_mirror_leaves_the_program_as_it_is(generator: torch.Generator) -> None:
    y, x0 = plans(3, generator)
    other, start = mirrored_plan(y, HORIZON), mirrored_state(x0)
    torch.testing.assert_close(plan_cost(other, HORIZON), plan_cost(y, HORIZON))
    for kind, amount in violations(y, x0, HORIZON).items():
        torch.testing.assert_close(violations(other, start, HORIZON)[kind], amount)


@pytest.mark.parametrize("name", list(PLANNERS))
def test_planners_learn(name: str) -> None:
    planner, x0 = PLANNERS[name](), torch.from_numpy(draw_starts(3, 20))
    network = planner.network(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for step in range(8):
        loss = planner.loss(network, x0, step / 8)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    y, _ = planner.plan(network, x0)
    assert y.shape == (20, 50)
    if name == "hardnet++":
        assert plan_set(x0, HORIZON).violation(y).max() <= 1e-9
    if name == "dc3":
        assert violations(y, x0, HORIZON)["dynamics"].max() <= 1e-12


def test_experiment_runs_in_small(tmp_path: Path) -> None:
    experiment = load("mpc-obstacle").fast()
    metrics = experiment.run("hardnet++", 1, tmp_path / "cell")
    assert metrics["dynamics_max"] <= 1e-9
    assert metrics["steps_max"] <= 30
    assert (tmp_path / "cell" / "checkpoint.safetensors").exists()
    again = experiment.run("hardnet++", 1, tmp_path / "cell")
    assert again["subopt_mean"] == metrics["subopt_mean"]


def test_experiment_compares_with_published_arrays(tmp_path: Path) -> None:
    starts = draw_starts(7, 3)
    solver = PlanSolver(20)
    costs = np.array([solver.solve(x, [np.zeros((20, 2))]).cost for x in starts])
    np.savez(tmp_path / "mpc_obstacle_starts.npz", x0=starts, cost=costs)
    lines: list[str] = []
    assert all(c.agrees for c in load("mpc-obstacle").compare(tmp_path, lines.append))
    np.savez(tmp_path / "mpc_obstacle_starts.npz", x0=starts, cost=0.9 * costs)
    assert not all(c.agrees for c in load("mpc-obstacle").compare(tmp_path, lines.append))


def test_benchmark_measures_all_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonlinear, "_measured", bench.measure)  # here, and not in three processes
    record = nonlinear.run(4, 4, 3)
    assert record["batch"] == 4
    assert record["ours"]["retraced"]["violation"] <= 1e-9
    assert record["published_scaled"]["forward_s"] > record["published_measured"]["forward_s"]
    assert nonlinear.table(record).row_count == 3


def test_benchmark_runs_in_its_own_process() -> None:
    assert nonlinear._measured("implicit", 2, 0)["violation"] <= 1e-9
