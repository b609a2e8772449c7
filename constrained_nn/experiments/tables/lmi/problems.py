"""What the two tables of LMI-Net share: the draws, the inequalities, conic references, evaluation."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from constrained_nn.experiments.runner import Published

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from constrained_nn.sets import LMI

ALPHA = 0.1
# (smallest, largest |eigenvalue|, spread of the disturbance input); second table: eigenvalues of
# both signs
STABLE = {"train": (0.5, 5.0, 1.0), "slow": (0.05, 0.5, 1.0), "large": (0.5, 5.0, 3.0)}
JOINT = {"train": (0.1, 1.0), "ood": (0.3, 1.5)}
# Draws whose unstable part is less controllable than this are discarded, as unstabilizable in
# practice.
STABILIZABLE = 1e-2


def stable_systems(name: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """`A` `(count, 2, 2)`, symmetric with negative eigenvalues, and `B_w` `(count, 2, 1)`."""
    import torch

    low, high, spread = STABLE[name]
    generator = torch.Generator().manual_seed(seed)
    values = low + (high - low) * torch.rand(count, 2, generator=generator, dtype=torch.float64)
    U = _rotations(count, generator)
    A = U @ torch.diag_embed(-values) @ U.mT
    B = spread * torch.randn(count, 2, 1, generator=generator, dtype=torch.float64)
    return 0.5 * (A + A.mT), B


def joint_systems(name: str, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """`A` `(count, 2, 2)`, symmetric, `B` and `B_w` `(count, 2, 1)`; TRAIN: random signs, OOD: one unstable mode."""
    import torch

    low, high = JOINT[name]
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    kept = 0
    while kept < count:
        size = low + (high - low) * torch.rand(count, 2, generator=generator, dtype=torch.float64)
        if name == "ood":
            sign = torch.tensor([1.0, -1.0], dtype=torch.float64).expand(count, 2)
        else:
            sign = 1.0 - 2.0 * (torch.rand(count, 2, generator=generator) < 0.5).double()
        U = _rotations(count, generator)
        values = sign * size
        A = U @ torch.diag_embed(values) @ U.mT
        B, G = (torch.randn(count, 2, 1, generator=generator, dtype=torch.float64) for _ in range(2))
        good = _stabilizable(values, (U.mT @ B).squeeze(-1))
        found.append((0.5 * (A + A.mT)[good], B[good], G[good]))
        kept += int(good.sum())
    A, B, G = (torch.cat(parts)[:count] for parts in zip(*found, strict=True))
    return A, B, G


def _rotations(count: int, generator: Any) -> Tensor:
    """Haar-distributed orthogonal 2 x 2 matrices."""
    import torch

    Q, R = torch.linalg.qr(torch.randn(count, 2, 2, generator=generator, dtype=torch.float64))
    return Q * torch.sign(R.diagonal(dim1=-2, dim2=-1)).unsqueeze(-2)


def _stabilizable(values: Tensor, b: Tensor) -> Tensor:
    """Whether every mode that must be moved can be: both inputs large enough, and two such modes far enough apart.

    `rate Q` asks for decay, so that modes above `−α / 2` count as unstable.
    """
    unstable = values > -0.5 * ALPHA
    reached = (b.abs() > STABILIZABLE) | ~unstable
    both = unstable.all(-1)
    apart = (values[:, 0] - values[:, 1]).abs() > STABILIZABLE
    return reached.all(-1) & (apart | ~both)


def ellipsoid(A: Tensor, B: Tensor, floor: float = 1e-5) -> LMI:
    """The inequalities of the first table."""
    from constrained_nn.sets import LMI

    return LMI.invariant_ellipsoid(A, B, multiplier=ALPHA, floor=floor)


def controller(A: Tensor, B: Tensor, G: Tensor, floor: float = 1e-3) -> LMI:
    """The inequalities of the second table."""
    from constrained_nn.sets import LMI

    return LMI.state_feedback(A, B, rate=ALPHA, disturbance=G, floor=floor)


def layer_of(row: str, penalty: float) -> Any:
    """The layer of a row, or None; `dr-N` is the paper's iteration with its penalty, N steps."""
    from constrained_nn.layers import LeastViolation, LMINet

    if row == "soft":
        return None
    if row == "lmi-net":
        return LMINet(on_failure=LeastViolation())
    return LMINet(
        on_failure=LeastViolation(),
        accelerate=False,
        margin=0.0,
        relaxation=1.0,
        congruence=False,
        interior_steps=0,
        penalty=penalty,
        max_steps=int(row.removeprefix("dr-")),
    )


def descend(
    network: torch.nn.Module,
    systems: tuple[Tensor, ...],
    loss: Callable[..., Tensor],
    *,
    epochs: int,
    seed: int,
    directory: Path,
    name: str,
) -> None:
    """Two phases of training, the second shorter and slower; each continues from its checkpoint."""
    from constrained_nn.training import fit

    for phase, rate in enumerate((1e-3, 2e-4)):
        fit(
            network,
            systems,
            loss,
            epochs=max(1, epochs // (phase + 1)),
            learning_rate=rate,
            seed=seed,
            batch=256,
            checkpoint=directory.parent / f"{name}-seed{seed}-{phase}.safetensors",
            every=5,
        )


def log_det(S: Tensor, floor: float = 1e-6) -> Tensor:
    """`log det` with eigenvalues raised to `floor`, so that a penalty method can start anywhere."""
    from constrained_nn.linalg import symmetric_eigenvalues

    return symmetric_eigenvalues(S).clamp_min(floor).log().sum(-1)


def frame(v: Tensor) -> Tensor:
    """Rotation `(count, 2, 2)` whose first column is the direction of `v` `(count, 2, 1)`."""
    import torch

    unit = v / torch.linalg.vector_norm(v, dim=-2, keepdim=True)
    return torch.cat([unit, torch.stack([-unit[..., 1, :], unit[..., 0, :]], -2)], -1)


def positive(p: Tensor) -> Tensor:
    """`[[eᵃ + c² eᵇ, c eᵇ], [c eᵇ, eᵇ]]` of `(a, b, c)`: every positive definite matrix, `log det = a + b`."""
    import torch

    a, b, c = p.unbind(-1)
    corner = b.exp()
    rows = [torch.stack([a.exp() + c * c * corner, c * corner], -1), torch.stack([c * corner, corner], -1)]
    return torch.stack(rows, -2)


def entries(A: Tensor) -> Tensor:
    """Upper triangle of symmetric 2 x 2 matrices `(count, 3)`."""
    import torch

    return torch.stack([A[..., 0, 0], A[..., 0, 1], A[..., 1, 1]], -1)


def clipped(y: Tensor, limit: float = 10.0) -> Tensor:
    """The same values; the gradient of each element is clipped to this norm."""
    import torch

    if y.requires_grad:
        y.register_hook(
            lambda g: g * (limit / torch.linalg.vector_norm(g, dim=-1, keepdim=True).clamp_min(limit))
        )
    return y


# --- conic references ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conic:
    """A problem in cvxpy with compiled parameters.

    Args:
        problem: The problem.
        parameters: Its parameters, in the order of the data.
        variables: `S`, and `Y` where there is one.
    """

    problem: Any
    parameters: tuple[Any, ...]
    variables: tuple[Any, ...]

    def solve(self, *data: np.ndarray, solver: str, **options: Any) -> tuple[np.ndarray, float, bool]:
        """Decision `(m,)`, objective, and whether the solver claims success."""
        import cvxpy

        for parameter, value in zip(self.parameters, data, strict=True):
            parameter.value = value
        try:
            self.problem.solve(solver=solver, **options)
        except (cvxpy.SolverError, ArithmeticError):
            return self._nothing()
        if self.problem.status not in (cvxpy.OPTIMAL, cvxpy.OPTIMAL_INACCURATE):
            return self._nothing()
        y = decision(*(v.value for v in self.variables))
        return y, float(self.problem.value), self.problem.status == cvxpy.OPTIMAL

    def _nothing(self) -> tuple[np.ndarray, float, bool]:
        size = decision(*(np.zeros(v.shape) for v in self.variables)).size
        return np.full(size, np.nan), float("nan"), False


def decision(S: np.ndarray, Y: np.ndarray | None = None) -> np.ndarray:
    """`(svec S, vec Y)`."""
    i, j = np.triu_indices(len(S))
    head = 0.5 * (S + S.T)[i, j] * np.where(i == j, 1.0, np.sqrt(2.0))
    return head if Y is None else np.concatenate([head, Y.ravel()])


def conic_ellipsoid(objective: str, floor: float = 1e-5) -> Conic:
    """First table: `objective` is `volume` (max log det P) or `nearest` (projection of a point)."""
    import cvxpy as cp

    A, B, y = cp.Parameter((2, 2)), cp.Parameter((2, 1)), cp.Parameter(3)
    P = cp.Variable((2, 2), symmetric=True)
    corner = -ALPHA * np.eye(1)
    M = cp.bmat([[A.T @ P + P @ A + ALPHA * P, P @ B], [B.T @ P, corner]])
    constraints = [_negative(M), P - floor * np.eye(2) >> 0]
    if objective == "volume":
        return Conic(cp.Problem(cp.Maximize(cp.log_det(P)), constraints), (A, B), (P,))
    distance = cp.sum_squares(_svec(P) - y)
    return Conic(cp.Problem(cp.Minimize(distance), constraints), (A, B, y), (P,))


def conic_controller(objective: str, floor: float = 1e-3) -> Conic:
    """Second table: `objective` is `trace` (min tr Q) or `nearest`; `log det Q` to be minimized is not convex."""
    import cvxpy as cp

    A, B, G, y = cp.Parameter((2, 2)), cp.Parameter((2, 1)), cp.Parameter((2, 1)), cp.Parameter(5)
    Q, Y = cp.Variable((2, 2), symmetric=True), cp.Variable((1, 2))
    corner = -ALPHA * np.eye(1)
    top = A @ Q + Q @ A.T + B @ Y + Y.T @ B.T + ALPHA * Q
    constraints = [_negative(cp.bmat([[top, G], [G.T, corner]])), Q - floor * np.eye(2) >> 0]
    if objective == "trace":
        return Conic(cp.Problem(cp.Minimize(cp.trace(Q)), constraints), (A, B, G), (Q, Y))
    distance = cp.sum_squares(cp.hstack([_svec(Q), Y[0]]) - y)
    return Conic(cp.Problem(cp.Minimize(distance), constraints), (A, B, G, y), (Q, Y))


def _negative(M: Any) -> Any:
    return 0.5 * (M + M.T) << 0


def _svec(S: Any) -> Any:
    import cvxpy as cp

    return cp.hstack([S[0, 0], np.sqrt(2.0) * S[0, 1], S[1, 1]])


TIGHT = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12, "tol_infeas_rel": 1e-12}


def run_conic(
    make: Callable[[], Conic], data: tuple[np.ndarray, ...], solver: str, compiled: bool, **options: Any
) -> tuple[np.ndarray, np.ndarray, float]:
    """Decisions `(count, m)`, objectives, CPU milliseconds a sample; `compiled=False` builds every problem again."""
    conic = make()
    conic.solve(*(d[0] for d in data), solver=solver, **options)  # compile outside of the clock
    values, objectives = [], []
    start = time.process_time()
    for row in zip(*data, strict=True):
        problem = conic if compiled else make()
        value, objective, _ = problem.solve(*row, solver=solver, **options)
        values.append(value)
        objectives.append(objective)
    milliseconds = 1e3 * (time.process_time() - start) / len(values)
    return np.stack(values), np.array(objectives), milliseconds


@functools.lru_cache(maxsize=8)
def best_volume(name: str, count: int, seed: int) -> np.ndarray:
    """Largest `log det P` of every system of a test set `(count,)`, by Clarabel."""
    A, B = (t.numpy() for t in stable_systems(name, count, seed))
    return run_conic(lambda: conic_ellipsoid("volume"), (A, B), "CLARABEL", True)[1]


def timed(function: Callable[[], Any], repeats: int = 3) -> tuple[Any, float]:
    """Result and least CPU milliseconds."""
    times, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        times.append(1e3 * (time.process_time() - start))
    return result, min(times)


def published(columns: tuple[str, ...], values: tuple[float, ...]) -> Mapping[str, Published]:
    """Published numbers by column."""
    return {column: Published(value) for column, value in zip(columns, values, strict=True)}
