"""A warm start is an earlier solution: it saves steps, changes no answer, and its bad elements are ignored."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from constrained_nn import (
    LMI,
    Box,
    EuclideanProjection,
    Halfspace,
    HardNetAffine,
    HardNetConvex,
    HardNetPlusPlus,
    Intersection,
    LMINet,
    NearestPoint,
    Polyhedron,
    StrictInterior,
)
from constrained_nn.errors import ShapeError
from constrained_nn.layers import Euclidean
from constrained_nn.solvers import Status

LAYERS = {
    "projection": EuclideanProjection,
    "smoothed": lambda: EuclideanProjection(smoothing=0.1),
    "interior": lambda: StrictInterior(EuclideanProjection()),
    "convex": HardNetConvex,
    "metric": lambda: HardNetAffine(metric=Euclidean()),
    "hardnet": HardNetAffine,
    "nearest": NearestPoint,
    "plus plus": HardNetPlusPlus,
}


def problem(generator: torch.Generator, size: int = 16):
    A = torch.randn(size, 6, 4, generator=generator, dtype=torch.float64)
    rows = Polyhedron(A, upper=torch.ones(size, 6, dtype=torch.float64))
    return 3.0 * torch.randn(size, 4, generator=generator, dtype=torch.float64), rows


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_answer_is_the_same(make, generator: torch.Generator) -> None:
    y, rows = problem(generator)
    layer = make()
    first = layer.solve(y, rows)
    bad = replace(first, status=first.status.clone(), value=first.value.clone())
    bad.status[1] = int(Status.MAX_STEPS)
    bad.value[2] = torch.nan
    if bad.duals is not None:
        bad.duals[3] = torch.inf
    moved = y + 1e-3
    cold, warm = layer.solve(moved, rows), layer.solve(moved, rows, warm_start=bad)
    assert warm.ok.all(), warm.describe_failures()
    torch.testing.assert_close(warm.value, cold.value, rtol=1e-7, atol=1e-7)


def test_projection_takes_fewer_steps(generator: torch.Generator) -> None:
    y, rows = problem(generator, 64)
    layer = EuclideanProjection()
    first = layer.solve(y, rows)
    cold, warm = layer.solve(y + 1e-6, rows), layer.solve(y + 1e-6, rows, warm_start=first)
    assert warm.steps.sum() < cold.steps.sum()


def test_solution_of_another_set_is_ignored(generator: torch.Generator) -> None:
    y, rows = problem(generator)
    other = Intersection(Box(-torch.ones(4).double(), torch.ones(4).double()), Halfspace(y[0], y[0, 0]))
    layer = EuclideanProjection()
    solution = layer.solve(y, rows, warm_start=layer.solve(y, other))
    assert torch.equal(solution.value, layer.solve(y, rows).value)


def test_failed_element_of_an_lmi_starts_afresh(generator: torch.Generator) -> None:
    set = LMI.lyapunov(torch.tensor([[-1.0, 4.0], [0.0, -1.0]]).double(), floor=0.1)
    y = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    first = LMINet().solve(y, set)
    first.value[3] = torch.nan
    cold, warm = LMINet().solve(y, set), LMINet().solve(y, set, warm_start=first)
    assert warm.ok.all()
    torch.testing.assert_close(warm.value, cold.value, rtol=1e-6, atol=1e-6)


@pytest.mark.untyped
def test_other_shapes_are_refused(generator: torch.Generator) -> None:
    y, rows = problem(generator)
    layer = EuclideanProjection()
    with pytest.raises(ShapeError, match="warm_start"):
        layer.solve(y[0], Polyhedron(rows.A[0], upper=rows.upper[0]), warm_start=layer.solve(y, rows))
    with pytest.raises(ShapeError, match="Tensor"):
        layer.solve(y, rows, warm_start=y)
