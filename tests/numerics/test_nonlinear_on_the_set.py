"""Derivatives of HardNet++ where rows hold already: those of the map in a neighborhood; and at bounds of variables."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from constrained_nn.layers import HardNetAffine, HardNetPlusPlus, Implicit, Retraced, Taped
from constrained_nn.sets import Box, Intersection, NonlinearSet, Polyhedron, SmoothFunction
from constrained_nn.solvers import GaussNewton
from tests.oracles import blocks_by_autograd, blocks_by_difference

INF = float("inf")
ADJOINTS = pytest.mark.parametrize(
    "adjoint", [Retraced(), Taped(), Implicit()], ids=lambda a: type(a).__name__
)
CIRCLE = SmoothFunction(lambda y, c: (y * y).sum(-1, keepdim=True) - c, 2)
# A circle, and the first component.
BOTH = SmoothFunction(lambda y, c: torch.stack([(y * y).sum(-1), y[..., 0]], -1), 2)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def on_circle(point: Tensor, radius: Tensor, layer: HardNetPlusPlus) -> Tensor:
    return layer.solve(point, NonlinearSet(CIRCLE, double(0.0), double(0.0), radius)).value


@ADJOINTS
def test_equality_that_holds_projects_on_the_tangent(adjoint) -> None:
    y, radius = double(0.6, 0.8), double(1.0)
    layer = HardNetPlusPlus(adjoint=adjoint)
    in_y, in_radius = torch.autograd.functional.jacobian(lambda p, c: on_circle(p, c, layer), (y, radius))
    torch.testing.assert_close(in_y, torch.eye(2).double() - y[:, None] * y, rtol=0, atol=1e-9)
    torch.testing.assert_close(in_radius, 0.5 * y.unsqueeze(-1), rtol=0, atol=1e-9)


def test_second_derivatives_are_those_of_the_radial_projection() -> None:
    """Near the circle the map is `y / |y|`, to the third order of the distance to it."""
    y = double(0.6, 0.8)
    weight = double(0.3, -1.1)
    expected = torch.autograd.functional.hessian(lambda p: (weight * p / p.norm()).sum(), y)
    for adjoint in (Retraced(), Taped()):
        layer = HardNetPlusPlus(adjoint=adjoint)
        found = torch.autograd.functional.hessian(
            lambda p, layer=layer: (weight * on_circle(p, double(1.0), layer)).sum(), y
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.mark.untyped
def test_transforms_have_the_same_derivative() -> None:
    angle = torch.arange(4).double()
    y = torch.stack([angle.cos(), angle.sin()], -1)
    layer = HardNetPlusPlus(method=GaussNewton(max_steps=3))
    expected = torch.eye(2).double() - y.unsqueeze(-1) * y.unsqueeze(-2)

    def enforce(point: Tensor) -> Tensor:
        return on_circle(point, double(1.0), layer)

    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(torch.func.vmap(jacobian(enforce))(y), expected, rtol=0, atol=1e-9)
    leaf = y.clone().requires_grad_()
    one = HardNetPlusPlus(method=GaussNewton(max_steps=1))
    compiled = torch.compile(lambda p: on_circle(p, double(1.0), one), backend="aot_eager", fullgraph=True)
    (found,) = torch.autograd.grad(compiled(leaf)[:, 0].sum(), leaf)
    torch.testing.assert_close(found, expected[:, 0], rtol=0, atol=1e-9)


def test_affine_equality_that_holds_is_as_in_hardnet_affine() -> None:
    rows = Polyhedron(torch.ones(1, 2).double(), double(1.0), double(1.0))
    y = double(0.5, 0.5)
    found, expected = (
        torch.autograd.functional.jacobian(lambda p, layer=layer: layer.solve(p, rows).value, y)
        for layer in (HardNetPlusPlus(), HardNetAffine())
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_rows_within_the_tolerance_count_as_violated_and_free_rows_do_not() -> None:
    """On the circle to 1e-5 under a tolerance of 1e-3; the second row holds with room, or is violated as well."""
    layer = HardNetPlusPlus(method=GaussNewton(atol=1e-3))
    y = double(0.6, 0.8) * (1.0 + 1e-5)
    tangent = torch.eye(2).double() - y[:, None] * y / y.norm() ** 2
    # two rows, two unknowns: the point is determined
    for floor, expected in ((-1.0, tangent), (0.60001, torch.zeros(2, 2).double())):
        set = NonlinearSet(BOTH, double(1.0, floor), double(1.0, INF))
        found = torch.autograd.functional.jacobian(lambda p, set=set: layer.solve(p, set).value, y)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_inequality_that_holds_is_left_alone() -> None:
    outside = NonlinearSet(CIRCLE, double(0.0), double(INF), double(1.0))
    found = torch.autograd.functional.jacobian(
        lambda p: HardNetPlusPlus().solve(p, outside).value, double(0.9, 0.8)
    )
    assert torch.equal(found, torch.eye(2).double())


@pytest.mark.untyped
@pytest.mark.parametrize("adjoint", [Retraced(), Taped()], ids=lambda a: type(a).__name__)
def test_derivatives_at_bounds_of_variables(adjoint) -> None:
    """Variables that steps take to their bounds move with them; those that leave the bounds are free."""
    layer = HardNetPlusPlus(method=GaussNewton(atol=1e-13), adjoint=adjoint)
    y = torch.tensor([[0.9, 1.5], [2.0, 0.1], [-0.5, -0.4], [0.3, 0.2]], dtype=torch.float64)
    lower, upper = double(-0.2, 0.05), double(0.5, 0.9)
    radius = torch.tensor([[1.0], [0.8], [0.25], [1.0]]).double()

    def enforce(p: Tensor, low: Tensor, up: Tensor, c: Tensor) -> Tensor:
        set = Intersection(NonlinearSet(CIRCLE, double(0.0), double(0.0), c), Box(low, up))
        solution = layer.solve(p, set)
        assert solution.ok.all(), solution.counts()
        return solution.value

    inputs = [t.requires_grad_() for t in (y, lower, upper, radius)]
    assert torch.autograd.gradcheck(enforce, inputs, atol=1e-5)
    jacobian = blocks_by_autograd(lambda p: enforce(p, *inputs[1:]), y.detach())
    expected = blocks_by_difference(lambda p: enforce(p, *inputs[1:]), y.detach())
    torch.testing.assert_close(jacobian, expected, rtol=1e-5, atol=1e-5)
    single = [lower.detach(), upper.detach(), radius.detach()[0]]
    mapped = torch.func.vmap(torch.func.jacrev(lambda p: enforce_one(layer, p, single)))(y.detach()[:1])
    torch.testing.assert_close(mapped[0], jacobian[0], rtol=1e-5, atol=1e-5)


def enforce_one(layer: HardNetPlusPlus, p: Tensor, tensors: list[Tensor]) -> Tensor:
    low, up, c = tensors
    set = Intersection(NonlinearSet(CIRCLE, double(0.0), double(0.0), c), Box(low, up))
    return layer.solve(p, set).value
