"""What is said of a value is said of the number that is returned, whoever wrote the layer and the set."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from constrained_nn import (
    Ball,
    Box,
    Constrained,
    EuclideanProjection,
    Fixed,
    Halfspace,
    HardNetAffine,
    HardNetConvex,
    HardNetPlusPlus,
    Intersection,
    L1Ball,
    NonlinearSet,
    Polyhedron,
    Product,
    PSDCone,
    SecondOrderCone,
    Simplex,
    SmoothFunction,
    SpectralEllipsoid,
    WeightedEllipsoid,
)
from constrained_nn.errors import ConvergenceError, ShapeError
from constrained_nn.sets import constraint_set
from constrained_nn.solvers import Status
from tests.contracts.naive import Idle, Infinite, NonnegativeSum, Own

HALF = [torch.bfloat16, torch.float16]
SETS = {
    "ball": lambda: Ball(torch.randn(200, 3), 0.1 + torch.rand(200)),
    "box": lambda: Box(-torch.rand(200, 3), torch.rand(200, 3)),
    "halfspace": lambda: Halfspace(torch.randn(200, 3), torch.randn(200)),
    "l1": lambda: L1Ball(torch.zeros(3), torch.ones(())),
    "second-order": lambda: SecondOrderCone(torch.randn(200, 3), torch.tensor(0.5)),
    "semidefinite": lambda: PSDCone(torch.randn(200, 3)),
    "simplex": lambda: Simplex(torch.zeros(3), torch.ones(())),
    "ellipsoid": lambda: WeightedEllipsoid(
        torch.randn(200, 3), torch.tensor([1.0, 2.0, 9.0]), torch.ones(())
    ),
    "both": lambda: Intersection(Box(-torch.ones(3), torch.ones(3)), Ball(torch.zeros(3), torch.tensor(1.2))),
    "product": lambda: Product(
        Box(-torch.rand(200, 1), torch.rand(200, 1)), Ball(torch.zeros(2), torch.ones(()))
    ),
}


def as_dtype(set, dtype: torch.dtype):
    """The set in that dtype."""
    return torch.utils._pytree.tree_map(lambda t: t.to(dtype), set)


def random_rows(dtype: torch.dtype, count: int, m: int, n: int) -> tuple[Tensor, Polyhedron]:
    """Far proposals, and rows around a point that satisfies them with room."""
    A, center = torch.randn(count, m, n), torch.randn(count, n)
    upper = (A @ center.unsqueeze(-1)).squeeze(-1) + torch.rand(count, m)
    return (3 * torch.randn(count, n)).to(dtype), Polyhedron(A.to(dtype), upper=upper.to(dtype))


def exact_excess(set: Polyhedron, value: Tensor, i: int) -> Fraction:
    """Largest `A x − upper` of element `i`, in fractions."""
    rows = zip(set.A[i].double().tolist(), set.upper[i].double().tolist(), strict=True)
    x = [Fraction(v) for v in value[i].double().tolist()]
    return max(sum(Fraction(a) * v for a, v in zip(row, x, strict=True)) - Fraction(b) for row, b in rows)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("layer", [HardNetAffine(), EuclideanProjection()], ids=["hardnet", "projection"])
def test_sixteen_bits_are_rounded_into_rows(layer, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    y, set = random_rows(dtype, 500, 4, 5)
    solution = layer.solve(y, set)
    assert solution.value.dtype == dtype
    assert solution.ok.double().mean() >= 0.99
    for i in solution.ok.nonzero().squeeze(-1)[:100].tolist():
        x, A = solution.value[i].double(), set.A[i].double()
        size = float((A.abs() @ x.abs()).max() + set.upper[i].abs().max())
        assert exact_excess(set, solution.value, i) <= 1e-9 * size


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", SETS)
def test_sixteen_bits_are_rounded_into_other_sets(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    set = as_dtype(SETS[name](), dtype)
    y = (3 * torch.randn(200, set.dim)).to(dtype)
    solution = EuclideanProjection().solve(y, set)
    assert solution.ok.double().mean() >= 0.99
    wide, value = as_dtype(set, torch.float64), solution.value.double()
    unit = torch.finfo(dtype).eps / 2
    inequality, equality = 1e-9, 4 * set.dim * unit
    rtol = torch.where(wide.equality(value), equality, inequality)
    held = wide.residual(value).abs() <= rtol * wide.scale(value) + 1e-12
    assert held.all(-1)[solution.ok].all()


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_set_thinner_than_sixteen_bits_is_flagged(dtype: torch.dtype) -> None:
    low = torch.tensor([1000.2])
    thin = Box(low, low + 1e-3)  # float32: no number of 16 bits lies between
    solution = EuclideanProjection().solve(torch.tensor([2.0], dtype=dtype), thin)
    assert solution.status == Status.MISSED
    assert solution.violation > 0


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_derivative_in_sixteen_bits(dtype: torch.dtype) -> None:
    y = torch.tensor([3.0, 0.5], dtype=dtype, requires_grad=True)
    EuclideanProjection()(y, Box(torch.zeros(2, dtype=dtype), torch.ones(2, dtype=dtype))).sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("layer", [HardNetAffine(), HardNetAffine(compute_dtype=torch.float64)])
def test_network_under_autocast(layer: HardNetAffine) -> None:
    torch.manual_seed(0)

    def reach(context: Tensor) -> Polyhedron:
        return Polyhedron(torch.ones(1, 2), upper=context.norm(dim=-1, keepdim=True))

    network = Constrained(torch.nn.Linear(3, 2), reach, layer)
    context = 10 * torch.randn(64, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = network(context)
    assert value.dtype == torch.bfloat16
    assert (value.double().sum(-1) <= context.norm(dim=-1).double()).all()


def test_curved_set_under_autocast() -> None:
    torch.manual_seed(0)
    y = 3 * torch.randn(200, 3)
    set = WeightedEllipsoid(torch.randn(3), torch.tensor([1.0, 2.0, 9.0]), torch.ones(()))
    plain = EuclideanProjection().solve(y, set)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = EuclideanProjection().solve(y, set)
        violation = set.violation(y)
    assert torch.equal(inside.value, plain.value)
    assert torch.equal(inside.status, plain.status)
    assert torch.equal(violation, set.violation(y))


def test_narrow_decision_in_a_wide_set() -> None:
    torch.manual_seed(0)
    y, set = random_rows(torch.float64, 50, 3, 4)
    solution = EuclideanProjection().solve(y.float(), set)
    assert solution.value.dtype == torch.float32
    assert solution.ok.all()
    assert (set.relative_violation(solution.value.double()) <= 1e-4).all()
    with pytest.raises(ShapeError, match="narrower"):
        EuclideanProjection().solve(y, as_dtype(set, torch.float32))


def test_naive_set_and_layer() -> None:
    set = NonnegativeSum(torch.tensor([1.0, 5.0, torch.nan]))
    y = torch.zeros(3, 2)
    for layer in (Own(), EuclideanProjection(), HardNetConvex()):
        solution = layer.solve(y, set)
        assert solution.status.tolist() == [Status.OK, Status.OK, Status.NONFINITE_INPUT]
    torch.testing.assert_close(Own().solve(y, set).value[:2].sum(-1), torch.tensor([1.0, 5.0]))
    poisoned = Own().solve(torch.tensor([[torch.nan, 0.0], [0.0, 0.0]]), NonnegativeSum(torch.tensor(1.0)))
    assert poisoned.status.tolist() == [Status.NONFINITE_INPUT, Status.OK]
    half = Own().solve(torch.zeros(2, dtype=torch.bfloat16), NonnegativeSum(torch.tensor(1.3).bfloat16()))
    assert half.value.dtype == torch.bfloat16


@pytest.mark.untyped
def test_naive_set_in_a_network_and_under_vmap() -> None:
    network = Constrained(torch.nn.Linear(3, 2), Fixed(NonnegativeSum(torch.tensor(1.0))), Own())
    assert (network(torch.randn(4, 3)).sum(-1) >= 1 - 1e-4).all()
    values = torch.func.vmap(lambda y, s: Own().solve(y, s).value)(
        torch.zeros(2, 2), NonnegativeSum(torch.tensor([1.0, 5.0]))
    )
    torch.testing.assert_close(values.sum(-1), torch.tensor([1.0, 5.0]))


def test_layer_that_does_nothing_is_caught() -> None:
    set, y = NonnegativeSum(torch.tensor([1.0, -1.0])), torch.zeros(2, 2)
    solution = Idle().solve(y, set)
    assert solution.status.tolist() == [Status.MISSED, Status.OK]
    assert solution.violation.tolist() == [1.0, 0.0]
    with pytest.raises(ConvergenceError, match="MISSED"):
        Idle().eval()(y, set)


def test_infinite_value_is_inside_of_no_box() -> None:
    y = torch.ones(2, 3).double()
    for upper in (1.0, torch.inf):
        solution = Infinite().solve(y, Box(torch.zeros(3).double(), torch.full((3,), upper).double()))
        assert (solution.status == Status.MISSED).all()


def test_small_batches_count_their_successes_without_a_solution() -> None:
    layer, box = EuclideanProjection(), Box(torch.zeros(2), torch.ones(2))
    layer(torch.tensor([[3.0, 0.5], [torch.nan, 0.0]]), box)
    layer(torch.tensor([[3.0, 0.5], [-1.0, 0.0]]), box)
    assert layer.counts[Status.OK] == 3
    assert layer.counts[Status.NONFINITE_INPUT] == 1


@pytest.mark.parametrize(
    "layer", [Own(), HardNetPlusPlus(), EuclideanProjection()], ids=lambda x: type(x).__name__
)
def test_overflow_at_the_last_rounding_is_flagged(layer) -> None:
    layer = type(layer)(compute_dtype=torch.float64)
    solution = layer.solve(torch.zeros(2), NonnegativeSum(torch.tensor(1e39, dtype=torch.float64)))
    assert not solution.ok


@pytest.mark.untyped  # wrong on purpose
def test_numbers_lists_and_arrays_become_tensors() -> None:
    assert Ball(torch.zeros(2, dtype=torch.float64), 1).radius.dtype == torch.float64
    assert Box([0, 0], [1.0, 2.0]).upper.tolist() == [1.0, 2.0]
    assert Polyhedron(np.ones((1, 2)), upper=np.ones(1)).A.dtype == torch.float64
    assert Polyhedron(np.ones((1, 2), int), upper=[1]).A.dtype == torch.float32
    for build in (lambda: Box(-1.0, 1.0), lambda: Polyhedron(torch.ones(1, 2), upper=1.0)):
        with pytest.raises(ShapeError):
            build()
    with pytest.raises(ShapeError, match="radius"):
        Ball(torch.zeros(2), ["a"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="of tensors"):
        EuclideanProjection().solve(torch.zeros(1), Box(0, 1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="floating"):
        EuclideanProjection().solve([0.0], Box([0.0], [1.0]))  # pyright: ignore[reportArgumentType]


def test_shapes_that_multiply_the_batch_are_refused() -> None:
    y, A = torch.zeros(8, 2), torch.ones(8, 1, 2)
    with pytest.raises(ShapeError, match="keepdim"):
        EuclideanProjection().solve(y, Ball(torch.zeros(2), torch.ones(8, 1)))
    with pytest.raises(ShapeError, match="keepdim"):
        Polyhedron(A, upper=torch.ones(8, 1, 1))
    assert EuclideanProjection().solve(
        y.unsqueeze(1), Ball(torch.zeros(2), torch.ones(8, 1))
    ).value.shape == (8, 1, 2)


def test_condition_tells_how_far_the_closed_form_reaches() -> None:
    A = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1e-3, 0.0]], dtype=torch.float64)
    solution = HardNetAffine().solve(
        torch.zeros(3, dtype=torch.float64), Polyhedron(A, upper=-torch.ones(2).double())
    )
    assert solution.condition is not None
    assert 0.9e3 <= float(solution.condition) <= 1.1e3
    rows = Polyhedron(torch.eye(2, 3), upper=torch.zeros(2))
    alone = HardNetAffine().solve(torch.ones(4, 3), rows)
    assert alone.condition is not None
    assert alone.condition.tolist() == [1.0] * 4


def test_field_of_unknown_shape_is_refused() -> None:
    with pytest.raises(TypeError, match="annotation"):

        @constraint_set
        class _Bare(NonnegativeSum):
            floor: Tensor


SHRUNK = {
    **{name: build for name, build in SETS.items() if name != "simplex"},
    "polyhedron": lambda: random_rows(torch.float32, 200, 3, 4)[1],
    "spectral": lambda: SpectralEllipsoid(torch.randn(8), 1 + torch.rand(1, 5), torch.ones(())),
    "nonlinear": lambda: NonlinearSet(
        SmoothFunction(lambda y, c: (y * y).sum(-1, keepdim=True), 3), torch.zeros(1), torch.ones(1)
    ),
}


@pytest.mark.parametrize("name", SHRUNK)
def test_shrunk_set_lies_inside_by_its_margin(name: str) -> None:
    torch.manual_seed(0)
    set = as_dtype(SHRUNK[name](), torch.float64)
    y = 3 * torch.randn(200, set.dim, dtype=torch.float64)
    margin = torch.full_like(set.scale(y), 1e-2)
    shrunk = set.shrink(margin)
    layer = HardNetPlusPlus() if name == "nonlinear" else EuclideanProjection()
    solution = layer.solve(y, shrunk)
    assert solution.ok.all()
    less = set.shrink(0.9 * margin)
    assert (less.violation(solution.value) <= 1e-9).all()
    moved = (set.violation(y) > 0.1).squeeze(-1)
    assert (shrunk.violation(layer.solve(y, set).value)[moved] > 1e-3).any()
