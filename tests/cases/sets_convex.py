"""Rows of the constraint sets with curved boundaries, and of the simplex."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import torch

from constrained_nn.errors import SetTypeError, ShapeError
from constrained_nn.linalg import svec
from constrained_nn.sets import (
    Ball,
    Box,
    Ellipsoid,
    Intersection,
    L1Ball,
    Product,
    PSDCone,
    SecondOrderCone,
    Simplex,
)
from tests.cases._rows import BadCall, Batch, Edge, SetCase
from tests.cases.sets import rand, randn, tensor
from tests.oracles import numpy

ROOT = 2.0**0.5


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def ball(generator: torch.Generator, batch: Batch) -> Ball:
    return Ball(randn(generator, *batch, 4), 0.5 + rand(generator, *batch))


def ball_edges() -> list[Edge]:
    unit = Ball(tensor(1.0, 0.0), number(2.0))
    return [
        Edge("outside", unit, tensor(1.0, -7.0), tensor(1.0, -2.0)),
        Edge("sphere", unit, tensor(3.0, 0.0), tensor(3.0, 0.0)),
        Edge("center", unit, tensor(1.0, 0.0), tensor(1.0, 0.0)),
        Edge("one point", Ball(tensor(1.0, 0.0), number(0.0)), tensor(5.0, 5.0), tensor(1.0, 0.0)),
        Edge("far", unit, tensor(1.0, 1e200), tensor(1.0, 2.0)),
    ]


def ellipsoid(generator: torch.Generator, batch: Batch) -> Ellipsoid:
    root = randn(generator, *batch, 3, 3)
    P = root @ root.mT + 0.1 * torch.eye(3, dtype=torch.float64)
    return Ellipsoid(randn(generator, *batch, 3), P, 0.5 + rand(generator, *batch))


def ellipsoid_edges() -> list[Edge]:
    axes = torch.diag(tensor(1.0, 4.0))
    round_, flat = Ellipsoid(tensor(0.0, 0.0), axes, number(4.0)), torch.diag(tensor(0.0, 1.0))
    sphere = Ellipsoid(tensor(0.0, 0.0), torch.eye(2, dtype=torch.float64), number(25.0))
    return [
        Edge("axis", round_, tensor(0.0, 3.0), tensor(0.0, 1.0)),
        Edge("inside", round_, tensor(1.0, 0.5), tensor(1.0, 0.5)),
        Edge("repeated eigenvalues", sphere, tensor(6.0, 8.0), tensor(3.0, 4.0)),
        Edge("slab", Ellipsoid(tensor(0.0, 0.0), flat, number(1.0)), tensor(9.0, 5.0), tensor(9.0, 1.0)),
        Edge("one point", Ellipsoid(tensor(1.0, 2.0), axes, number(0.0)), tensor(4.0, 4.0), tensor(1.0, 2.0)),
    ]


def _ellipsoid_rows(set: Ellipsoid, z) -> list:
    root = np.linalg.cholesky(numpy(set.P)).T
    return [cp.norm(root @ (z - numpy(set.center))) <= float(set.level) ** 0.5]


def l1_ball(generator: torch.Generator, batch: Batch) -> L1Ball:
    return L1Ball(randn(generator, *batch, 4), 0.5 + rand(generator, *batch))


def l1_edges() -> list[Edge]:
    unit = L1Ball(tensor(0.0, 0.0, 0.0), number(1.0))
    return [
        Edge("face", unit, tensor(1.0, -1.0, 0.0), tensor(0.5, -0.5, 0.0)),
        Edge("vertex", unit, tensor(5.0, 1.0, -1.0), tensor(1.0, 0.0, 0.0)),
        Edge("ties", unit, tensor(2.0, 2.0, 2.0), tensor(1.0, 1.0, 1.0) / 3),
        Edge("inside", unit, tensor(0.2, -0.2, 0.2), tensor(0.2, -0.2, 0.2)),
        Edge("one point", L1Ball(tensor(1.0, 2.0), number(0.0)), tensor(4.0, 4.0), tensor(1.0, 2.0)),
    ]


def simplex(generator: torch.Generator, batch: Batch) -> Simplex:
    floor = 0.2 * randn(generator, *batch, 4)
    return Simplex(floor, floor.sum(-1) + 0.5 + rand(generator, *batch))


def simplex_edges() -> list[Edge]:
    unit = Simplex(tensor(0.0, 0.0, 0.0), number(1.0))
    return [
        Edge("edge", unit, tensor(1.0, 0.5, -3.0), tensor(0.75, 0.25, 0.0)),
        Edge("vertex", unit, tensor(9.0, 1.0, 1.0), tensor(1.0, 0.0, 0.0)),
        Edge("center", unit, tensor(5.0, 5.0, 5.0), tensor(1.0, 1.0, 1.0) / 3),
        Edge("no spare", Simplex(tensor(1.0, 2.0), number(3.0)), tensor(7.0, -7.0), tensor(1.0, 2.0)),
    ]


def _simplex_violation(set: Simplex, y: np.ndarray) -> float:
    return max(0.0, float(np.max(numpy(set.floor) - y)), abs(float(y.sum() - numpy(set.total))))


def cone(generator: torch.Generator, batch: Batch) -> SecondOrderCone:
    return SecondOrderCone(randn(generator, *batch, 4), 0.5 + rand(generator, *batch))


def cone_edges() -> list[Edge]:
    unit = SecondOrderCone(tensor(0.0, 0.0, 0.0), number(1.0))
    wide = SecondOrderCone(tensor(1.0, 0.0), number(2.0))
    return [
        Edge("outside", unit, tensor(0.0, 6.0, 8.0), tensor(5.0, 3.0, 4.0)),
        Edge("polar", unit, tensor(-9.0, 1.0, 1.0), tensor(0.0, 0.0, 0.0)),
        Edge("apex", unit, tensor(0.0, 0.0, 0.0), tensor(0.0, 0.0, 0.0)),
        Edge("surface", unit, tensor(5.0, 3.0, 4.0), tensor(5.0, 3.0, 4.0)),
        Edge("below the axis", unit, tensor(-1.0, 0.0, 0.0), tensor(0.0, 0.0, 0.0)),
        Edge("slope", wide, tensor(1.0, 5.0), tensor(3.0, 4.0)),
    ]


def _cone_violation(set: SecondOrderCone, y: np.ndarray) -> float:
    t, *z = y - numpy(set.apex)
    return max(0.0, float(np.hypot.reduce(z)) - float(set.slope) * float(t))


def _cone_inside(set: SecondOrderCone) -> torch.Tensor:
    height = torch.zeros(set.dim, dtype=torch.float64)
    height[0] = 1.0
    return set.apex + height


def psd(order: int):
    def build(generator: torch.Generator, batch: Batch) -> PSDCone:
        root = randn(generator, *batch, order, order)
        return PSDCone(0.2 * svec(root + root.mT))

    return build


def _matrix(v):
    """Symmetric matrix of an svec vector, entry by entry, for NumPy and for cvxpy."""
    order = int((2 * v.shape[0]) ** 0.5)
    index, entries = iter(range(v.shape[0])), {}
    for i in range(order):
        for j in range(i, order):
            entries[i, j] = entries[j, i] = v[next(index)] / (1.0 if i == j else ROOT)
    return [[entries[i, j] for j in range(order)] for i in range(order)]


def _psd_violation(set: PSDCone, y: np.ndarray) -> float:
    smallest = np.linalg.eigvals(np.array(_matrix(y - numpy(set.apex)))).real.min()
    return max(0.0, -float(smallest))


def _psd_inside(set: PSDCone) -> torch.Tensor:
    return set.apex + svec(torch.eye(set.order, dtype=torch.float64))


def psd_edges() -> list[Edge]:
    pair, zero = PSDCone(torch.zeros(3, dtype=torch.float64)), torch.zeros(6, dtype=torch.float64)
    repeated = svec(torch.diag(tensor(2.0, -1.0, -1.0)))
    return [
        Edge("indefinite", pair, tensor(0.0, ROOT, 0.0), tensor(0.5, 0.5 * ROOT, 0.5)),
        Edge("inside", pair, tensor(2.0, 0.1, 1.0), tensor(2.0, 0.1, 1.0)),
        Edge("zero", PSDCone(zero), zero, zero),
        Edge("negative", pair, tensor(-1.0, 0.3, -2.0), tensor(0.0, 0.0, 0.0)),
        Edge("repeated", PSDCone(zero), repeated, repeated.clamp_min(0.0)),
        Edge("floor", PSDCone(tensor(1.0)), tensor(-3.0), tensor(1.0)),
    ]


def _psd_rows(set: PSDCone, z) -> list:
    S = _matrix(z - numpy(set.apex))
    return [cp.bmat(S) >> 0] if len(S) > 1 else [S[0][0] >= 0]


def meeting(generator: torch.Generator, batch: Batch) -> Intersection:
    """A ball and a box that share the ball's center."""
    round_ = ball(generator, batch)
    return Intersection(Box(round_.center - 0.4, round_.center + 0.4), round_)


def pair(generator: torch.Generator, batch: Batch) -> Product:
    return Product(cone(generator, batch), ball(generator, batch))


def _meeting_violation(set: Intersection, y: np.ndarray) -> float:
    box, round_ = set.sets
    outside = np.max(np.abs(y - 0.5 * (numpy(box.lower) + numpy(box.upper)))) - 0.4
    return max(0.0, float(outside), _ball_violation(round_, y))


def _ball_violation(set, y: np.ndarray) -> float:
    return max(0.0, float(np.hypot.reduce(y - numpy(set.center))) - float(set.radius))


ROWS = [
    SetCase(
        "Ball",
        Ball,
        ball,
        _ball_violation,
        lambda set: set.center + 0.1,
        lambda set, z: [cp.norm(z - numpy(set.center)) <= float(set.radius)],
        ball_edges,
        atol=1e-13,
    ),
    SetCase(
        "Ellipsoid",
        Ellipsoid,
        ellipsoid,
        lambda set, y: max(
            0.0, float((y - numpy(set.center)) @ numpy(set.P) @ (y - numpy(set.center)) - numpy(set.level))
        ),
        lambda set: set.center.clone(),
        _ellipsoid_rows,
        ellipsoid_edges,
        atol=1e-12,
    ),
    SetCase(
        "L1Ball",
        L1Ball,
        l1_ball,
        lambda set, y: max(0.0, float(np.abs(y - numpy(set.center)).sum()) - float(set.radius)),
        lambda set: set.center + 0.05,
        lambda set, z: [cp.norm1(z - numpy(set.center)) <= float(set.radius)],
        l1_edges,
        atol=1e-13,
    ),
    SetCase(
        "Simplex",
        Simplex,
        simplex,
        _simplex_violation,
        lambda set: set.floor + ((set.total - set.floor.sum(-1)) / set.dim).unsqueeze(-1),
        lambda set, z: [z >= numpy(set.floor), cp.sum(z) == float(set.total)],
        simplex_edges,
        atol=1e-13,
    ),
    SetCase(
        "SecondOrderCone",
        SecondOrderCone,
        cone,
        _cone_violation,
        _cone_inside,
        lambda set, z: [
            cp.norm(z[1:] - numpy(set.apex)[1:]) <= float(set.slope) * (z[0] - numpy(set.apex)[0])
        ],
        cone_edges,
        atol=1e-13,
    ),
    *(
        SetCase(
            f"PSDCone-{order}",
            PSDCone,
            psd(order),
            _psd_violation,
            _psd_inside,
            _psd_rows,
            psd_edges if order == 2 else list,
            atol=1e-12,
        )
        for order in (1, 2, 4)
    ),
    SetCase("Intersection", Intersection, meeting, _meeting_violation, lambda set: set.sets[1].center + 0.1),
    SetCase(
        "Product",
        Product,
        pair,
        lambda set, y: max(_cone_violation(set.sets[0], y[:4]), _ball_violation(set.sets[1], y[4:])),
        lambda set: torch.cat([_cone_inside(set.sets[0]), set.sets[1].center + 0.1], -1),
    ),
    BadCall("Ball", ShapeError, lambda: Ball(torch.zeros(()), torch.zeros(())), "(*batch, n)"),
    BadCall("Ball", ShapeError, lambda: Ball(torch.zeros(2), torch.zeros(()).double()), "float64"),
    BadCall(
        "Ellipsoid",
        ShapeError,
        lambda: Ellipsoid(torch.zeros(2), torch.zeros(3, 3), torch.ones(())),
        "torch.diag_embed",
    ),
    BadCall(
        "Ellipsoid.validate",
        ValueError,
        lambda: Ellipsoid(torch.zeros(2), -torch.eye(2), torch.ones(())).validate(),
        "eigenvalue -1",
    ),
    BadCall("L1Ball", ShapeError, lambda: L1Ball(torch.zeros(2, 2), torch.zeros(3)), "broadcast"),
    BadCall("Simplex", ShapeError, lambda: Simplex(torch.zeros(()), torch.ones(())), "(*batch, n)"),
    BadCall(
        "Simplex.validate", ValueError, lambda: Simplex(torch.ones(3), torch.ones(())).validate(), "by 2"
    ),
    BadCall("SecondOrderCone", ShapeError, lambda: SecondOrderCone(torch.zeros(1), torch.ones(())), "n >= 2"),
    BadCall(
        "SecondOrderCone.validate",
        ValueError,
        lambda: SecondOrderCone(torch.zeros(3), torch.zeros(())).validate(),
        "slope > 0",
    ),
    BadCall("PSDCone", ShapeError, lambda: PSDCone(torch.zeros(4)), "n (n + 1) / 2"),
    BadCall(
        "Intersection",
        ShapeError,
        lambda: Intersection(Ball(torch.zeros(2), torch.ones(())), Ball(torch.zeros(3), torch.ones(()))),
        "[2, 3]",
    ),
    BadCall("Intersection", ShapeError, lambda: Intersection(), "at least one set"),
    BadCall(
        "Intersection",
        SetTypeError,
        lambda: Intersection(Ball(torch.zeros(2), torch.ones(())), 3),  # pyright: ignore
        "int at position 1",
    ),
    BadCall("Product", ShapeError, lambda: Product(), "at least one set"),
    BadCall(
        "Product",
        SetTypeError,
        lambda: Product(Ball(torch.zeros(2), torch.ones(())), "box"),  # pyright: ignore
        "str at position 1",
    ),
]
