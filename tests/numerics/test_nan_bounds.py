"""A bound that is NaN never counts as satisfied, in no kernel, and is flagged for its own element only."""

from __future__ import annotations

import pytest
import torch

from constrained_nn.layers.hardnet import flat_rows
from constrained_nn.layers.nearest import Parts
from constrained_nn.linalg import nearest_between
from constrained_nn.sets import Ball, Intersection, Polyhedron
from constrained_nn.solvers import GaussNewton, Solution, Status, project_intersection, project_polyhedron
from constrained_nn.solvers.gauss_newton import descend, descend_traced

BAD = 1
Y = torch.tensor([[5.0, 5.0], [5.0, 0.5], [0.0, 0.0]]).double()


def rows(side: str, value: float) -> Polyhedron:
    """`y <= 1` and, on the other side of row 1 of element `BAD`, `value`."""
    lower, upper = torch.full((3, 2), -torch.inf).double(), torch.ones(3, 2).double()
    (lower if side == "lower" else upper)[BAD, 1] = value
    return Polyhedron(torch.eye(2).double().expand(3, 2, 2), lower, upper)


def gauss_newton(set: Polyhedron) -> tuple[torch.Tensor, torch.Tensor]:
    build, tensors = flat_rows("test", set, Y.shape[:-1])
    found = descend(build(*tensors), Y, GaussNewton(), keep=False)
    return found.y, found.status


def gauss_newton_as_published(set: Polyhedron) -> tuple[torch.Tensor, torch.Tensor]:
    build, tensors = flat_rows("test", set, Y.shape[:-1])
    found = descend(build(*tensors), Y, GaussNewton.published(40), keep=False)
    return found.y, found.status


def gauss_newton_traced(set: Polyhedron) -> tuple[torch.Tensor, torch.Tensor]:
    build, tensors = flat_rows("test", set, Y.shape[:-1])
    value, status, _ = descend_traced(build(*tensors), Y, GaussNewton(max_steps=8))
    return value, status


def polyhedron(set: Polyhedron) -> tuple[torch.Tensor, torch.Tensor]:
    return taken(project_polyhedron(Y, set.A, set.lower, set.upper))


def intersection(set: Polyhedron) -> tuple[torch.Tensor, torch.Tensor]:
    ball = Ball(torch.zeros(3, 2).double(), torch.full((3,), 9.0).double())
    terms = Parts(2).add(Intersection(set, ball)).terms(Y)
    return taken(project_intersection(Y, terms, terms))


def taken(solution: Solution) -> tuple[torch.Tensor, torch.Tensor]:
    return solution.value, solution.status


KERNELS = [gauss_newton, gauss_newton_as_published, gauss_newton_traced, polyhedron, intersection]


@pytest.mark.parametrize("side", ["lower", "upper"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.__name__)
def test_kernel_flags_the_element_and_no_other(kernel, side: str) -> None:
    value, status = kernel(rows(side, torch.nan))
    expected, healthy = kernel(rows(side, 0.75 if side == "upper" else -0.75))
    assert (healthy == Status.OK).all(), "without the NaN every element has a solution"
    others = torch.arange(len(Y)) != BAD
    assert status[BAD] != Status.OK
    assert (status[others] == Status.OK).all()
    torch.testing.assert_close(value[others], expected[others], rtol=1e-12, atol=1e-12)
    assert value[others].isfinite().all()


@pytest.mark.parametrize("value", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize(("lower", "upper"), [(torch.nan, 1.0), (-1.0, torch.nan), (torch.nan, torch.nan)])
def test_nothing_lies_between_bounds_that_are_nan(value: float, lower: float, upper: float) -> None:
    bounds = [torch.tensor([bound, side]).double() for bound, side in ((lower, -1.0), (upper, 1.0))]
    found = nearest_between(torch.full((2,), value).double(), *bounds)
    assert found[0].isnan()
    assert found[1] == min(max(value, -1.0), 1.0)
    set = Polyhedron(torch.eye(2).double(), *bounds)
    assert set.residual(torch.full((2,), value).double()).isnan().tolist() == [True, False]
    assert not set.contains(torch.full((2,), value).double(), atol=torch.inf)


@pytest.mark.parametrize("value", [-2.0, 0.5, 2.0])
def test_equality_keeps_its_derivative(value: float) -> None:
    """Of two equal bounds the upper one takes it, on either side and on the bound itself."""
    leaves = [torch.tensor([v]).double().requires_grad_() for v in (value, 0.5, 0.5)]
    gradients = torch.autograd.grad(nearest_between(*leaves).sum(), leaves)
    assert [g.item() for g in gradients] == [0.0, 0.0, 1.0]
