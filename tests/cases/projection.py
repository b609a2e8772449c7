"""Rows of the Euclidean projection, on one set of each kind."""

from __future__ import annotations

import numpy as np
import torch

from constrained_nn.errors import ConvergenceError, InfeasibleError, SetTypeError, ShapeError
from constrained_nn.layers import EuclideanProjection, StrictInterior
from constrained_nn.linalg import svec
from constrained_nn.sets import (
    AffineSubspace,
    Ball,
    Box,
    Halfspace,
    Intersection,
    Polyhedron,
    Product,
    PSDCone,
    SecondOrderCone,
)
from tests.cases import sets, sets_convex
from tests.cases._rows import BadCall, Batch, Edge, LayerCase
from tests.cases.sets import INF, rand, randn, tensor
from tests.cases.sets_convex import number
from tests.oracles import dykstra, into_ball, into_rows, nearest_in_polyhedron, numpy


def _polyhedron(set: Polyhedron, y: np.ndarray) -> np.ndarray:
    return nearest_in_polyhedron(y, numpy(set.A), numpy(set.lower), numpy(set.upper))


def _ball(set: Ball, y: np.ndarray) -> np.ndarray:
    return into_ball(numpy(set.center), float(set.radius))(y)


def boxed_rows(generator: torch.Generator, batch: Batch) -> Intersection:
    """A box, a half-space and two rows around a common point, in three dimensions."""
    center = randn(generator, *batch, 3)
    A, normal = randn(generator, *batch, 2, 3), randn(generator, *batch, 3)
    middle = (A * center.unsqueeze(-2)).sum(-1)
    return Intersection(
        Box(center - 0.3 - rand(generator, *batch, 3), center + 0.3 + rand(generator, *batch, 3)),
        Halfspace(normal, (normal * center).sum(-1) + 0.2),
        Polyhedron(A, middle - 0.3, middle + 0.2),
    )


def _boxed_center(set: Intersection) -> torch.Tensor:
    _, _, rows = set.sets
    middle = rows.upper - 0.2
    solve = torch.linalg.pinv(rows.A)
    low, up = set.sets[0].lower, set.sets[0].upper
    start = 0.5 * (low + up)
    guess = start + (solve @ (middle - (rows.A * start.unsqueeze(-2)).sum(-1)).unsqueeze(-1)).squeeze(-1)
    layer = EuclideanProjection()
    return layer.solve(guess, set).value


def _boxed_rows(set: Intersection, y: np.ndarray) -> np.ndarray:
    box, half, rows = set.sets
    A = np.concatenate([np.eye(3), numpy(half.normal)[None], numpy(rows.A)])
    lower = np.concatenate([numpy(box.lower), [-INF], numpy(rows.lower)])
    upper = np.concatenate([numpy(box.upper), numpy(half.offset)[None], numpy(rows.upper)])
    return nearest_in_polyhedron(y, A, lower, upper)


def capped_ball(generator: torch.Generator, batch: Batch) -> Intersection:
    """A ball cut by a box and by two rows, around a common point."""
    center = randn(generator, *batch, 4)
    A = randn(generator, *batch, 2, 4)
    middle = (A * center.unsqueeze(-2)).sum(-1)
    return Intersection(
        Ball(center, 0.6 + 0.2 * rand(generator, *batch)),
        Box(center - 0.2 - rand(generator, *batch, 4), center + 0.2 + rand(generator, *batch, 4)),
        Polyhedron(A, middle - 1.0, middle + 0.3),
    )


def _capped_ball(set: Intersection, y: np.ndarray) -> np.ndarray:
    round_, box, rows = set.sets
    clip = lambda z: np.clip(z, numpy(box.lower), numpy(box.upper))  # noqa: E731
    sides = into_rows(numpy(rows.A), numpy(rows.lower), numpy(rows.upper))
    return dykstra(y, [into_ball(numpy(round_.center), float(round_.radius)), clip, *sides])


def _capped_edges() -> list[Edge]:
    unit = Ball(tensor(0.0, 0.0), number(1.0))
    half = Halfspace(tensor(1.0, 0.0), number(0.6))
    lens = Intersection(Ball(tensor(-0.6, 0.0), number(1.0)), Ball(tensor(0.6, 0.0), number(1.0)))
    inside = Intersection(unit, Box(tensor(-0.1, -0.1), tensor(0.1, 0.1)))
    return [
        Edge("corner of disk and line", Intersection(unit, half), tensor(4.0, 4.0), tensor(0.6, 0.8)),
        Edge("line only", Intersection(unit, half), tensor(4.0, 0.3), tensor(0.6, 0.3)),
        Edge("disk only", Intersection(unit, half), tensor(-3.0, 4.0), tensor(-0.6, 0.8)),
        Edge("tip of a lens", lens, tensor(0.0, 5.0), tensor(0.0, 0.8)),
        Edge("redundant disk", inside, tensor(4.0, 0.0), tensor(0.1, 0.0)),
        Edge("twice the same disk", Intersection(unit, unit), tensor(3.0, 4.0), tensor(0.6, 0.8)),
        Edge(
            "free row", Intersection(unit, Polyhedron(tensor([1.0, 1.0]))), tensor(3.0, 4.0), tensor(0.6, 0.8)
        ),
    ]


def density(generator: torch.Generator, batch: Batch) -> Intersection:
    """Semidefinite matrices of order 3 with a given trace and a bound on one entry."""
    trace = svec(torch.eye(3, dtype=torch.float64)).unsqueeze(0)
    normal = torch.zeros(6, dtype=torch.float64)
    normal[1] = 1.0
    return Intersection(
        PSDCone(torch.zeros(6, dtype=torch.float64)),
        AffineSubspace(trace, 1.0 + rand(generator, *batch, 1)),
        Halfspace(normal, 0.1 + 0.1 * rand(generator, *batch)),
    )


def _density(set: Intersection, y: np.ndarray) -> np.ndarray:
    index, scale = np.triu_indices(3), np.where(np.equal(*np.triu_indices(3)), 1.0, 2.0**0.5)

    def psd(v: np.ndarray) -> np.ndarray:
        S = np.zeros((3, 3))
        S[index] = v / scale
        values, vectors = np.linalg.eigh(S + S.T - np.diag(np.diag(S)))
        return ((vectors * np.maximum(values, 0.0)) @ vectors.T)[index] * scale

    _, plane, half = set.sets
    equal = into_rows(numpy(plane.A), numpy(plane.b), numpy(plane.b))
    one_sided = into_rows(numpy(half.normal)[None], np.array([-INF]), numpy(half.offset)[None])
    return dykstra(y, [psd, *equal, *one_sided])


def blocks(generator: torch.Generator, batch: Batch) -> Product:
    return Product(sets_convex.ball(generator, batch), sets.polyhedron_deficient(generator, batch))


def _blocks(set: Product, y: np.ndarray) -> np.ndarray:
    return np.concatenate([_ball(set.sets[0], y[:4]), _polyhedron(set.sets[1], y[4:])])


def friction_grid(generator: torch.Generator, batch: Batch) -> Intersection:
    """Two contact forces in their friction cones that carry a given load together."""
    cones = [
        SecondOrderCone(torch.zeros(3, dtype=torch.float64), 0.4 + 0.2 * rand(generator, *batch))
        for _ in range(2)
    ]
    A = torch.cat([torch.eye(3, dtype=torch.float64)] * 2, -1)
    load = torch.cat([2.0 + rand(generator, *batch, 1), 0.2 * randn(generator, *batch, 2)], -1)
    return Intersection(Product(*cones), AffineSubspace(A, load))


def _friction_grid(set: Intersection, y: np.ndarray) -> np.ndarray:
    pair, balance = set.sets

    def cone(z: np.ndarray, slope: float) -> np.ndarray:
        t, r = z[0], float(np.hypot(z[1], z[2]))
        if r <= slope * t:
            return z
        if slope * r <= -t:
            return np.zeros(3)
        height = (slope * r + t) / (1.0 + slope**2)
        return np.array([height, *(slope * height * z[1:] / r)])

    slopes = [float(member.slope) for member in pair.sets]
    both = lambda z: np.concatenate([cone(z[:3], slopes[0]), cone(z[3:], slopes[1])])  # noqa: E731
    A, b = numpy(balance.A), numpy(balance.b)
    return dykstra(y, [both, lambda z: z + A.T @ np.linalg.solve(A @ A.T, b - A @ z)])


def _apart() -> tuple[torch.Tensor, Intersection]:
    """Element 1: a disk and a half-space at a distance of 0.5."""
    disk = Ball(tensor([0.0, 0.0], [0.0, 0.0]), tensor(1.0, 1.0))
    half = Halfspace(tensor([-1.0, 0.0], [-1.0, 0.0]), tensor(0.0, -1.5))
    return tensor([-3.0, 1.0], [-3.0, 1.0]), Intersection(disk, half)


def _negative_radius() -> tuple[torch.Tensor, Ball]:
    return tensor([3.0, 0.0], [3.0, 0.0]), Ball(tensor([0.0, 0.0], [0.0, 0.0]), tensor(1.0, -1.0))


def _empty_strip() -> tuple[torch.Tensor, Polyhedron]:
    rows = tensor([1.0, 0.0], [-1.0, 0.0], [0.0, 1.0])
    return tensor([3.0, 0.0], [3.0, 0.0]), Polyhedron(rows, upper=tensor([1.0, 0.0, 0.0], [1.0, -2.0, 0.0]))


def _crossed_box() -> tuple[torch.Tensor, Box]:
    return tensor([3.0], [3.0]), Box(tensor([0.0], [2.0]), tensor([1.0], [1.0]))


def _crossed_boxes() -> tuple[torch.Tensor, Intersection]:
    first = Box(tensor([0.0], [0.0]), tensor([1.0], [1.0]))
    return tensor([3.0], [3.0]), Intersection(first, Box(tensor([0.5], [2.0]), tensor([3.0], [3.0])))


def _row(name: str, build, oracle, inside, infeasible=None, edges=list, **options) -> LayerCase:
    return LayerCase(
        f"EuclideanProjection-{name}",
        EuclideanProjection,
        EuclideanProjection,
        build,
        oracle,
        inside,
        infeasible,
        edges,
        euclidean=True,
        **options,
    )


def _density_center(set: Intersection) -> torch.Tensor:
    return set.sets[1].b / 3.0 * svec(torch.eye(3, dtype=torch.float64))


def _friction_center(set: Intersection) -> torch.Tensor:
    return torch.cat([set.sets[1].b, set.sets[1].b], -1) / 2.0


ROWS = [
    _row("Ball", sets_convex.ball, _ball, lambda set: set.center + 0.1, _negative_radius),
    # the solver of "rows-and-box", which is the one that is compiled
    _row("Polyhedron", sets.polyhedron, _polyhedron, sets.polyhedron_inside, _empty_strip, compiles=False),
    _row(
        "Polyhedron-deficient",
        sets.polyhedron_deficient,
        _polyhedron,
        sets.polyhedron_inside,
        compiles=False,
    ),
    _row("Box", sets.box, None, sets.box_inside, _crossed_box),
    _row("rows-and-box", boxed_rows, _boxed_rows, _boxed_center, _crossed_boxes),
    _row(
        "Product",
        blocks,
        _blocks,
        lambda set: torch.cat([set.sets[0].center + 0.1, sets.polyhedron_inside(set.sets[1])], -1),
        compiles=False,
    ),
    _row(
        "capped-ball",
        capped_ball,
        _capped_ball,
        lambda set: set.sets[0].center,
        _apart,
        _capped_edges,
        iterative=True,
        to_compile=lambda generator, batch: Intersection(*capped_ball(generator, batch).sets[::2]),
    ),
    _row("density", density, _density, _density_center, gradient_atol=1e-5, iterative=True, compiles=False),
    _row(
        "friction",
        friction_grid,
        _friction_grid,
        _friction_center,
        iterative=True,
        compiles=False,
        second_order=False,
    ),
    BadCall(
        "EuclideanProjection",
        SetTypeError,
        lambda: EuclideanProjection()(torch.zeros(2), torch.zeros(2)),  # pyright: ignore
        "got Tensor",
    ),
    BadCall(
        "EuclideanProjection",
        ValueError,
        lambda: EuclideanProjection(smoothing=0.0),
        "smoothing > 0",
    ),
    BadCall(
        "EuclideanProjection",
        ShapeError,
        lambda: EuclideanProjection()(torch.zeros(3), Ball(torch.zeros(2), torch.ones(()))),
        "(*batch, 2)",
    ),
    BadCall(
        "EuclideanProjection",
        InfeasibleError,
        lambda: EuclideanProjection().eval()(*_apart()),
        "index [1]",
    ),
    BadCall(
        "EuclideanProjection",
        ConvergenceError,
        lambda: EuclideanProjection().eval()(
            torch.tensor([torch.nan, 0.0]), Ball(torch.zeros(2), torch.ones(()))
        ),
        "NaN",
    ),
    LayerCase(
        "StrictInterior-Polyhedron",
        StrictInterior,
        lambda: StrictInterior(EuclideanProjection()),
        sets.polyhedron,
        _polyhedron,
        sets.polyhedron_inside,
        _empty_strip,
        iterative=True,
        compiles=False,
    ),
    BadCall(
        "StrictInterior",
        SetTypeError,
        lambda: StrictInterior(EuclideanProjection())(
            torch.zeros(2), Intersection(Ball(torch.zeros(2), torch.ones(())))
        ),
        "got Ball",
    ),
    BadCall(
        "StrictInterior",
        InfeasibleError,
        lambda: StrictInterior(EuclideanProjection()).eval()(*_crossed_box()),
        "index [1]",
    ),
    BadCall(
        "StrictInterior",
        ConvergenceError,
        lambda: StrictInterior(EuclideanProjection()).eval()(
            torch.tensor([torch.nan]), Box(torch.zeros(1), torch.ones(1))
        ),
        "NaN",
    ),
]
