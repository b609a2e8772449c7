"""Projections onto sets with hundreds of active bounds, element by element, beside a conic solver and finite
differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from constrained_nn.solvers import Status, project_polyhedron
from constrained_nn.solvers.polyhedron.large import prefer_one_by_one, project_each
from constrained_nn.solvers.polyhedron.large.exact_rows import exact_point, least_violation_point
from constrained_nn.solvers.polyhedron.large.row_matrix import RowMatrix
from tests.numerics.random_polyhedra import kkt_residual

INF = np.inf


def sample(seed: int, n: int, m: int, *, density: float = 1.0, degenerate: bool = False):
    """`y, A, lower, upper, box` with most bounds active at the projection; a fifth of the rows are equalities.

    `degenerate`: repeated and dependent rows, fixed components, rows that are tight at many points.
    """
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, n)) * (rng.random((m, n)) < density)
    inner = rng.uniform(0.2, 0.8, n)
    if degenerate:
        A[1] = A[0]
        A[2] = -3.0 * A[3]
        A[4] = A[5] + A[6]
        A[7] = 0.0
        inner = np.where(rng.random(n) < 0.5, 0.0, inner)
    value = A @ inner
    lower = np.where(rng.random(m) < 0.5, value - 0.1 * rng.random(m), -INF)
    upper = value + 0.1 * rng.random(m)
    tight = rng.random(m) < 0.2
    if degenerate:
        tight[[0, 1, 4, 5, 6]] = True
    lower, upper = np.where(tight, value, lower), np.where(tight, value, upper)
    low, up = np.zeros(n), np.where(rng.random(n) < 0.8, 1.0, INF)
    if degenerate:
        fixed = rng.random(n) < 0.1
        low, up = np.where(fixed, inner, low), np.where(fixed, inner, up)
    return 3.0 * rng.standard_normal(n), A, lower, upper, (low, up)


def solve(y, A, lower, upper, box, **options):
    y, A, lower, upper, low, up = (torch.as_tensor(a) for a in (y, A, lower, upper, *box))
    return project_polyhedron(y, A, lower, upper, box=(low, up), **options)


def alone(y, A, lower, upper, box, **options):
    """The same without the search of a batch, as a batch of one."""
    sides = [torch.as_tensor(np.concatenate(pair))[None] for pair in ((lower, box[0]), (upper, box[1]))]
    return project_each(torch.as_tensor(y)[None], torch.as_tensor(A), *sides, box=True, **options)


def residual(y, A, lower, upper, box, solution) -> float:
    """`kkt_residual`, with the multipliers of the box from what the rows leave of `y − x`."""
    x, weight = solution.value.numpy(), solution.duals.numpy()
    rest = y - x - A.T @ weight
    rest = np.where(np.abs(rest) > 1e-9 * np.linalg.norm(y), rest, 0.0)
    stacked = np.concatenate([A, np.eye(len(x))])
    lower, upper = np.concatenate([lower, box[0]]), np.concatenate([upper, box[1]])
    return kkt_residual(y, stacked, lower, upper, x, np.concatenate([weight, rest]))


SIZES = [(260, 8, 1.0), (300, 120, 0.1), (400, 260, 0.02), (60, 400, 1.0)]


@pytest.mark.parametrize("degenerate", [False, True])
@pytest.mark.parametrize(("n", "m", "density"), SIZES)
def test_optimality_conditions_hold(n, m, density, degenerate):
    """Several seeds: `OK`, a KKT residual of 1e-9 relative, and hundreds of active bounds."""
    for seed in range(4):
        problem = sample(seed, n, m, density=density, degenerate=degenerate)
        assert alone(*problem).exact.all()
        solution = solve(*problem)
        assert solution.status == Status.OK
        assert residual(*problem, solution) <= 1e-9
        if n >= 260:
            x, (low, up) = solution.value.numpy(), problem[4]
            assert ((x == low) | (x == up)).sum() > n / 4


@pytest.mark.parametrize(("n", "m", "density"), SIZES)
def test_agrees_with_a_conic_solver(n, m, density):
    """Clarabel stops at a relative gap of 1e-11, which is 1e-5 in the point; ours is never farther from `y`."""
    cp = pytest.importorskip("cvxpy")
    y, A, lower, upper, (low, up) = problem = sample(11, n, m, density=density, degenerate=True)
    x = cp.Variable(n)
    rows = [A[np.isfinite(upper)] @ x <= upper[np.isfinite(upper)]]
    rows += [A[np.isfinite(lower)] @ x >= lower[np.isfinite(lower)], x >= low]
    rows += [x[np.isfinite(up)] <= up[np.isfinite(up)]]
    options = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}
    cp.Problem(cp.Minimize(cp.sum_squares(x - y)), rows).solve(cp.CLARABEL, **options)
    ours = solve(*problem).value.numpy()
    np.testing.assert_allclose(ours, x.value, atol=1e-4)
    assert np.linalg.norm(ours - y) <= np.linalg.norm(x.value - y) + 1e-6


def contradictory(seed: int, n: int, m: int, gap: float):
    """A sample whose last row asks for more than the others and the bounds allow, by `gap` relative."""
    y, A, lower, upper, (low, up) = sample(seed, n, m)
    rng = np.random.default_rng(seed + 1)
    up = np.where(np.isfinite(up), up, 1.0)
    weight = rng.random(m - 1) * (rng.random(m - 1) < 0.3)
    upper[-1] = INF
    push = rng.random(n)
    A[-1] = weight @ A[:-1] + push
    most = weight @ upper[:-1] + push @ up
    lower[-1] = most + gap * (abs(most) + np.linalg.norm(A[-1]))
    return y, A, lower, upper, (low, up)


@pytest.mark.parametrize("gap", [1e-6, 1e-2, 10.0])
def test_empty_sets_are_proved_empty(gap):
    for seed in range(3):
        problem = contradictory(seed, 250, 20, gap)
        found = alone(*problem)
        assert found.empty.all()
        assert not found.exact.any()
        solution = solve(*problem)
        assert solution.status == Status.INFEASIBLE
        assert solution.violation > 0


def test_the_point_of_least_violation_has_no_descent():
    """Its squared violation cannot be improved by a gradient step; crossed bounds are missed on both sides alike."""
    y, A, lower, upper, (low, up) = contradictory(3, 60, 20, 1.0)
    low[0], up[0] = 2.0, 1.0
    rows = RowMatrix(A)
    lower, upper = np.concatenate([low, lower / rows.norm]), np.concatenate([up, upper / rows.norm])
    x = least_violation_point(y, rows, lower, upper)
    value = np.concatenate([x, A @ x / rows.norm])
    middle = np.where(lower > upper, 1.5, 0.0)
    below, above = np.where(lower > upper, middle, lower), np.where(lower > upper, middle, upper)
    out = value - np.clip(value, below, above)
    gradient = out[: x.size] + (A / rows.norm[:, None]).T @ out[x.size :]
    assert np.abs(out).max() > 1e-2
    assert np.linalg.norm(gradient) <= 1e-5 * np.linalg.norm(out)


@pytest.mark.parametrize("degenerate", [False, True])
@pytest.mark.parametrize("n", [70, 200])  # by the search of a batch, and alone
def test_derivatives_are_those_of_finite_differences(n, degenerate):
    """With fixed components and dependent rows too, where only the derivative in `y` is unique; second derivatives
    come from another system, whose first derivatives are the same."""
    problem = sample(2, n, 12, degenerate=degenerate)
    assert prefer_one_by_one(1, 12, n, box=True, factored=False, shared=True) == (n == 200)
    rng = np.random.default_rng(1)
    weight = torch.as_tensor(rng.standard_normal(n))
    leaves = [torch.as_tensor(a).requires_grad_() for a in (*problem[:4], *problem[4])]
    leaves = leaves[:1] if degenerate else leaves
    rest = [] if len(leaves) > 1 else [torch.as_tensor(a) for a in (*problem[1:4], *problem[4])]

    def loss(y, A, lower, upper, low, up):
        return weight @ solve(y, A, lower, upper, (low, up)).value.sin()

    plain = torch.autograd.grad(loss(*leaves, *rest), leaves)
    graph = torch.autograd.grad(loss(*leaves, *rest), leaves, create_graph=True)
    for one, other in zip(plain, graph, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-7, atol=1e-9)
    moves = [torch.as_tensor(rng.standard_normal(leaf.shape)) for leaf in leaves]
    if not degenerate:  # equalities stay equalities
        equal = leaves[2] == leaves[3]
        moves[3] = torch.where(equal, moves[2], moves[3])
    with torch.no_grad():
        ahead, back = (
            loss(*(t + s * d for t, d in zip(leaves, moves, strict=True)), *rest) for s in (1e-6, -1e-6)
        )
        expected = sum((g * d).sum() for g, d in zip(plain, moves, strict=True))
        torch.testing.assert_close((ahead - back) / 2e-6, expected, rtol=1e-5, atol=1e-6)
    curvature = torch.autograd.grad(graph[0] @ moves[0], leaves[0])[0]
    assert curvature.isfinite().all()
    if degenerate:
        return
    # on a fixed active set the map is affine in y: only the sine is curved

    def point(y):
        return solve(y, *problem[1:4], problem[4]).value

    tangent = torch.autograd.functional.jvp(point, leaves[0], moves[0])[1]
    x = point(leaves[0])
    expected = torch.autograd.grad(x, leaves[0], -weight * x.detach().sin() * tangent)[0]
    torch.testing.assert_close(curvature, expected, rtol=1e-6, atol=1e-8)


def test_one_matrix_for_each_element_and_a_warm_start():
    """Elements of a batch are the elements one by one; a warm start from the solution needs one solve."""
    problems = [sample(seed, 120, 30, degenerate=seed % 2 == 0) for seed in range(3)]
    stacked = [torch.as_tensor(np.stack([p[i] for p in problems])) for i in range(4)]
    low, up = (torch.as_tensor(np.stack([p[4][i] for p in problems])) for i in range(2))
    together = project_polyhedron(*stacked, box=(low, up))
    assert together.ok.all()
    for i, problem in enumerate(problems):
        torch.testing.assert_close(together.value[i], solve(*problem).value, rtol=1e-9, atol=1e-9)
    for problem in problems:
        first = alone(*problem)
        again = alone(*problem, guess=first.multiplier)
        assert again.exact.all()
        assert (again.steps <= 2).all()
        torch.testing.assert_close(again.value, first.value, rtol=1e-9, atol=1e-9)


def test_steps_run_out_honestly():
    y, A, lower, upper, (low, up) = sample(5, 200, 20)
    sides = np.concatenate([low, lower]), np.concatenate([up, upper])
    point = exact_point(y, RowMatrix(A), *sides, max_steps=2)
    assert not point.exact
    assert solve(y, A, lower, upper, (low, up), max_steps=2).status == Status.MAX_STEPS
