"""Projections onto rows and bounds one element at a time, where that is faster than the search of a whole batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from constrained_nn.solvers.polyhedron.large.exact_rows import ExactPoint, exact_point, least_violation_point
from constrained_nn.solvers.polyhedron.large.row_matrix import Array, RowMatrix

# Rows and bounds from which on an element may be solved alone; steps until it is given up.
_FROM, _STEPS = 48, 80
# The same for elements that are left over: from so many rows, for few elements or many rows.
_LEFT_FROM, _FEW, _MANY_ROWS = 24, 32, 150


class Each(NamedTuple):
    """Projections of a flat batch, without derivatives.

    Args:
        value: Points `(b, n)`; where a set is empty, the point that violates it least.
        multiplier: Of the rows as given, then of the bounds `(b, m)` or `(b, m + n)`.
        side: +1 for a row that is active at its upper bound, −1 at its lower, else 0; as `multiplier`.
        steps: Systems solved `(b,)`.
        exact: Whether the optimality conditions hold `(b,)`.
        empty: Whether a checked certificate proves that there is no point `(b,)`.
    """

    value: Tensor
    multiplier: Tensor
    side: Tensor
    steps: Tensor
    exact: Tensor
    empty: Tensor


def prefer_one_by_one(batch: int, m: int, n: int, *, box: bool, factored: bool, shared: bool) -> bool:
    """Whether all elements are sooner solved alone than by the search of the batch: measured milliseconds."""
    p, k = m + n if box else m, min(m, 2 * n)
    if p < _FROM:
        return False
    alone = 1.2 + 0.045 * k + k**3 / 5e6
    factor = 0.0 if factored else p * min(p, n) ** 2 / 3e6
    return batch * alone < 1.5 + (factor if shared else batch * factor) + batch * p**2 / 1e5


def prefer_alone_after_all(left: int, p: int) -> bool:
    """Whether elements that the search of the batch left over are sooner solved alone than by the sweep."""
    return p >= _LEFT_FROM and (left <= _FEW or p >= _MANY_ROWS)


def project_each(
    y: Tensor,
    A: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    box: bool,
    guess: Tensor | None = None,
    max_steps: int | None = None,
) -> Each:
    """Projection of `y (b, n)` onto `{lower <= A x <= upper}` for finite float64 data.

    Args:
        A: Rows `(m, n)`, or `(b, m, n)`.
        lower: Bounds of the rows, then of the point itself for `box`; `upper` likewise.
        guess: Multipliers of the rows and bounds to start with, or `None`.
    """
    points, matrices = y.detach().cpu().numpy(), A.detach().cpu().numpy()
    low, up = lower.detach().cpu().numpy(), upper.detach().cpu().numpy()
    hints = None if guess is None else guess.detach().cpu().numpy()
    m, n = A.shape[-2:]
    steps = _STEPS if max_steps is None else min(max_steps, _STEPS)
    shared = RowMatrix(matrices) if A.ndim == 2 else None
    found = []
    for i, point in enumerate(points):
        rows = shared if shared is not None else RowMatrix(matrices[i])
        hint = None if hints is None else hints[i][:m] * rows.norm
        below, above = _components_first(low[i], rows, n, -np.inf), _components_first(up[i], rows, n, np.inf)
        found.append(_project(point, rows, below, above, hint, steps))
        found[-1].weight[n:] /= rows.norm
    kept = slice(0, m + n if box else m)
    order = np.concatenate([np.arange(n, n + m), np.arange(n)])[kept]

    def column(name: str, dtype: torch.dtype) -> Tensor:
        values = np.asarray([getattr(f, name) for f in found])
        return torch.from_numpy(values).to(device=y.device, dtype=dtype)

    return Each(
        column("x", torch.float64),
        column("weight", torch.float64)[:, order],
        column("side", torch.float64)[:, order],
        column("steps", torch.long),
        column("exact", torch.bool),
        column("empty", torch.bool),
    )


def _components_first(side: Array, rows: RowMatrix, n: int, free: float) -> Array:
    """Bounds `(n + m,)` of the point and of the unit rows; a zero row has none."""
    m = rows.shape[0]
    own = side[m:] if side.size > m else np.full(n, free)
    return np.concatenate([own, side[:m] / rows.norm])


def _project(
    y: Array, rows: RowMatrix, lower: Array, upper: Array, hint: Array | None, max_steps: int
) -> ExactPoint:
    """One projection, or the point of least violation of a set that is proved empty."""
    n = y.size
    zero = np.concatenate([np.zeros(n, dtype=bool), rows.zero])
    hopeless = (lower > upper) | (zero & ((lower > 0) | (upper < 0)))
    if hopeless.any():
        point = ExactPoint(y, np.zeros(lower.size), np.zeros(lower.size), empty=True)
    else:
        low, up = np.where(zero, -np.inf, lower), np.where(zero, np.inf, upper)
        with np.errstate(all="ignore"):
            point = exact_point(y, rows, low, up, max_steps, hint)
    if point.empty:
        point.x = least_violation_point(y, rows, lower, upper)
        point.side = np.zeros(lower.size)
        point.weight = np.zeros(lower.size)
    return point
