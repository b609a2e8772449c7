"""Independent answers: other algorithms, other libraries, one element at a time."""

from __future__ import annotations

import typing
from itertools import combinations

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

from constrained_nn.testing import element, is_shared, tensor_fields, tensor_of, with_tensors

__all__ = [
    "element",
    "is_shared",
    "tensor_fields",
    "tensor_of",
    "with_tensors",
]  # the same as those of the product


def numpy(t: Tensor) -> np.ndarray:
    return t.detach().numpy()


def nearest_point(y: np.ndarray, constraints: typing.Callable[[cp.Variable], list]) -> np.ndarray:
    """Euclidean projection by cvxpy's interior-point solver, to about 1e-8."""
    z = cp.Variable(y.shape[-1])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z - y)), constraints(z))
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    assert z.value is not None
    return z.value


def interval_rows(A: np.ndarray, lower: np.ndarray, upper: np.ndarray, z: cp.Variable) -> list:
    """`lower <= A z <= upper` for cvxpy, without its infinite sides."""
    below, above = np.isfinite(lower), np.isfinite(upper)
    out: list = []
    if below.any():
        out.append(A[below] @ z >= lower[below])
    if above.any():
        out.append(A[above] @ z <= upper[above])
    return out


def interval_violation(value: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """How far values are outside their bounds."""
    return max(0.0, float(np.max(lower - value)), float(np.max(value - upper)))


def nearest_in_polyhedron(y: np.ndarray, A: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Euclidean projection by trying every set of active rows with `lstsq`; to rounding, for a few rows."""
    sides = [(i, b) for i in range(len(A)) for b in {lower[i], upper[i]} if np.isfinite(b)]
    best, distance = None, np.inf
    for count in range(min(len(sides), y.size) + 1):
        for chosen in combinations(sides, count):
            index = [i for i, _ in chosen]
            if len(set(index)) < count:
                continue
            residual = np.array([b for _, b in chosen]) - A[index] @ y
            z = y + (np.linalg.lstsq(A[index], residual, rcond=1e-12)[0] if count else 0.0)
            slack = 1e-9 * (1.0 + np.abs(A) @ np.abs(z))
            if ((A @ z >= lower - slack) & (A @ z <= upper + slack)).all():
                gap = float(np.linalg.norm(z - y))
                if gap < distance:
                    best, distance = z, gap
    assert best is not None, "the set is empty"
    return best


def hardnet_affine(y: np.ndarray, A: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Proposition 6 as an optimization: of the feasible points with the nearest row values, the nearest one."""
    target = np.clip(A @ y, lower, upper)
    return y + np.linalg.lstsq(A, target - A @ y, rcond=None)[0]


def finite_difference(function, x: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of a vector function, one column for each input."""
    flat = x.detach().reshape(-1)
    columns = []
    for i in range(flat.numel()):
        change = torch.zeros_like(flat)
        change[i] = step
        plus = function((flat + change).reshape(x.shape)).detach()
        minus = function((flat - change).reshape(x.shape)).detach()
        columns.append(((plus - minus) / (2 * step)).reshape(-1))
    return torch.stack(columns, -1)


def neighbors(tensors: list[Tensor], step: float = 1e-6) -> list[Tensor]:
    """Tensors `(batch, *core)` with one entry moved in all elements at once: `(2 N, batch, *core)`.

    First up, for each of the `N` entries that an element has in all tensors, then down.
    """
    sizes = [t[0].numel() for t in tensors]
    moves = (step * torch.eye(sum(sizes), dtype=tensors[0].dtype)).split(sizes, 1)
    moved = [m.reshape(-1, 1, *t.shape[1:]) for m, t in zip(moves, tensors, strict=True)]
    return [torch.cat([t + m, t - m]) for t, m in zip(tensors, moved, strict=True)]


def differences(values: Tensor, tensors: list[Tensor], step: float = 1e-6) -> list[Tensor]:
    """Central differences `(batch, *core, *k)` of values `(2 N, batch, *k)` at `neighbors`."""
    up, down = values.detach().chunk(2)
    slopes = ((up - down) / (2.0 * step)).split([t[0].numel() for t in tensors])
    return [
        slope.movedim(0, 1).reshape(*t.shape, *values.shape[2:])
        for slope, t in zip(slopes, tensors, strict=True)
    ]


def blocks_by_difference(function, y: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences `(batch, k, n)` of a function whose elements `(batch, n)` do not see each other.

    One component of all elements moves at once. That they do not see each other is for others to show.
    """
    columns = []
    for j in range(y.shape[-1]):
        change = torch.zeros_like(y)
        change[..., j] = step
        columns.append((function(y + change) - function(y - change)).detach() / (2 * step))
    return torch.stack(columns, -1)


def blocks_by_autograd(function, y: Tensor) -> Tensor:
    """Derivatives `(batch, k, n)` of such a function, by one backward pass a component."""
    y = y.detach().requires_grad_()
    value = function(y)
    rows = [torch.autograd.grad(component.sum(), y, retain_graph=True)[0] for component in value.unbind(-1)]
    return torch.stack(rows, -2)


def dykstra(y: np.ndarray, projections: list[typing.Callable[[np.ndarray], np.ndarray]]) -> np.ndarray:
    """Euclidean projection onto an intersection by Dykstra's alternating corrections, run to stagnation."""
    x, corrections = y, [np.zeros_like(y) for _ in projections]
    for _ in range(20_000):
        before = x
        change = 0.0
        for i, project in enumerate(projections):
            z = x + corrections[i]
            x = project(z)
            change = max(change, float(np.abs(z - x - corrections[i]).max()))
            corrections[i] = z - x
        if change < 1e-15 and float(np.abs(x - before).max()) < 1e-15:
            break
    return x


def into_ball(center: np.ndarray, radius: float) -> typing.Callable[[np.ndarray], np.ndarray]:
    """Projection onto a Euclidean ball, in NumPy."""
    return lambda z: center + (z - center) * min(1.0, radius / max(float(np.linalg.norm(z - center)), 1e-300))


def into_rows(
    A: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> list[typing.Callable[[np.ndarray], np.ndarray]]:
    """Projections onto `lower <= a·z <= upper`, one for each row `a`, in NumPy."""
    return [
        lambda z, a=a, low=low, up=up: z + a * (np.clip(a @ z, low, up) - a @ z) / (a @ a)
        for a, low, up in zip(A, lower, upper, strict=True)
    ]
