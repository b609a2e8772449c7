"""Rows of linear matrix inequalities and of the layer that enforces them."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import torch
from scipy.optimize import root

from constrained_nn.errors import ConvergenceError, InfeasibleError, SetTypeError, ShapeError
from constrained_nn.layers import FixedPoint, LMINet
from constrained_nn.sets import LMI, Box, LMIBlock
from tests.cases._rows import BadCall, Batch, Edge, LayerCase, SetCase
from tests.cases.sets import randn, tensor
from tests.cases.sets_convex import _matrix
from tests.oracles import numpy


def stable(generator: torch.Generator, batch: Batch, n: int, decay: float) -> torch.Tensor:
    """A matrix with `A + Aᵀ ⪯ −2 decay I`, so that `P = I` certifies it."""
    R = randn(generator, *batch, n, n)
    norm = torch.linalg.matrix_norm(R, 2)[..., None, None]
    return R - (norm + decay) * torch.eye(n, dtype=R.dtype)


def lyapunov(generator: torch.Generator, batch: Batch) -> LMI:
    return LMI.lyapunov(stable(generator, batch, 2, 0.5), rate=0.1, floor=0.2)


def joint(generator: torch.Generator, batch: Batch) -> LMI:
    """State feedback with a disturbance; `Q = I`, `Y = 0` is inside."""
    A, B = stable(generator, batch, 2, 2.0), randn(generator, *batch, 2, 1)
    G = 0.3 * randn(generator, *batch, 2, 1).clamp(-1, 1)
    return LMI.state_feedback(A, B, rate=0.5, disturbance=G, floor=0.1)


def dense(generator: torch.Generator, batch: Batch) -> LMI:
    F = randn(generator, *batch, 3, 4, 4)
    return LMI.dense(torch.eye(4, dtype=F.dtype).expand(*batch, 4, 4).clone(), F + F.mT)


def polytope(generator: torch.Generator, batch: Batch) -> LMI:
    """Two vertices that share one `P`."""
    vertices = tuple(stable(generator, batch, 3, 0.3) for _ in range(2))
    return LMI.lyapunov(vertices, floor=0.1)


def block(generator: torch.Generator, batch: Batch) -> LMIBlock:
    """All kinds of variables in one block: S (2 x 2), Y (1 x 2), two scalars."""
    slopes = randn(generator, *batch, 2, 3, 3)
    eye = torch.eye(3, dtype=slopes.dtype).expand(*batch, 3, 3).clone()
    left, right = randn(generator, *batch, 3, 3), randn(generator, *batch, 2, 3)
    return LMIBlock(eye, left, right, slopes + slopes.mT)


def matrices(set, y) -> list:
    """`F(y)` of every block, entry by entry from its definition, for NumPy and for cvxpy."""
    found = []
    for b in getattr(set, "blocks", (set,)):
        C, L, R, D = (numpy(t) for t in (b.constant, b.left, b.right, b.slopes))
        p, k, s = R.shape[0], L.shape[1] - R.shape[0], D.shape[0]
        F = C
        size = p * (p + 1) // 2
        if p:
            S = _matrix(y[:size])
            rows = [*S, *([y[size + i * p + j] for j in range(p)] for i in range(k))]
            V = cp.bmat(rows) if isinstance(y, cp.Variable) else np.array(rows)
            F = F + L @ V @ R + (L @ V @ R).T
        for j in range(s):
            F = F + y[size + k * p + j] * D[j]
        found.append(F)
    return found


def violation(set, y: np.ndarray) -> float:
    return max(0.0, *(-float(np.linalg.eigvals(0.5 * (F + F.T)).real.min()) for F in matrices(set, y)))


def nearest(set, y: np.ndarray) -> np.ndarray:
    """Euclidean projection: Clarabel's point, polished until it proves itself to be the nearest one.

    A conic solver stops by the gap of the objective, which is the square of the distance: its
    point is up to 6e-5 away, and by how much hangs on the processor. Every symmetric `W` is
    `P - Z`, its positive part less its negative one, which are complementary. So `y + Lᵀ Z` is
    the projection with multiplier `Z` exactly where `F` there is `P`: an equation in `W` alone,
    which is solved to 1e-13.
    """
    zero = [0.5 * (F + F.T) for F in matrices(set, np.zeros(y.size))]
    slopes = [
        [0.5 * (F + F.T) - C for F, C in zip(matrices(set, e), zero, strict=True)] for e in np.eye(y.size)
    ]
    upper = [np.triu_indices(len(C)) for C in zero]

    def values(x) -> list:
        return [C + sum(x[j] * s[b] for j, s in enumerate(slopes)) for b, C in enumerate(zero)]

    def split(W: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """`x` and the blocks of `P`."""
        x, positive, at = y.copy(), [], 0
        for b, index in enumerate(upper):
            half = np.zeros_like(zero[b])
            half[index] = W[at : at + len(index[0])]
            at += len(index[0])
            w, V = np.linalg.eigh(half, UPLO="U")
            Z = (V * np.maximum(-w, 0.0)) @ V.T
            x += [float((s[b] * Z).sum()) for s in slopes]
            positive.append((V * np.maximum(w, 0.0)) @ V.T)
        return x, positive

    def lack(W: np.ndarray) -> np.ndarray:
        x, positive = split(W)
        return np.concatenate(
            [(F - P)[index] for F, P, index in zip(values(x), positive, upper, strict=True)]
        )

    z = cp.Variable(y.size)
    rows = [F >> 0 for F in values(z)]
    cp.Problem(cp.Minimize(cp.sum_squares(z - y)), rows).solve(solver=cp.CLARABEL)
    start = [F - 0.5 * row.dual_value for F, row in zip(values(z.value), rows, strict=True)]
    start = np.concatenate([W[index] for W, index in zip(start, upper, strict=True)])
    W = root(lack, start, options={"xtol": 1e-15, "maxfev": 4000}).x
    assert np.abs(lack(W)).max() <= 1e-11 * (1.0 + np.abs(W).max())
    return split(W)[0]


def unit(set) -> torch.Tensor:
    """`S = I`, everything else 0."""
    p = set.blocks[0].map.symmetric
    y = torch.zeros(set.dim, dtype=torch.float64)
    y[[sum(range(p, p - i, -1)) for i in range(p)]] = 1.0
    return y.expand(*set.batch_shape, set.dim)


def zero(set) -> torch.Tensor:
    return torch.zeros(*set.batch_shape, set.dim, dtype=torch.float64)


def _one(value: float) -> LMIBlock:
    """`value y <= offset` as a 1 x 1 inequality, for the edges."""
    return LMI.dense(tensor([1.0]), tensor([[-value]])).blocks[0]


def edges() -> list[Edge]:
    line = LMI(_one(1.0), _one(-1.0))  # −1 <= y <= 1
    cone = LMI.dense(
        torch.zeros(2, 2).double(), torch.stack([torch.diag(tensor(1.0, 0.0)), torch.diag(tensor(0.0, 1.0))])
    )
    return [
        Edge("outside", line, tensor(3.0), tensor(1.0)),
        Edge("inside", line, tensor(0.25), tensor(0.25)),
        Edge("boundary", line, tensor(-1.0), tensor(-1.0)),
        Edge("apex, repeated eigenvalues", cone, tensor(-2.0, -2.0), tensor(0.0, 0.0)),
        Edge("face", cone, tensor(-2.0, 3.0), tensor(0.0, 3.0)),
    ]


def empty() -> tuple[torch.Tensor, LMI]:
    """Element 1 asks for `y_0 >= 2` and `y_0 <= 1`."""
    low, high = tensor(-1.0, 2.0), tensor(1.0, 1.0)
    slope = tensor([[1.0]], [[0.0]])
    blocks = [LMI.dense(v[:, None, None], sign * slope).blocks[0] for v, sign in ((-low, 1.0), (high, -1.0))]
    return tensor([3.0, 0.0], [3.0, 0.0]), LMI(*blocks)


def _layer(kind: str, build, inside, **options) -> LayerCase:
    return LayerCase(
        f"LMINet-{kind}",
        LMINet,
        LMINet,
        build,
        nearest,
        inside,
        atol=1e-7,  # the default margin moves the point by 2.3e-8 at most in 540 of these problems
        euclidean=True,
        gradient_atol=1e-5,
        iterative=True,
        **options,
    )


def _solve(y: torch.Tensor, **options):
    return lambda: LMINet(**options).eval()(y, lyapunov(torch.Generator().manual_seed(0), ()))


ROWS = [
    SetCase("LMI-lyapunov", LMI, lyapunov, violation, unit),
    SetCase("LMI-joint", LMI, joint, violation, unit),
    SetCase("LMI-polytope", LMI, polytope, violation, unit),
    SetCase("LMIBlock", LMIBlock, block, violation, zero),
    _layer(
        "lyapunov",
        lyapunov,
        unit,
        others={"fixed point": lambda: LMINet(adjoint=FixedPoint())},
        to_compile=lambda generator, batch: LMI(block(generator, batch)),
    ),
    _layer("joint", joint, unit, compiles=False),
    _layer("dense", dense, zero, infeasible=empty, edges=edges, compiles=False),
    BadCall("LMIBlock", ShapeError, lambda: LMIBlock(torch.eye(2), torch.eye(3), torch.eye(2)), "p + k"),
    BadCall("LMI", ShapeError, lambda: LMI(), "at least one block"),
    BadCall(
        "LMI",
        ShapeError,
        lambda: LMI(*LMI.lyapunov(torch.eye(2)).blocks, *LMI.lyapunov(torch.eye(3)).blocks),
        "[3, 3, 6, 6]",
    ),
    BadCall(
        "LMI",
        ShapeError,
        lambda: LMI.state_feedback((torch.eye(2),) * 2, (torch.eye(2),) * 3, rate=0.1),
        "[2, 3]",
    ),
    BadCall(
        "LMI",
        SetTypeError,
        lambda: LMI(*LMI.lyapunov(torch.eye(1)).blocks, Box(torch.zeros(1), torch.ones(1))),  # pyright: ignore
        "Box at position 2",
    ),
    BadCall("LMI", ShapeError, lambda: LMI.lyapunov(torch.eye(3)[0]), "A of shape (*batch, n, n), got (3,)"),
    BadCall("LMI", SetTypeError, lambda: LMI(torch.eye(2), torch.zeros(2, 2, 2)), "got Tensor at position 0"),  # pyright: ignore
    BadCall(
        "LMI.dense",
        ValueError,
        lambda: LMI.dense(torch.eye(2), torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 9.0], [0.0, 0.0]]])),
        "entries (0, 1) and (1, 0) of F[1] that differ by 9",
    ),
    BadCall(
        "LMIBlock",
        ValueError,
        lambda: LMIBlock(
            tensor([1.0, 2.0], [0.0, 1.0]), torch.eye(2).double(), torch.eye(2).double()
        ).validate(),
        "constant symmetric",
    ),
    BadCall(
        "LMI.dense",
        ShapeError,
        lambda: LMI.dense(torch.eye(2), torch.eye(2)[0]),
        "(*batch, m, n, n) with n = 2",
    ),
    BadCall(
        "LMI",
        ShapeError,
        lambda: LMI.invariant_ellipsoid(torch.eye(2), torch.eye(3), multiplier=0.1),
        "B of shape (*batch, n, k) with n = 2, got (3, 3)",
    ),
    BadCall(
        "LMI",
        ShapeError,
        lambda: LMI.bounded_real(torch.eye(2), torch.eye(2), torch.eye(3), torch.eye(2)),
        "C of shape (*batch, l, n) with n = 2, k = 2, got (3, 3)",
    ),
    BadCall(
        "LMI",
        ShapeError,
        lambda: LMI.passivity(torch.eye(2), torch.eye(2), torch.eye(2), torch.eye(3)),
        "D of shape (*batch, k, k) with n = 2, k = 2, got (3, 3)",
    ),
    BadCall(
        "LMI",
        ShapeError,
        lambda: LMI.state_feedback(torch.eye(2), torch.eye(2), rate=0.1, disturbance=torch.eye(3)),
        "disturbance of shape (*batch, n, l) with n = 2, k = 2, got (3, 3)",
    ),
    BadCall(
        "LMI",
        ShapeError,
        lambda: LMI.state_feedback(torch.eye(2), torch.eye(2).double(), rate=0.1),
        "B of dtype torch.float32 like A",
    ),
    BadCall(
        "LMINet",
        SetTypeError,
        lambda: LMINet()(torch.zeros(2), Box(torch.zeros(2), torch.ones(2))),  # pyright: ignore
        "got Box",
    ),
    BadCall("LMINet", ShapeError, _solve(torch.zeros(5).double()), "(*batch, 3)"),
    BadCall("LMINet", ValueError, lambda: LMINet(relaxation=2.0), "relaxation < 2"),
    BadCall("LMINet", InfeasibleError, lambda: LMINet().eval()(*empty()), "index [1]"),
    BadCall("LMINet", ConvergenceError, _solve(torch.full((3,), torch.nan).double()), "NaN"),
]
