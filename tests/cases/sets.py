"""Rows of the constraint sets whose constraints are linear."""

from __future__ import annotations

import numpy as np
import torch

from constrained_nn.errors import SetTypeError, ShapeError
from constrained_nn.sets import AffineSubspace, Ball, Box, Halfspace, Polyhedron
from tests.cases._rows import BadCall, Batch, Edge, SetCase
from tests.oracles import interval_rows, interval_violation, numpy

INF = float("inf")


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def randn(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def rand(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def box(generator: torch.Generator, batch: Batch) -> Box:
    center = randn(generator, *batch, 4)
    lower, upper = center - 0.1 - rand(generator, *batch, 4), center + 0.1 + rand(generator, *batch, 4)
    lower[..., 1], upper[..., 2] = -INF, INF  # one-sided components, and one that is an equality
    lower[..., 3] = upper[..., 3]
    return Box(lower, upper)


def box_inside(set: Box) -> torch.Tensor:
    lower, upper = set.lower.expand(*set.batch_shape, set.dim), set.upper.expand(*set.batch_shape, set.dim)
    middle = torch.where(lower.isfinite() & upper.isfinite(), 0.5 * (lower + upper), lower)
    return torch.where(middle.isfinite(), middle + torch.where(upper.isfinite(), 0.0, 1.0), upper - 1.0)


def box_edges() -> list[Edge]:
    free = Box(tensor(-INF, 0.0), tensor(INF, 1.0))
    return [
        Edge("face", Box(tensor(0.0, 0.0), tensor(1.0, 1.0)), tensor(1.0, 0.5), tensor(1.0, 0.5)),
        Edge("corner", Box(tensor(0.0, 0.0), tensor(1.0, 1.0)), tensor(7.0, -2.0), tensor(1.0, 0.0)),
        Edge("free component", free, tensor(1e9, -1.0), tensor(1e9, 0.0)),
        Edge("one point", Box(tensor(2.0, 3.0), tensor(2.0, 3.0)), tensor(0.0, 0.0), tensor(2.0, 3.0)),
    ]


def halfspace(generator: torch.Generator, batch: Batch) -> Halfspace:
    return Halfspace(randn(generator, *batch, 3), randn(generator, *batch))


def halfspace_inside(set: Halfspace) -> torch.Tensor:
    squared = (set.normal * set.normal).sum(-1, keepdim=True)
    return set.normal * (set.offset.unsqueeze(-1) - 1.0) / squared


def halfspace_edges() -> list[Edge]:
    unit = Halfspace(tensor(3.0, 4.0), torch.tensor(5.0, dtype=torch.float64))
    return [
        Edge("outside", unit, tensor(6.0, 8.0), tensor(0.6, 0.8)),
        Edge("boundary", unit, tensor(0.6, 0.8), tensor(0.6, 0.8)),
        Edge("inside", unit, tensor(-1.0, -1.0), tensor(-1.0, -1.0)),
        Edge("zero normal", Halfspace(tensor(0.0, 0.0), unit.offset), tensor(1.0, 2.0), tensor(1.0, 2.0)),
    ]


def subspace(generator: torch.Generator, batch: Batch) -> AffineSubspace:
    A = randn(generator, *batch, 2, 4)
    return AffineSubspace(A, (A @ randn(generator, *batch, 4, 1)).squeeze(-1))


def subspace_shared(generator: torch.Generator, batch: Batch) -> AffineSubspace:
    return AffineSubspace(randn(generator, 2, 4), randn(generator, *batch, 2))


def subspace_inside(set: AffineSubspace) -> torch.Tensor:
    return (torch.linalg.pinv(set.A) @ set.b.unsqueeze(-1)).squeeze(-1)


def subspace_edges() -> list[Edge]:
    consistent = AffineSubspace(tensor([1.0, 1.0], [2.0, 2.0]), tensor(2.0, 4.0))
    return [
        Edge("line", AffineSubspace(tensor([1.0, 1.0]), tensor(2.0)), tensor(0.0, 0.0), tensor(1.0, 1.0)),
        Edge("dependent rows", consistent, tensor(3.0, 0.0), tensor(2.5, -0.5)),
    ]


def polyhedron(generator: torch.Generator, batch: Batch) -> Polyhedron:
    """Two two-sided rows, one of them with an infinite side, in three dimensions."""
    A, center = randn(generator, *batch, 2, 3), randn(generator, *batch, 3, 1)
    middle = (A @ center).squeeze(-1)
    lower = middle - 0.1 - rand(generator, *batch, 2)
    lower[..., 1] = -INF
    return Polyhedron(A, lower, middle + 0.1 + rand(generator, *batch, 2))


def polyhedron_shared(generator: torch.Generator, batch: Batch) -> Polyhedron:
    A = randn(generator, 3, 4)
    middle = (A @ randn(generator, *batch, 4, 1)).squeeze(-1)
    return Polyhedron(A, middle - 0.1 - rand(generator, *batch, 3), middle + 0.1 + rand(generator, *batch, 3))


def polyhedron_deficient(generator: torch.Generator, batch: Batch) -> Polyhedron:
    """Four rows in two dimensions, the last parallel to the first: a bounded set with an interior."""
    A, center = randn(generator, *batch, 4, 2), randn(generator, *batch, 2, 1)
    A[..., 3, :] = -2.0 * A[..., 0, :]
    middle = (A @ center).squeeze(-1)
    width = 0.2 + rand(generator, *batch, 4)
    return Polyhedron(A, middle - width, middle + width)


def polyhedron_inside(set: Polyhedron) -> torch.Tensor:
    lower = torch.where(set.lower.isfinite(), set.lower, set.upper - 1.0)
    upper = torch.where(set.upper.isfinite(), set.upper, lower + 1.0)
    return (torch.linalg.pinv(set.A) @ (0.5 * (lower + upper)).unsqueeze(-1)).squeeze(-1)


def _interval_violation(set, y: np.ndarray) -> float:
    A = numpy(set.A) if hasattr(set, "A") else np.eye(y.size)
    value = np.array([sum(a * b for a, b in zip(row, y, strict=True)) for row in A])
    return interval_violation(value, numpy(set.lower), numpy(set.upper))


def _polyhedron_rows(set, z) -> list:
    return interval_rows(numpy(set.A), numpy(set.lower), numpy(set.upper), z)


ROWS = [
    SetCase(
        "Box",
        Box,
        box,
        _interval_violation,
        box_inside,
        lambda set, z: interval_rows(np.eye(set.dim), numpy(set.lower), numpy(set.upper), z),
        box_edges,
        atol=0.0,
    ),
    SetCase(
        "Halfspace",
        Halfspace,
        halfspace,
        lambda set, y: max(0.0, float(np.dot(numpy(set.normal), y) - numpy(set.offset))),
        halfspace_inside,
        lambda set, z: [numpy(set.normal) @ z <= float(set.offset)],
        halfspace_edges,
        atol=1e-13,
    ),
    SetCase(
        "AffineSubspace",
        AffineSubspace,
        subspace,
        _interval_violation,
        subspace_inside,
        lambda set, z: [numpy(set.A) @ z == numpy(set.b)],
        subspace_edges,
        atol=1e-12,
    ),
    SetCase(
        "AffineSubspace-shared",
        AffineSubspace,
        subspace_shared,
        _interval_violation,
        subspace_inside,
        lambda set, z: [numpy(set.A) @ z == numpy(set.b)],
        atol=1e-12,
    ),
    SetCase("Polyhedron", Polyhedron, polyhedron, _interval_violation, polyhedron_inside, _polyhedron_rows),
    SetCase(
        "Polyhedron-shared",
        Polyhedron,
        polyhedron_shared,
        _interval_violation,
        polyhedron_inside,
        _polyhedron_rows,
    ),
    SetCase(
        "Polyhedron-deficient",
        Polyhedron,
        polyhedron_deficient,
        _interval_violation,
        polyhedron_inside,
        _polyhedron_rows,
    ),
    BadCall("Box", ShapeError, lambda: Box(torch.zeros(2), torch.zeros(3)), "(2,) and (3,)"),
    BadCall("Box", ShapeError, lambda: Box(torch.zeros(()), torch.zeros(())), "(*batch, n)"),
    BadCall("Box", ShapeError, lambda: Box(torch.zeros(2), torch.zeros(2).double()), "float64"),
    BadCall("Box", ShapeError, lambda: Box(torch.zeros(2, 2), torch.zeros(3, 2)), "broadcast"),
    BadCall("Box", ShapeError, lambda: Box(torch.zeros(2).int(), torch.zeros(2).int()), "torch.int32"),
    BadCall("Halfspace", ShapeError, lambda: Halfspace(torch.zeros(()), torch.zeros(())), "(*batch, n)"),
    BadCall("Halfspace", ShapeError, lambda: Halfspace(torch.zeros(2, 2), torch.zeros(3)), "broadcast"),
    BadCall("Polyhedron", ShapeError, lambda: Polyhedron(torch.zeros(2)), "A.unsqueeze(0)"),
    BadCall("Polyhedron", ShapeError, lambda: Polyhedron(torch.zeros(2, 3), torch.zeros(3)), "2 rows"),
    BadCall(
        "Polyhedron",
        ShapeError,
        lambda: Polyhedron(torch.zeros(2, 3), upper=torch.zeros(2, device="meta")),
        "meta",
    ),
    BadCall(
        "Polyhedron.of",
        SetTypeError,
        lambda: Polyhedron.of(Ball(torch.zeros(2), torch.tensor(1.0))),
        "Ball",
    ),
    BadCall("Polyhedron.merged", ShapeError, lambda: Polyhedron(torch.zeros(5, 2, 3)).merged(), "(5, 2, 3)"),
    BadCall("AffineSubspace", ShapeError, lambda: AffineSubspace(torch.zeros(2), torch.zeros(2)), "(2,)"),
    BadCall(
        "AffineSubspace", ShapeError, lambda: AffineSubspace(torch.zeros(2, 3), torch.zeros(3)), "2 rows"
    ),
    BadCall(
        "ConstraintSet.validate",
        ValueError,
        lambda: Box(torch.zeros(2), torch.tensor([1.0, torch.nan])).validate(),
        "index [1]",
    ),
    BadCall(
        "IntervalSet.validate",
        ValueError,
        lambda: Box(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 2.0])).validate(),
        "lower = 3 and upper = 2 at index [1]",
    ),
]
