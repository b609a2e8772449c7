"""HardNet (arXiv 2410.10807): its propositions, its weak points, and its safety-critical control task."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from constrained_nn import (
    AffineSubspace,
    ControlBarrier,
    FoundBy,
    Halfspace,
    HardNetAffine,
    LeastViolation,
    Polyhedron,
    Status,
)
from constrained_nn.control import FunctionController, SafetyFilter
from constrained_nn.layers import EuclideanProjection
from control_envs.simulate import rollout
from control_envs.tasks import UnicycleObstacles
from tests.cases.sets import INF, rand, randn, tensor
from tests.oracles import nearest_in_polyhedron, numpy

# --- the map -----------------------------------------------------------------------------------------------


@pytest.fixture
def problem(generator: torch.Generator) -> tuple[torch.Tensor, Polyhedron]:
    A, q = randn(generator, 50, 3, 5), randn(generator, 50, 3)
    lower, upper = q - rand(generator, 50, 3), q + rand(generator, 50, 3)
    lower[:, 0], upper[:, 1] = -INF, INF
    return 4.0 * randn(generator, 50, 5), Polyhedron(A, lower, upper)


def test_proposition_7_row_values_are_clamped(problem) -> None:
    y, set = problem
    expected = torch.clamp(set.value(y), set.lower, set.upper)
    torch.testing.assert_close(set.value(HardNetAffine()(y, set)), expected, rtol=1e-10, atol=1e-10)
    assert (expected == set.value(y)).any()
    assert (expected != set.value(y)).any()


def test_proposition_6_nearest_of_the_smallest_change_of_rows(problem, generator: torch.Generator) -> None:
    """No feasible point has closer row values, and none with the same row values is closer."""
    y, set = problem
    value = HardNetAffine()(y, set)
    moved = (set.value(value) - set.value(y)).norm(dim=-1)
    rival = value + 0.3 * randn(generator, 200, 50, 5)
    rival = HardNetAffine()(rival, set)  # feasible rivals
    assert ((set.value(rival) - set.value(y)).norm(dim=-1) >= moved - 1e-9).all()
    _, _, V = torch.linalg.svd(set.A)
    null = V[:, 3:, :]  # directions that change no row value
    other = value + (null.mT @ randn(generator, 50, 2, 1)).squeeze(-1)
    assert ((other - y).norm(dim=-1) > (value - y).norm(dim=-1)).all()


def test_idempotent(problem) -> None:
    y, set = problem
    once = HardNetAffine()(y, set)
    torch.testing.assert_close(HardNetAffine()(once, set), once, rtol=0, atol=1e-12)


def test_one_row_is_the_halfspace_projection(generator: torch.Generator) -> None:
    half = Halfspace(randn(generator, 50, 4), randn(generator, 50))
    y = 3.0 * randn(generator, 50, 4)
    torch.testing.assert_close(HardNetAffine()(y, half), half.project(y), rtol=1e-12, atol=1e-12)


def test_orthogonal_rows_are_the_euclidean_projection(generator: torch.Generator) -> None:
    Q, _ = torch.linalg.qr(randn(generator, 4, 4))
    set = Polyhedron(Q[:3], -rand(generator, 20, 3), rand(generator, 20, 3))
    y = 3.0 * randn(generator, 20, 4)
    value = HardNetAffine()(y, set)
    for i in range(20):
        expected = nearest_in_polyhedron(numpy(y[i]), numpy(Q[:3]), numpy(set.lower[i]), numpy(set.upper[i]))
        np.testing.assert_allclose(numpy(value[i]), expected, rtol=1e-9, atol=1e-9)


def test_oblique_rows_are_not() -> None:
    set = Polyhedron(tensor([1.0, 0.0], [1.0, 1.0]), upper=tensor(1.0, 1.0))
    y = tensor(0.5, 2.5)
    torch.testing.assert_close(HardNetAffine()(y, set), tensor(0.5, 0.5))
    torch.testing.assert_close(EuclideanProjection()(y, set), tensor(-0.5, 1.5))


def test_jacobian_is_identity_minus_the_violated_rows(problem) -> None:
    y, set = problem
    for i in range(10):
        row = Polyhedron(set.A[i], set.lower[i], set.upper[i])
        jacobian = torch.autograd.functional.jacobian(lambda p, row=row: HardNetAffine()(p, row), y[i])
        violated = torch.diag((row.residual(y[i]) != 0).double())
        expected = torch.eye(5, dtype=torch.float64) - torch.linalg.pinv(row.A) @ violated @ row.A
        torch.testing.assert_close(jacobian, expected, rtol=1e-9, atol=1e-9)


def test_equality_rows_take_their_directions_even_where_they_hold() -> None:
    plane = AffineSubspace(tensor([1.0, 1.0]), tensor(2.0))
    on_it = tensor(1.5, 0.5)
    jacobian = torch.autograd.functional.jacobian(lambda p: HardNetAffine()(p, plane), on_it)
    torch.testing.assert_close(jacobian, tensor([0.5, -0.5], [-0.5, 0.5]))


def test_gradient_vanishes_in_the_span_of_violated_rows() -> None:
    set = Polyhedron(tensor([1.0, 0.0]), upper=tensor(0.0))
    y = tensor(1.0, 1.0).requires_grad_()
    (gradient,) = torch.autograd.grad(HardNetAffine()(y, set) @ tensor(1.0, 2.0), y)
    torch.testing.assert_close(gradient, tensor(0.0, 2.0))


# --- where the published code returns violated outputs ------------------------------------------------------


def random_hard_problems(generator: torch.Generator, m: int, n: int) -> tuple[torch.Tensor, Polyhedron]:
    A = randn(generator, 100, m, n)
    inside = randn(generator, 100, n, 1)
    return 5.0 * randn(generator, 100, n), Polyhedron(A, upper=(A @ inside).squeeze(-1) + 0.1)


@pytest.mark.parametrize(("m", "n"), [(3, 2), (6, 4), (8, 3)])
def test_more_rows_than_outputs_never_fail_silently(m: int, n: int, generator: torch.Generator) -> None:
    y, set = random_hard_problems(generator, m, n)
    solution = HardNetAffine().solve(y, set)
    assert (set.violation(y) > 0).sum() > 50
    assert solution.ok.all()
    assert (set.relative_violation(solution.value) <= 1e-9).all()


def test_duplicate_and_opposite_rows_never_fail_silently(generator: torch.Generator) -> None:
    a, y = randn(generator, 100, 1, 3), 5.0 * randn(generator, 100, 3)
    width = rand(generator, 100, 1)
    for sign in (1.0, -1.0):
        set = Polyhedron(torch.cat([a, sign * a], -2), upper=torch.cat([width, 0.5 * width], -1))
        solution = HardNetAffine().solve(y, set)
        assert solution.ok.all()
        assert (solution.found_by[set.violation(y) > 0] == FoundBy.ACTIVE_SET).any()
        assert (set.relative_violation(solution.value) <= 1e-9).all()
        merged = Polyhedron(set.A[0], upper=set.upper[0]).merged()
        assert merged.A.shape == (1, 3)
        expected = HardNetAffine().solve(y[:1], merged)
        assert expected.status == Status.OK
        torch.testing.assert_close(expected.value, solution.value[:1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-9, 1e-12, 1e-15, 0.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_near_parallel_rows_never_fail_silently(
    angle: float, dtype: torch.dtype, generator: torch.Generator
) -> None:
    a, side = randn(generator, 100, 2, 3).unbind(-2)
    A = torch.stack([a, a + angle * side], -2)
    set = Polyhedron(A.to(dtype), upper=tensor(0.1, 0.0).to(dtype))
    solution = HardNetAffine(on_failure=LeastViolation()).solve(
        (5.0 * randn(generator, 100, 3)).to(dtype), set
    )
    limit = 1e-9 if dtype == torch.float64 else 1e-4
    wide = Polyhedron(set.A.double(), set.lower.double(), set.upper.double())
    held = wide.violation(solution.value.double()) <= limit * wide.scale(solution.value.double()).amax(-1)
    assert held[solution.ok].all()
    assert solution.ok.all(), solution.describe_failures()


def test_crossed_bounds_are_flagged(generator: torch.Generator) -> None:
    A = randn(generator, 6, 2, 3)
    lower, upper = -torch.ones(6, 2).double(), torch.ones(6, 2).double()
    lower[4, 1], upper[4, 1] = 1.0, 0.0
    for shift in (-9.0, 0.5, 9.0):  # below, between and above the crossed bounds
        y = (torch.linalg.pinv(A) @ torch.full((6, 2, 1), shift, dtype=torch.float64)).squeeze(-1)
        solution = HardNetAffine().solve(y, Polyhedron(A, lower, upper))
        assert solution.status.tolist() == [0, 0, 0, 0, int(Status.INFEASIBLE), 0]


# --- the safety-critical control task -----------------------------------------------------------------------

TASK = UnicycleObstacles()


def closed_loop(controller) -> dict[str, np.ndarray]:
    starts = torch.from_numpy(TASK.published_starts()["test"])
    assert len(starts) == 84
    with torch.no_grad():
        path = rollout(
            TASK.plant,
            controller,
            starts,
            dt=TASK.dt,
            horizon=TASK.horizon,
            integrator=TASK.integrator,
            substeps=TASK.substeps,
            running={"cost": TASK.stage_cost},
            extremes={c.name: c.g for c in TASK.constraints},
        )
    assert path.complete.all()
    return {
        "cost": float(path.integrals["cost"].mean()),
        "collisions": int((torch.stack([*path.worst.values()]) > 0).any(0).sum()),
        "states": path.x,
    }


def filtered(layer, nominal=TASK.nominal) -> SafetyFilter:
    barrier = ControlBarrier(TASK.barrier, TASK.plant, rate=TASK.alpha)
    return SafetyFilter(FunctionController(nominal), barrier.condition, layer).eval()


@pytest.mark.once  # test_train checks the same functions
def test_nominal_controller_costs_656_28_and_always_collides() -> None:
    result = closed_loop(TASK.nominal)
    assert result["cost"] == pytest.approx(656.28, abs=0.05)
    assert result["collisions"] == 84


@pytest.mark.once  # test_train checks the same functions
def test_untrained_hardnet_costs_981_59() -> None:
    result = closed_loop(filtered(HardNetAffine()))
    assert result["cost"] == pytest.approx(981.59, abs=0.1)
    assert result["collisions"] == 0


@pytest.mark.once  # test_train checks the same functions
def test_exact_cbf_qp_costs_968_35() -> None:
    result = closed_loop(filtered(EuclideanProjection()))
    assert result["cost"] == pytest.approx(968.35, abs=0.1)
    assert result["collisions"] == 0


def test_published_cbf_qp_targets_twice_the_nominal_control() -> None:
    """948.32 is the filter of `2 u_nominal`, the row of the published table."""
    result = closed_loop(filtered(EuclideanProjection(), lambda t, x: 2.0 * TASK.nominal(t, x)))
    assert result["cost"] == pytest.approx(948.32, abs=0.1)


def test_qr_holds_the_digits_that_cholesky_loses() -> None:
    """At the worst conditioning met on the way, forming `A Aᵀ` costs half of the digits."""
    states = closed_loop(TASK.nominal)["states"].reshape(-1, 5)
    set = ControlBarrier(TASK.barrier, TASK.plant, rate=TASK.alpha).condition(0.0, states)
    worst = torch.linalg.cond(set.A).nan_to_num(0.0, 0.0, 0.0).argmax()
    A, upper = set.A[worst], set.upper[worst]
    assert torch.linalg.cond(A) > 1e4
    y = TASK.nominal(0.0, states[worst])
    row = Polyhedron(A, upper=torch.minimum(upper, A @ y - 1.0))  # both rows violated
    correction = row.upper - A @ y
    gram = torch.linalg.cholesky(A @ A.mT)
    by_cholesky = y + A.mT @ torch.cholesky_solve(correction.unsqueeze(-1), gram).squeeze(-1)
    solution = HardNetAffine().solve(y, row)
    assert solution.status == Status.OK
    assert row.relative_violation(solution.value) < 1e-9
    assert row.violation(by_cholesky) > 100 * row.violation(solution.value)
