"""Rows of the layers for linear constraints."""

from __future__ import annotations

import numpy as np
import torch

from constrained_nn.errors import ConvergenceError, InfeasibleError, SetTypeError, ShapeError, TracingError
from constrained_nn.layers import Constrained, Euclidean, Fixed, HardNetAffine, HardNetConvex, Nan, Raise
from constrained_nn.sets import AffineSubspace, Box, Halfspace, Polyhedron
from constrained_nn.solvers import Solution, Status
from tests.cases import sets
from tests.cases._rows import BadCall, Edge, LayerCase
from tests.cases.sets import INF, tensor
from tests.oracles import hardnet_affine, nearest_in_polyhedron, numpy


def _closed_form(set, y: np.ndarray) -> np.ndarray:
    A = numpy(set.A) if hasattr(set, "A") else numpy(set.jacobian(torch.from_numpy(y)))
    return hardnet_affine(y, A, numpy(set.lower), numpy(set.upper))


def _nearest(set: Polyhedron, y: np.ndarray) -> np.ndarray:
    return nearest_in_polyhedron(y, numpy(set.A), numpy(set.lower), numpy(set.upper))


def _closed_form_edges() -> list[Edge]:
    A = tensor([1.0, 0.0, 0.0], [1.0, 1.0, 0.0])
    both = Polyhedron(A, tensor(0.0, -1.0), tensor(1.0, 1.0))
    return [
        # both rows hold at their bound already, and one is on it
        Edge("boundary", both, tensor(1.0, 0.0, 5.0), tensor(1.0, 0.0, 5.0)),
        # row 1 must fall to 1 while row 0 keeps its value 0.5: only the second component may move
        Edge("satisfied row keeps its value", both, tensor(0.5, 2.5, 5.0), tensor(0.5, 0.5, 5.0)),
        Edge("equality", AffineSubspace(A[1:], tensor(4.0)), tensor(1.0, 1.0, 0.0), tensor(2.0, 2.0, 0.0)),
        Edge("free rows", Polyhedron(A), tensor(9.0, 9.0, 9.0), tensor(9.0, 9.0, 9.0)),
        Edge("one-sided", Polyhedron(A[:1], lower=tensor(2.0)), tensor(1.0, 7.0, 0.0), tensor(2.0, 7.0, 0.0)),
    ]


def _deficient_edges() -> list[Edge]:
    strip = Polyhedron(tensor([1.0, 1.0], [-1.0, -1.0]), tensor(-INF, -INF), tensor(1.0, 1.0))
    duplicate = Polyhedron(tensor([2.0, 0.0], [1.0, 0.0]), upper=tensor(8.0, 1.0))
    corner = Polyhedron(
        tensor([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]),
        upper=tensor(1.0, 1.0, 1.5),
        lower=tensor(-INF, -INF, -INF),
    )
    return [
        Edge("opposite rows", strip, tensor(2.0, 2.0), tensor(0.5, 0.5)),
        Edge("opposite rows, other side", strip, tensor(-2.0, -2.0), tensor(-0.5, -0.5)),
        Edge("duplicate row", duplicate, tensor(5.0, 3.0), tensor(1.0, 3.0)),
        Edge("more rows than outputs", corner, tensor(3.0, 1.0), tensor(1.0, 0.5)),
        Edge("more rows, face", corner, tensor(1.25, 1.25), tensor(0.75, 0.75)),
        Edge("more rows, inside", corner, tensor(0.1, 0.2), tensor(0.1, 0.2)),
    ]


def _crossed() -> tuple[torch.Tensor, Polyhedron]:
    """Element 1 asks for `1 <= y_0 + y_1 <= 0`."""
    lower = tensor([-1.0, -1.0], [1.0, -1.0])
    return tensor([3.0, 0.0], [3.0, 0.0]), Polyhedron(
        tensor([1.0, 1.0], [1.0, -1.0]), lower, tensor([1.0, 1.0], [0.0, 1.0])
    )


def _empty_strip() -> tuple[torch.Tensor, Polyhedron]:
    """Element 1 asks for `y_0 >= 2` and `y_0 <= 1` by two rows."""
    rows = tensor([1.0, 0.0], [-1.0, 0.0], [0.0, 1.0])
    return tensor([3.0, 0.0], [3.0, 0.0]), Polyhedron(rows, upper=tensor([1.0, 0.0, 0.0], [1.0, -2.0, 0.0]))


def _raising(status: Status):
    code = torch.tensor([int(status)], dtype=torch.int8)
    one = Solution(torch.zeros(1, 2), code, torch.zeros(1, dtype=torch.int32), torch.ones(1))
    return lambda: Raise()(one, "HardNetAffine")


def _enforce(set, y: torch.Tensor):
    return lambda: HardNetAffine().eval()(y, set)


ROWS = [
    LayerCase(
        "HardNetAffine-Polyhedron",
        HardNetAffine,
        HardNetAffine,
        sets.polyhedron,
        _closed_form,
        sets.polyhedron_inside,
        _crossed,
        _closed_form_edges,
    ),
    LayerCase(
        "HardNetAffine-shared",
        HardNetAffine,
        HardNetAffine,
        sets.polyhedron_shared,
        _closed_form,
        sets.polyhedron_inside,
        compiles=False,
    ),
    LayerCase(
        "HardNetAffine-deficient",
        HardNetAffine,
        HardNetAffine,
        sets.polyhedron_deficient,
        _nearest,
        sets.polyhedron_inside,
        _empty_strip,
        _deficient_edges,
        euclidean=True,
        compiles=False,
    ),
    LayerCase(
        "HardNetAffine-Euclidean",
        HardNetAffine,
        lambda: HardNetAffine(metric=Euclidean()),
        sets.polyhedron,
        _nearest,
        sets.polyhedron_inside,
        _crossed,
        _deficient_edges,
        euclidean=True,
        compiles=False,
    ),
    LayerCase(
        "HardNetConvex-Polyhedron",
        HardNetConvex,
        HardNetConvex,
        sets.polyhedron,
        _nearest,
        sets.polyhedron_inside,
        _crossed,
        _deficient_edges,
        euclidean=True,
        compiles=False,
    ),
    LayerCase(
        "HardNetAffine-Box",
        HardNetAffine,
        HardNetAffine,
        sets.box,
        _closed_form,
        sets.box_inside,
        euclidean=True,
        compiles=False,
    ),
    LayerCase(
        "HardNetAffine-Halfspace",
        HardNetAffine,
        HardNetAffine,
        sets.halfspace,
        _closed_form,
        sets.halfspace_inside,
        euclidean=True,
        compiles=False,
    ),
    LayerCase(
        "HardNetAffine-AffineSubspace",
        HardNetAffine,
        HardNetAffine,
        sets.subspace,
        _closed_form,
        sets.subspace_inside,
        euclidean=True,
        compiles=False,
    ),
    BadCall(
        "HardNetAffine",
        SetTypeError,
        lambda: HardNetAffine()(torch.zeros(2), torch.zeros(2)),  # pyright: ignore
        "got Tensor",
    ),
    BadCall(
        "HardNetAffine",
        ShapeError,
        _enforce(Box(torch.zeros(2), torch.ones(2)), torch.zeros(3)),
        "(*batch, 2)",
    ),
    BadCall(
        "HardNetAffine",
        ShapeError,
        _enforce(Box(torch.zeros(2), torch.ones(2)), torch.zeros(2).double()),
        "compute_dtype=torch.float64",
    ),
    BadCall(
        "ProjectionLayer.solve",
        ShapeError,
        lambda: HardNetAffine().solve(torch.zeros(4, 2), Box(torch.zeros(3, 2), torch.ones(3, 2))),
        "y (4,), set (3,)",
    ),
    BadCall(
        "ProjectionLayer.solve",
        SetTypeError,
        lambda: HardNetAffine().solve(torch.zeros(2), None),  # pyright: ignore[reportArgumentType]
        "how to choose",
    ),
    BadCall(
        "ProjectionLayer.solve",
        TracingError,
        lambda: torch.jit.trace(
            lambda y: HardNetAffine()(y, Box(torch.zeros(2), torch.ones(2))), (torch.zeros(2),)
        ),
        "torch.export.export",
    ),
    BadCall("HardNetAffine", InfeasibleError, lambda: HardNetAffine().eval()(*_crossed()), "index [1]"),
    BadCall(
        "HardNetAffine",
        ConvergenceError,
        _enforce(Halfspace(torch.ones(2), torch.ones(())), torch.full((2,), torch.nan)),
        "NaN",
    ),
    BadCall(
        "Fixed",
        ValueError,
        lambda: Fixed(Box(torch.zeros(2), torch.ones(2).requires_grad_() * 2.0)),
        "torch.nn.Parameter",
    ),
    BadCall(
        "HardNetConvex",
        SetTypeError,
        lambda: HardNetConvex()(torch.zeros(2), torch.zeros(2)),  # pyright: ignore
        "got Tensor",
    ),
    BadCall(
        "HardNetConvex",
        ShapeError,
        lambda: HardNetConvex()(torch.zeros(3), Box(torch.zeros(2), torch.ones(2))),
        "(*batch, 2)",
    ),
    BadCall("HardNetConvex", InfeasibleError, lambda: HardNetConvex().eval()(*_crossed()), "index [1]"),
    BadCall(
        "HardNetConvex",
        ConvergenceError,
        lambda: HardNetConvex().eval()(torch.full((2,), torch.nan), Box(torch.zeros(2), torch.ones(2))),
        "NaN",
    ),
    BadCall("Raise", InfeasibleError, _raising(Status.INFEASIBLE), "Relax a bound"),
    BadCall("Raise", ConvergenceError, _raising(Status.MAX_STEPS), "max_steps"),
]

# what `Constrained` is tested on: the same network with a constant and with a context-dependent constraint


def constrained_fixed() -> Constrained:
    """A small float64 network in a constant polyhedron."""
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).double()
    set = sets.polyhedron_shared(torch.Generator().manual_seed(1), ())
    return Constrained(backbone, Fixed(set), HardNetAffine(on_failure=Nan()))


def rows_of_context(context: torch.Tensor) -> Polyhedron:
    """Two rows in four dimensions that depend smoothly on a context of five numbers."""
    first = torch.stack([torch.cos(context[..., 0]), torch.sin(context[..., 0])], -1)
    A = torch.cat([first, torch.zeros_like(first)], -1)
    B = torch.cat([torch.zeros_like(first), 1.0 + context[..., 1:3].square()], -1)
    return Polyhedron(torch.stack([A, B], -2), upper=torch.tanh(context[..., 3:5]))


def constrained_by_context() -> Constrained:
    """A small float64 network whose constraint depends on its input."""
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).double()
    return Constrained(backbone, rows_of_context, HardNetAffine(on_failure=Nan()))
