"""Zero tolerance, in exact rational arithmetic, for the floating-point value that is returned."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from constrained_nn.layers import EuclideanProjection, HardNetAffine, StrictInterior
from constrained_nn.sets import AffineSubspace, Ball, Box, Halfspace, Intersection, Polyhedron, Simplex
from constrained_nn.solvers import Status

BATCH = 40


def exactly(t: torch.Tensor) -> list:
    return [Fraction(v) if abs(v) < float("inf") else v for v in t.double().tolist()]


def check_rows(value: torch.Tensor, A: torch.Tensor, lower: torch.Tensor, upper: torch.Tensor) -> int:
    """Every row of every element in rational arithmetic; returns how many sides are within 1e-6 of tight."""
    unit = Fraction(torch.finfo(value.dtype).eps) / 2
    tight = 0
    for i in range(len(value)):
        x = exactly(value[i])
        rows = A if A.ndim == 2 else A[i]
        low, up = (t if t.ndim == 1 else t[i] for t in (lower, upper))
        for row, b, c in zip(rows, exactly(low), exactly(up), strict=True):
            terms = [p * q for p, q in zip(exactly(row), x, strict=True)]
            total = sum(terms)
            if b == c:
                limit = 4 * len(x) * unit * (sum(abs(t) for t in terms) + abs(b))
                assert abs(total - b) <= limit
            else:
                assert b <= total <= c
                tight += min(total - b, c - total) < 1e-6
    return tight


def draw(generator: torch.Generator, rows: int, n: int, dtype: torch.dtype, shared: bool, scale: float):
    A = torch.randn(*(() if shared else (BATCH,)), rows, n, generator=generator, dtype=torch.float64)
    center = torch.randn(BATCH, n, generator=generator, dtype=torch.float64)
    middle = (A @ center.unsqueeze(-1)).squeeze(-1)
    width = scale * (0.1 + torch.rand(BATCH, rows, generator=generator, dtype=torch.float64))
    lower, upper = middle - width, middle + width
    lower[:, 0] = -torch.inf
    return A.to(dtype), lower.to(dtype), upper.to(dtype)


@pytest.mark.once  # samples of the same functions
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_inequalities_hold_exactly(generator, dtype, shared, scale) -> None:
    A, lower, upper = draw(generator, 6, 4, dtype, shared, scale)
    y = 5 * torch.randn(BATCH, 4, generator=generator, dtype=dtype)
    set = Polyhedron(A, lower, upper)
    plain = EuclideanProjection().solve(y, set)
    solution = StrictInterior(EuclideanProjection()).solve(y, set)
    assert solution.ok.all(), solution.describe_failures()
    assert check_rows(solution.value, A, lower, upper) >= BATCH, "the points are not on the boundary"
    assert (solution.value - plain.value).abs().max() <= 1e4 * torch.finfo(dtype).eps


def test_equalities_hold_to_rounding(generator) -> None:
    A, lower, upper = draw(generator, 5, 6, torch.float64, False, 1.0)
    lower[:, :2] = upper[:, :2]
    y = 5 * torch.randn(BATCH, 6, generator=generator, dtype=torch.float64)
    for layer in (EuclideanProjection(), HardNetAffine()):
        solution = StrictInterior(layer).solve(y, Polyhedron(A, lower, upper))
        assert solution.ok.all(), solution.describe_failures()
        check_rows(solution.value, A, lower, upper)


def test_simplex_box_and_intersection(generator) -> None:
    floor, total = torch.full((5,), 0.1, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    y = torch.randn(BATCH, 5, generator=generator, dtype=torch.float64)
    value = StrictInterior(EuclideanProjection())(y, Simplex(floor, total))
    assert (value >= floor).all()
    check_rows(value, torch.ones(1, 5, dtype=torch.float64), total[None], total[None])
    normal = torch.randn(5, generator=generator, dtype=torch.float64)
    box = Box(floor - 1.0 / 3.0, floor + 1.0 / 3.0)
    value = StrictInterior(EuclideanProjection())(y, Intersection(box, Halfspace(normal, 0.1 * total)))
    assert ((value >= box.lower) & (value <= box.upper)).all()
    check_rows(value, normal[None], torch.tensor([-torch.inf]), 0.1 * total[None])


def test_points_well_inside_are_returned_bit_for_bit(generator) -> None:
    A, lower, upper = draw(generator, 6, 4, torch.float64, True, 1.0)
    set = Polyhedron(A, lower - 100.0, upper + 100.0)
    y = torch.randn(BATCH, 4, generator=generator, dtype=torch.float64)
    assert torch.equal(StrictInterior(EuclideanProjection())(y, set), y)


def test_sets_thinner_than_rounding_are_flagged() -> None:
    normal = torch.tensor([[0.1, 0.7], [0.1, 0.7]], dtype=torch.float64)
    low = torch.tensor([[0.3 - 1e-3], [0.3]], dtype=torch.float64)
    high = torch.tensor([[0.3], [0.3 + 2e-17 + 6e-17]], dtype=torch.float64)
    assert high[1] > low[1]
    y = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    solution = StrictInterior(EuclideanProjection()).solve(y, Polyhedron(normal.unsqueeze(-2), low, high))
    assert solution.status.tolist() == [int(Status.OK), int(Status.SINGULAR)]


def test_failures_of_the_layer_stay_failures() -> None:
    empty = Box(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]]))
    solution = StrictInterior(EuclideanProjection()).solve(torch.tensor([[5.0], [5.0]]), empty)
    assert solution.status.tolist() == [int(Status.OK), int(Status.INFEASIBLE)]


def test_margin_is_kept(generator) -> None:
    half = Halfspace(torch.tensor([3.0, 4.0], dtype=torch.float64), torch.tensor(5.0, dtype=torch.float64))
    y = 9 * torch.ones(1, 2, dtype=torch.float64)
    value = StrictInterior(EuclideanProjection(), margin=0.5)(y, half)
    torch.testing.assert_close((value * half.normal).sum(-1), torch.tensor([4.5], dtype=torch.float64))


def test_constant_set_keeps_its_center(generator) -> None:
    A, lower, upper = draw(generator, 6, 4, torch.float64, True, 1.0)
    set = Polyhedron(A, lower[0], upper[0])
    layer = StrictInterior(EuclideanProjection())
    factor = layer.factor(set)
    inside = (A @ factor.point - lower[0]).minimum(upper[0] - A @ factor.point)
    assert (inside > 0.01).all()
    y = 5 * torch.randn(BATCH, 4, generator=generator, dtype=torch.float64)
    solution = layer.solve(y, set, factor=factor)
    assert solution.ok.all()
    check_rows(solution.value, A, lower[0], upper[0])


def test_derivative_is_that_of_the_layer(generator) -> None:
    A, lower, upper = draw(generator, 6, 4, torch.float64, True, 1.0)
    y = 5 * torch.randn(BATCH, 4, generator=generator, dtype=torch.float64)
    gradients = []
    for layer in (EuclideanProjection(), StrictInterior(EuclideanProjection())):
        point = y.clone().requires_grad_()
        weights = torch.arange(4.0, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((layer(point, Polyhedron(A, lower, upper)) * weights).sum(), point)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.untyped
def test_compiled_and_mapped_values_hold_exactly(generator) -> None:
    layer = StrictInterior(EuclideanProjection())
    A, lower, upper = draw(generator, 4, 6, torch.float64, True, 1.0)
    set = Polyhedron(A, lower[0], upper[0])
    y = 5 * torch.randn(BATCH, 6, generator=generator, dtype=torch.float64)
    for factor in (None, layer.factor(set)):
        solution = torch.func.vmap(lambda y, f=factor: layer.solve(y, set, factor=f))(y)
        assert solution.ok.all()
        assert check_rows(solution.value, A, lower[0], upper[0]) >= BATCH // 2
    half = Halfspace(A[0], upper[0, 0])
    factor = layer.factor(half)
    compiled = torch.compile(
        lambda y: layer.solve(y, half, factor=factor), backend="aot_eager", fullgraph=True
    )
    solution = compiled(y)
    assert solution.ok.all()
    assert check_rows(solution.value, A[:1], lower[0, :1], upper[0, :1]) >= BATCH // 4


def test_curved_sets_are_refused() -> None:
    ball = Intersection(Ball(torch.zeros(2), torch.ones(())), Box(torch.zeros(2), torch.ones(2)))
    with pytest.raises(TypeError, match="got Ball"):
        StrictInterior(EuclideanProjection())(torch.zeros(2), ball)


def test_subspaces_have_only_equalities(generator) -> None:
    A = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    b = torch.randn(BATCH, 2, generator=generator, dtype=torch.float64)
    y = 1e3 * torch.randn(BATCH, 5, generator=generator, dtype=torch.float64)
    solution = StrictInterior(EuclideanProjection()).solve(y, AffineSubspace(A, b))
    assert solution.ok.all()
    check_rows(solution.value, A, b, b)


def test_products_that_underflow_prove_nothing() -> None:
    """`1e-200 x <= 0` for x = 1e-200: the product is 0 in floating point and positive in truth."""
    row = Polyhedron(torch.full((1, 2), 1e-200).double(), upper=torch.zeros(1).double())
    y = torch.full((2,), 1e-200).double()
    solution = StrictInterior(EuclideanProjection()).solve(y, row)
    exact = sum(Fraction(1e-200) * Fraction(v) for v in solution.value.tolist())
    assert not solution.ok or exact <= 0
