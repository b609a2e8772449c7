"""Rows under `vmap` and `compile`: solved where they are solved without, and failed closed where they are not."""

from __future__ import annotations

import pytest
import torch
from torch.func import jacrev, vmap

from constrained_nn import Ball, Box, EuclideanProjection, Intersection
from constrained_nn.solvers import Status, project_polyhedron

WIDE = torch.float64


def sample(n: int, m: int, shared: bool, generator, count: int = 100):
    """Polyhedra with a point; some elements far away, and two that are empty."""
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=WIDE)  # noqa: E731
    A, inner = draw(*(() if shared else (count,)), m, n), 0.3 * draw(count, n)
    value = (A @ inner.unsqueeze(-1)).squeeze(-1)
    room = 0.1 + torch.rand(count, m, generator=generator, dtype=WIDE)
    upper, lower = value + room, torch.where(draw(count, m) > 0, value - room, -torch.inf)
    upper[:2, 0], lower[:2, 0] = value[:2, 0], value[:2, 0] + 1.0
    y = inner + 3.0 * draw(count, n)
    y[-10:] *= 1e12
    return y, A, lower, upper


def solve(*data):
    solution = project_polyhedron(*data)
    return solution.value, solution.status


@pytest.mark.untyped
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (5, 10), (10, 40), (30, 60)])
def test_mapped_is_eager(n: int, m: int, shared: bool, generator) -> None:
    data = sample(n, m, shared, generator)
    value, status = solve(*data)
    assert (status == Status.OK).sum() == 98
    in_dims = (0, None if shared else 0, 0, 0)
    point, found = vmap(solve, in_dims=in_dims)(*data)
    assert torch.equal(found, status)
    torch.testing.assert_close(point, value, rtol=1e-12, atol=1e-12)
    twice = [t.unflatten(0, (4, 25)) if d == 0 else t for t, d in zip(data, in_dims, strict=True)]
    nested = vmap(vmap(solve, in_dims=in_dims), in_dims=in_dims)(*twice)
    assert torch.equal(nested[1].flatten(), status)
    torch.testing.assert_close(nested[0].flatten(0, 1), value, rtol=1e-12, atol=1e-12)


@pytest.mark.untyped
def test_mapped_derivatives_of_far_and_empty_elements(generator) -> None:
    y, A, lower, upper = sample(4, 9, False, generator, count=20)
    slopes = vmap(jacrev(lambda y, A, low, up: solve(y, A, low, up)[0]))(y, A, lower, upper)
    assert slopes.isfinite().all()
    leaf = y.clone().requires_grad_()
    value, status = solve(leaf, A, lower, upper)
    for column in range(4):
        (row,) = torch.autograd.grad(value[:, column].sum(), leaf, retain_graph=True)
        torch.testing.assert_close(slopes[:, column], row, rtol=1e-9, atol=1e-9)
    assert (slopes[status != Status.OK] == 0).all()


@pytest.mark.untyped
@pytest.mark.once
def test_compiled_solves_what_eager_solves(generator) -> None:
    data = sample(10, 40, True, generator, count=100)
    value, status = solve(*data)
    point, found = torch.compile(solve, backend="aot_eager", fullgraph=True)(*data)
    assert torch.equal(found, status)
    solved = status == Status.OK
    near = torch.arange(100) < 90
    torch.testing.assert_close(point[solved & near], value[solved & near], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(point[solved], value[solved], rtol=0, atol=1e-2)  # 1e-14 of the proposal


@pytest.mark.untyped
def test_mapped_intersections_have_all_their_steps(generator) -> None:
    box = Box(torch.full((3,), -0.5).double(), torch.full((3,), 2.0).double())
    set = Intersection(box, Ball(torch.zeros(3).double(), torch.tensor(1.0).double()))
    layer = EuclideanProjection()
    y = 30.0 * torch.randn(20, 3, generator=generator, dtype=WIDE)
    solution = layer.solve(y, set)
    value, status = vmap(lambda y: (lambda s: (s.value, s.status))(layer.solve(y, set)))(y)
    assert torch.equal(status, solution.status)
    torch.testing.assert_close(value, solution.value, rtol=1e-9, atol=1e-9)
