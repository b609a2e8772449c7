"""Nonlinear sets in numbers: derivatives, factorizations, random sets, failures, and what each adjoint gives."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from constrained_nn.errors import ShapeError
from constrained_nn.layers import (
    Constrained,
    EuclideanProjection,
    Fixed,
    HardNetPlusPlus,
    Implicit,
    LeastViolation,
    NearestPoint,
    Retraced,
    Taped,
)
from constrained_nn.layers.hardnet import SetRows
from constrained_nn.sets import NonlinearSet, Polyhedron, SmoothFunction, TrajectoryMap
from constrained_nn.solvers import ConstantDamping, GaussNewton, ResidualDamping, Status
from constrained_nn.solvers.gauss_newton.damped_step import elastic_direction
from constrained_nn.solvers.gauss_newton.descent import descend
from constrained_nn.solvers.gauss_newton.linearized import DenseRows
from tests.cases.nonlinear import CART, DISC, WAVE, cart, keep_out, wave, wave_in_ball
from tests.cases.sets import polyhedron
from tests.oracles import finite_difference

INF = float("inf")


def test_derivatives_by_torch_are_those_by_hand(generator: torch.Generator) -> None:
    for set in (wave(generator, (5,)), cart(generator, (5,))):
        y = torch.randn(5, set.dim, generator=generator, dtype=torch.float64)
        rows = set.rows
        if isinstance(rows, SmoothFunction):
            plain = SmoothFunction(rows.function, rows.size)
        else:
            plain = TrajectoryMap(
                rows.step, rows.path, rows.state_dim, rows.input_dim, rows.path_dim, rows.horizon
            )
        other = NonlinearSet(plain, set.lower, set.upper, set.context)
        torch.testing.assert_close(other.jacobian(y), set.jacobian(y), rtol=1e-12, atol=1e-13)
        for i in range(5):
            one = NonlinearSet(rows, _of(set.lower, i), _of(set.upper, i), set.context[i])
            slope = finite_difference(one.value, y[i])
            torch.testing.assert_close(set.jacobian(y)[i], slope, rtol=1e-6, atol=1e-6)


def _of(side: Tensor, i: int) -> Tensor:
    return side[i] if side.ndim > 1 else side


def test_reverse_mode_for_few_rows(generator: torch.Generator) -> None:
    rows = SmoothFunction(lambda y, context: torch.sin(y).sum(-1, keepdim=True), 7)
    y = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    set = NonlinearSet(rows, torch.zeros(1).double(), torch.ones(1).double())
    torch.testing.assert_close(set.jacobian(y), torch.cos(y).unsqueeze(-2))
    torch.testing.assert_close(set.jacobian(y[0]), torch.cos(y[:1]))


@pytest.mark.parametrize("count", [1, 4])
def test_banded_equations_are_the_dense_ones(count: int, generator: torch.Generator) -> None:
    set = cart(generator, (count,))
    y = torch.randn(count, set.dim, generator=generator, dtype=torch.float64)
    banded, dense = SetRows("test", set).linearize(y), DenseRows(set.jacobian(y))
    m = set.lower.shape[-1]
    v, w = (torch.randn(count, k, generator=generator, dtype=torch.float64) for k in (set.dim, m))
    weight = torch.rand(count, m, generator=generator, dtype=torch.float64)
    weight = torch.where(weight > 0.3, weight, 0.0)
    damping = 0.01 + torch.rand(count, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(banded.times(v), dense.times(v))
    torch.testing.assert_close(banded.transposed(w), dense.transposed(w))
    torch.testing.assert_close(banded.squares(), dense.squares())
    torch.testing.assert_close(
        banded.factor(weight, damping).solve(w), dense.factor(weight, damping).solve(w)
    )


# --- random sets -------------------------------------------------------------------------------------------

N, M = 5, 6


def random_rows(y: Tensor, context: Tensor) -> Tensor:
    """Six rows of a plane, a wave and a saddle each, with coefficients in the context."""
    a, b, shift, curve = context.split([M * N, M * N, M, M * N], -1)
    a, b, curve = (t.unflatten(-1, (M, N)) for t in (a, b, curve))
    point = y.unsqueeze(-2)
    return (a * point).sum(-1) + torch.sin((b * point).sum(-1) + shift) + (curve * point * point).sum(-1)


def random_sets(generator: torch.Generator, count: int) -> tuple[NonlinearSet, Tensor]:
    """Sets with up to three equalities that a known point satisfies, and the points."""
    context = torch.randn(count, 3 * M * N + M, generator=generator, dtype=torch.float64)
    context[:, -M * N :] *= 0.3
    inside = torch.randn(count, N, generator=generator, dtype=torch.float64)
    value = random_rows(inside, context)
    room = torch.rand(2, count, M, generator=generator, dtype=torch.float64)
    lower, upper = value - room[0], value + room[1]
    equalities = torch.arange(M) < torch.randint(0, 4, (count, 1), generator=generator)
    lower, upper = torch.where(equalities, value, lower), torch.where(equalities, value, upper)
    lower[:, -1] = -INF
    return NonlinearSet(SmoothFunction(random_rows, N), lower, upper, context), inside


def independent_violation(set: NonlinearSet, y: Tensor) -> np.ndarray:
    context, point = set.context.numpy(), y.numpy()[:, None, :]
    a, b = (context[:, k * M * N : (k + 1) * M * N].reshape(-1, M, N) for k in (0, 1))
    shift, curve = context[:, 2 * M * N : 2 * M * N + M], context[:, -M * N :].reshape(-1, M, N)
    value = (a * point).sum(-1) + np.sin((b * point).sum(-1) + shift) + (curve * point**2).sum(-1)
    return np.maximum(np.maximum(set.lower.numpy() - value, value - set.upper.numpy()), 0.0).max(-1)


@pytest.mark.once  # samples of the same functions
@pytest.mark.parametrize("layer", [HardNetPlusPlus, NearestPoint])
def test_random_sets_are_satisfied_or_flagged(layer, generator: torch.Generator) -> None:
    count = 1000 if layer is HardNetPlusPlus else 15
    set, inside = random_sets(generator, count)
    assert independent_violation(set, inside).max() < 1e-12
    y = 3.0 * torch.randn(count, N, generator=generator, dtype=torch.float64)
    solution = layer().solve(y, set)
    found = independent_violation(set, solution.value)
    ok = solution.ok.numpy()
    assert found[ok].max() <= 1e-9, "an element is called OK and is not"
    assert (solution.status[~solution.ok] >= Status.MAX_STEPS).all()
    np.testing.assert_allclose(solution.violation.numpy(), found, rtol=1e-9, atol=1e-12)
    assert ok.mean() > 0.5, (
        solution.counts()
    )  # the rest ends in local minima of the violation, and is flagged


# --- failures ----------------------------------------------------------------------------------------------


def test_center_of_a_keep_out_region_is_flagged_alone() -> None:
    y = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, -3.0]], dtype=torch.float64)
    solution = HardNetPlusPlus().solve(y, keep_out((3,)))
    assert solution.status.tolist() == [Status.STATIONARY, Status.OK, Status.OK]
    assert solution.value[0].eq(0).all()
    assert solution.violation[0] == 1.0


def test_contradicting_rows_end_where_violation_is_least() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    bounds = torch.tensor([0.0, 1.0], dtype=torch.float64)
    solution = HardNetPlusPlus().solve(torch.ones(2).double() * 5, Polyhedron(rows, bounds, bounds))
    assert solution.status in (Status.STATIONARY, Status.STAGNATED, Status.MAX_STEPS)
    torch.testing.assert_close(solution.value[0], torch.tensor(0.5).double(), rtol=0, atol=1e-3)


def test_step_is_capped_where_the_jacobian_vanishes() -> None:
    y = torch.tensor([1e-7, 0.0], dtype=torch.float64)
    short = GaussNewton(max_steps=1, largest_step=0.5, damping=ConstantDamping(0.0))
    moved = HardNetPlusPlus(method=short).solve(y, keep_out()).value
    assert moved.isfinite().all()
    assert moved.norm() <= 0.5 + 1e-6
    assert HardNetPlusPlus().solve(y, keep_out()).ok


def test_function_that_is_not_finite_is_flagged() -> None:
    rows = SmoothFunction(lambda y, context: torch.log(y), 1)
    set = NonlinearSet(rows, torch.zeros(1).double(), torch.full((1,), INF).double())
    y = torch.tensor([[-1.0], [0.5]], dtype=torch.float64, requires_grad=True)
    solution = HardNetPlusPlus().solve(y, set)
    assert solution.status.tolist() == [Status.NONFINITE_INPUT, Status.OK]
    torch.autograd.grad(solution.value[1].sum(), y)[0].isfinite().all()


def test_steps_that_do_not_suffice_are_flagged(generator: torch.Generator) -> None:
    set = wave(generator, (4,))
    y = 5.0 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    solution = HardNetPlusPlus(method=GaussNewton(max_steps=1)).solve(y, set)
    assert (solution.status == Status.MAX_STEPS).any()
    assert (solution.violation[solution.status == Status.MAX_STEPS] > 1e-10).all()


def test_each_element_stops_by_itself(generator: torch.Generator) -> None:
    set = wave(generator, (6,))
    y = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    solution = HardNetPlusPlus().solve(y, set)
    again = HardNetPlusPlus().solve(solution.value, set)
    assert len(solution.steps.unique()) > 1
    assert (again.steps == 0).all()
    assert torch.equal(again.value, solution.value)


# --- intersections, derivatives ----------------------------------------------------------------------------


def test_intersection_with_convex_sets(generator: torch.Generator) -> None:
    set = wave_in_ball(generator, (10,))
    y = 2.0 * torch.randn(10, 3, generator=generator, dtype=torch.float64)
    solution = HardNetPlusPlus().solve(y, set)
    assert solution.ok.double().mean() > 0.6, solution.counts()
    assert (set.violation(solution.value)[solution.ok] <= 1e-9).all()
    leaf = y[solution.ok][:2].clone().requires_grad_()
    few = wave_in_ball(torch.Generator().manual_seed(0), (10,))
    picked = SetRows("test", few).pick(solution.ok.nonzero().squeeze(-1)[:2]).set

    def enforce(p: Tensor) -> Tensor:
        return HardNetPlusPlus(method=GaussNewton(atol=1e-12)).solve(p, picked).value

    assert torch.autograd.gradcheck(enforce, leaf, atol=1e-5)


def test_bounds_carry_derivatives(generator: torch.Generator) -> None:
    y = torch.tensor([[0.3, 0.4], [2.0, 1.0]], dtype=torch.float64)

    def enforce(low: Tensor, up: Tensor, layer) -> Tensor:
        return layer.solve(y, NonlinearSet(DISC, low, up)).value

    low = torch.tensor([[1.0], [1.0]], dtype=torch.float64, requires_grad=True)
    up = torch.tensor([[3.0], [2.0]], dtype=torch.float64, requires_grad=True)
    for layer in (HardNetPlusPlus(method=GaussNewton(atol=1e-13)), NearestPoint()):
        assert torch.autograd.gradcheck(lambda a, b, layer=layer: enforce(a, b, layer), (low, up), atol=1e-5)
    point = y[:1].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda p, a: NearestPoint().solve(p, NonlinearSet(DISC, a, up[:1].detach())).value,
        (point, low[:1]),
        atol=1e-5,
    )


def test_nearest_point_of_rows_is_their_projection(generator: torch.Generator) -> None:
    set = polyhedron(generator, (30,))
    y = 3.0 * torch.randn(30, 3, generator=generator, dtype=torch.float64)
    found, exact = NearestPoint().solve(y, set), EuclideanProjection().solve(y, set)
    assert found.ok.all()
    torch.testing.assert_close(found.value, exact.value, rtol=1e-9, atol=1e-9)


def test_implicit_is_exact_for_affine_rows(generator: torch.Generator) -> None:
    A = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    b = torch.zeros(2, dtype=torch.float64)
    y = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    gradients = []
    for adjoint in (Retraced(), Implicit()):
        value = HardNetPlusPlus(adjoint=adjoint).solve(y, Polyhedron(A, b, b)).value
        gradients.append(torch.autograd.grad((value * weight).sum(), y)[0])
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-8)


def test_implicit_derivative_in_the_bounds_of_affine_rows(generator: torch.Generator) -> None:
    """`dy = A_a⁺ db_a` for the rows `a` that end at a bound."""
    A = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    y = 3.0 * torch.randn(8, 4, generator=generator, dtype=torch.float64)
    lower, upper = (torch.full((8, 2), s * 0.2).double().requires_grad_() for s in (-1, 1))
    weight = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    layer = HardNetPlusPlus(method=GaussNewton.published(steps=1, damping=0.0), adjoint=Implicit())
    value = layer.solve(y, Polyhedron(A, lower, upper)).value
    of_lower, of_upper = (g.numpy() for g in torch.autograd.grad((value * weight).sum(), (lower, upper)))
    reached = y.numpy() @ A.numpy().T
    assert reached.min() < -0.2 < 0.2 < reached.max()
    for i in range(8):
        met = np.flatnonzero(abs(reached[i]) > 0.2)
        expected = np.zeros(2)
        expected[met] = weight[i].numpy() @ np.linalg.pinv(A.numpy()[met])
        np.testing.assert_allclose(of_lower[i], np.where(reached[i] < 0, expected, 0.0), rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(of_upper[i], np.where(reached[i] > 0, expected, 0.0), rtol=1e-8, atol=1e-9)


def test_implicit_is_exact_across_the_constraints(generator: torch.Generator) -> None:
    """`J dy* = −∂c/∂context`: the solution follows the constraints, whatever the start was."""
    set = wave(generator, (6,))
    y = 2.0 * torch.randn(6, 3, generator=generator, dtype=torch.float64)
    context = set.context.clone().requires_grad_()
    layer = HardNetPlusPlus(adjoint=Implicit())
    moving = NonlinearSet(WAVE, set.lower, set.upper, context)
    value = layer.solve(y, moving).value
    normal = set.jacobian(value.detach())[:, 0]  # of the surface, y₂ − sin(y₀) − c₀
    (found,) = torch.autograd.grad((value * normal).sum(), context)
    torch.testing.assert_close(found[:, 0], torch.ones(6).double(), rtol=1e-8, atol=1e-8)


def test_implicit_approaches_the_exact_derivative_near_the_set(generator: torch.Generator) -> None:
    set = wave(generator, (6,))
    on = HardNetPlusPlus().solve(torch.randn(6, 3, generator=generator, dtype=torch.float64), set).value
    away = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    errors = []
    for distance in (1e-1, 1e-2, 1e-3):
        y = (on + distance * away).requires_grad_()
        exact, implicit = (
            torch.autograd.grad((HardNetPlusPlus(adjoint=a).solve(y, set).value * weight).sum(), y)[0]
            for a in (Retraced(), Implicit())
        )
        errors.append((exact - implicit).norm().item())
    assert errors[2] < 0.05 * errors[0]
    assert errors[2] < 1e-2


def test_retraced_keeps_iterates_only(generator: torch.Generator) -> None:
    set = cart(generator, (3,))
    y = 3.0 * torch.randn(3, set.dim, generator=generator, dtype=torch.float64)
    outcome = descend(SetRows("test", set), y, GaussNewton(), keep=True)
    assert len(outcome.path) >= 3
    numbers = [step.y.numel() + step.length.numel() for step in outcome.path]
    assert max(numbers) <= 3 * (set.dim + 1)
    assert set.dim + 1 < set.lower.shape[-1] * set.dim


@pytest.mark.untyped
def test_backtracking_compiles(generator: torch.Generator) -> None:
    set = wave(generator, (4,))
    y = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    layer = HardNetPlusPlus(
        method=GaussNewton(max_steps=1, damping=ResidualDamping(0.1, 0.2)), on_failure=LeastViolation()
    )
    compiled = torch.compile(lambda p: layer(p, set), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(y), layer(y, set), rtol=1e-9, atol=1e-10)


def test_trajectory_map_takes_apart_what_it_joins(generator: torch.Generator) -> None:
    y = torch.randn(3, CART.dim, generator=generator, dtype=torch.float64)
    assert torch.equal(CART.join(*CART.split(y)), y)
    lower, upper = CART.bounds(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.ones(2))
    assert lower.tolist() == [0, 0, 0, 1, 0, 0, 2, 3]
    assert upper.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_float32_reaches_what_it_can(generator: torch.Generator) -> None:
    set = wave(generator, (8,))
    small = NonlinearSet(set.rows, set.lower.float(), set.upper.float(), set.context.float())
    y = torch.randn(8, 3, generator=generator)
    solution = HardNetPlusPlus().solve(y, small)
    assert solution.ok.all(), solution.counts()
    assert solution.violation.max() <= 64 * torch.finfo(torch.float32).eps
    nearest = NearestPoint().solve(y, small)
    assert (nearest.violation[nearest.ok] <= 64 * torch.finfo(torch.float32).eps).all()


@pytest.mark.parametrize("layer", [HardNetPlusPlus, NearestPoint])
def test_batches_of_every_shape(layer, generator: torch.Generator) -> None:
    y = torch.randn(2, 3, 2, generator=generator, dtype=torch.float64)
    flat = layer().solve(y.reshape(6, 2), keep_out())
    both = layer().solve(y, keep_out((3,)))
    torch.testing.assert_close(both.value.reshape(6, 2), flat.value)
    assert both.status.shape == both.steps.shape == (2, 3)
    none = layer().solve(y[:0], keep_out())
    assert none.value.shape == (0, 3, 2)
    assert layer().solve(y[0, 0], keep_out()).value.shape == (2,)


def test_fixed_set_behind_a_network(float64) -> None:
    network = Constrained(torch.nn.Linear(4, 2), Fixed(keep_out()), HardNetPlusPlus())
    assert {"constraint.lower", "constraint.upper", "constraint.context"} <= set(network.state_dict())
    y = network(torch.randn(5, 4))
    assert (y.square().sum(-1) >= 1.0 - 1e-9).all()
    y.sum().backward()
    assert network.backbone.weight.grad.isfinite().all()


def _norm_beyond(radius: Tensor) -> NonlinearSet:
    """`|y| >= radius`, whose derivative does not exist at 0."""
    norm = SmoothFunction(lambda y, c: (y * y).sum(-1, keepdim=True).sqrt() - c, 2)
    return NonlinearSet(norm, torch.zeros(1).double(), torch.tensor([INF]).double(), radius)


@pytest.mark.parametrize("adjoint", [Retraced(), Taped(), Implicit()], ids=lambda a: type(a).__name__)
def test_failed_element_keeps_its_value_and_adds_nothing_to_shared_gradients(adjoint) -> None:
    radius = torch.ones(1).double().requires_grad_()
    y = torch.tensor([[0.3, 0.4], [0.0, 0.0]]).double().requires_grad_()
    solution = HardNetPlusPlus(adjoint=adjoint).solve(y, _norm_beyond(radius))
    assert solution.status[0] == Status.OK
    assert solution.status[1] != Status.OK
    solution.value[0].sum().backward()
    torch.testing.assert_close(solution.value[1].detach(), torch.zeros(2).double())
    torch.testing.assert_close(radius.grad, torch.tensor([1.4]).double(), rtol=0, atol=1e-6)
    assert y.grad is not None
    assert y.grad[1].tolist() == [0.0, 0.0]


def test_published_iteration_is_not_ok_where_it_ends_outside() -> None:
    circle = SmoothFunction(lambda y, context: (y * y).sum(-1, keepdim=True), 2)
    empty = NonlinearSet(circle, torch.tensor([-2.0]).double(), torch.tensor([-1.0]).double())
    solution = HardNetPlusPlus(method=GaussNewton.published(5)).solve(
        torch.tensor([3.0, 0.0]).double(), empty
    )
    assert solution.status == Status.MAX_STEPS
    assert solution.violation > 1.0


def test_set_without_rows_and_batch_without_elements() -> None:
    none = NonlinearSet(
        SmoothFunction(lambda y, c: y[..., :0], 2), torch.zeros(0).double(), torch.zeros(0).double()
    )
    y = torch.tensor([[3.0, 4.0]]).double()
    solution = HardNetPlusPlus().solve(y, none)
    assert solution.status.tolist() == [Status.OK]
    torch.testing.assert_close(solution.value, y, rtol=0, atol=0)
    beyond = _norm_beyond(torch.ones(1).double())
    assert HardNetPlusPlus().solve(torch.zeros(0, 2).double(), beyond).value.shape == (0, 2)


@pytest.mark.parametrize("rows", [1, 3])
def test_function_with_another_number_of_rows_is_refused(rows: int) -> None:
    function = SmoothFunction(lambda y, c: y[..., :1].expand(*y.shape[:-1], rows), 2)
    set = NonlinearSet(function, torch.zeros(2).double(), torch.ones(2).double())
    with pytest.raises(ShapeError, match="one number for each of the 2 bounds"):
        HardNetPlusPlus().solve(torch.zeros(4, 2).double(), set)


class _AffineRows:
    """`lower <= J y + offset <= upper`, all that a step asks for."""

    box = None

    def __init__(self, J: Tensor, offset: Tensor, lower: Tensor, upper: Tensor) -> None:
        self.J, self.offset, self.lower, self.upper = J, offset, lower, upper

    def value(self, y: Tensor) -> Tensor:
        return (self.J @ y.unsqueeze(-1)).squeeze(-1) + self.offset

    def jacobian(self, y: Tensor) -> Tensor:
        return self.J


@pytest.mark.untyped  # a small double stands in for the rows
def test_elastic_step_is_the_solution_of_its_quadratic_program(generator: torch.Generator) -> None:
    """`min δ |p|² + |s|²` with `lower <= c − J p + s <= upper`: rows that contradict each other, and rows that hold."""
    J = torch.randn(8, 4, 2, generator=generator, dtype=torch.float64)
    offset = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    middle = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    half = torch.rand(8, 4, generator=generator, dtype=torch.float64)
    half[:, 0] = 0.0
    problem = _AffineRows(J, offset, middle - half, middle + half)
    y = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    value, delta = problem.value(y), torch.linspace(0.05, 0.8, 8).double()
    found = elastic_direction(problem, y, value, torch.zeros(8, 4, dtype=torch.int8), delta)  # pyright: ignore
    assert found.sound.all()
    for i in range(8):
        step, slack = cp.Variable(2), cp.Variable(4)
        reached = value[i].numpy() - J[i].numpy() @ step + slack
        cost = float(delta[i]) * cp.sum_squares(step) + cp.sum_squares(slack)
        rows = [reached >= problem.lower[i].numpy(), reached <= problem.upper[i].numpy()]
        cp.Problem(cp.Minimize(cost), rows).solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(found.p[i].numpy(), step.value, rtol=1e-5, atol=1e-5)
