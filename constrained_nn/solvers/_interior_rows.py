"""Primal-dual interior-point path of one Euclidean projection onto rows and bounds, in NumPy.

`min ½|x − y|²` subject to `A x = s`, `lower <= (x, s) <= upper`: the bounds on `x` and `s` are kept strictly,
the rows are met on the way. Every step solves one system of the size of the rows.

References:
    Mehrotra, On the implementation of a primal-dual interior point method, SIAM J. Optim. 2 (1992).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from constrained_nn.solvers._row_matrix import Array, RowMatrix

# Share of the way to the boundary that a step takes at most.
_BACK = 0.995


@dataclass
class Pairs:
    """Finite bounds on `v = (x, s)` as a list: `gap = sign (v[index] − bound) > 0`, one multiplier each."""

    index: np.ndarray
    sign: Array
    bound: Array
    size: int

    @classmethod
    def of(cls, lower: Array, upper: Array) -> Pairs:
        """Those of `lower <= v <= upper`; where both are equal, there are none."""
        free = lower < upper
        low, up = np.flatnonzero(free & np.isfinite(lower)), np.flatnonzero(free & np.isfinite(upper))
        sign = np.concatenate([np.ones(low.size), -np.ones(up.size)])
        return cls(np.concatenate([low, up]), sign, np.concatenate([lower[low], upper[up]]), lower.size)

    def gap(self, v: Array) -> Array:
        return self.sign * (v[self.index] - self.bound)

    def sum(self, weight: Array) -> Array:
        """Sum of the weights of each component of `v`."""
        return np.bincount(self.index, weight, self.size)


@dataclass
class Iterate:
    """A point on the path.

    Args:
        v: `(x, s)`, strictly inside its bounds `(n + m,)`.
        weight: Multipliers of the rows `(m,)`.
        z: Multipliers of the finite bounds, positive.
        gap: Distances to the finite bounds, positive.
        pairs: The finite bounds.
        n: Components of `x`.
        distance: `|x − y|`.
    """

    v: Array
    weight: Array
    z: Array
    gap: Array
    pairs: Pairs
    n: int
    distance: float

    @property
    def complementarity(self) -> float:
        """`Σ gap z`, which bounds half the squared distance to the projection once the rows hold."""
        return float(self.gap @ self.z)


def central_path(
    y: Array, rows: RowMatrix, lower: Array, upper: Array, *, soft: float = 0.0, max_steps: int = 60
) -> Iterator[Iterate]:
    """Iterates towards the projection of `y (n,)`; it ends when a step is no longer possible.

    Args:
        lower: Bounds of `(x, A x)` for the unit rows `(n + m,)`; `upper` likewise, `lower <= upper`.
        soft: `A x = s` may be missed at a cost of `|A x − s|² / 2 soft`.
    """
    n = y.size
    pairs = Pairs.of(lower, upper)
    still = lower == upper  # fixed components of the point, and equality rows
    moving = ~still[:n]
    v, z = _start(y, rows, lower, upper, pairs, still, soft)
    weight, gap = np.zeros(rows.shape[0]), pairs.gap(v)
    pull = y - v[:n]  # less the rows' share
    for _ in range(max_steps):
        missing = v[n:] + soft * weight - rows.A @ v[:n]
        theta = pairs.sum(z / gap)
        D = moving / (1.0 + theta[:n])
        E = np.where(still[n:], 0.0, 1.0 / np.maximum(theta[n:], 1e-20))
        solve = rows.factor(D, E + soft)
        if solve is None:
            return
        toward = rows.A @ (D * pull) - E * weight - missing

        def direction(h: Array, wanted: Array | float, toward=toward, solve=solve, D=D, E=E, gap=gap):
            """Newton step towards `gap z = wanted`, with `h` its force on `v`."""
            d = solve(toward + rows.A @ (D * h[:n]) - E * h[n:])
            share = rows.At @ d
            dv = np.concatenate([D * (pull + h[:n] - share), E * (weight + d + h[n:])])
            dgap = pairs.sign * dv[pairs.index]
            return dv, d, share, dgap, (wanted - z * dgap) / gap - z

        _, _, _, dgap, dz = direction(np.zeros(v.size), 0.0)
        a = _length(gap, dgap, z, dz)
        total, ahead = float(gap @ z), float((gap + a * dgap) @ (z + a * dz))
        mean = (ahead / total) ** 3 * total / z.size if total > 0 else 0.0
        wanted = mean - dgap * dz
        dv, d, share, dgap, dz = direction(pairs.sum(pairs.sign * (wanted / gap)), wanted)
        a = min(1.0, _BACK * _length(gap, dgap, z, dz, limit=2.0))
        v, weight, z, pull = v + a * dv, weight + a * d, z + a * dz, pull - a * (dv[:n] + share)
        if not np.isfinite(v.sum() + weight.sum() + z.sum()):
            return
        gap = pairs.gap(v)
        yield Iterate(v, weight, z, gap, pairs, n, float(np.linalg.norm(v[:n] - y)))


def _length(gap: Array, dgap: Array, z: Array, dz: Array, limit: float = 1.0) -> float:
    """Longest step, up to `limit`, that keeps gaps and multipliers non-negative."""
    fastest = max((-dgap / gap).max(initial=0.0), (-dz / z).max(initial=0.0))
    return limit if fastest * limit <= 1.0 else 1.0 / fastest


def _start(y, rows: RowMatrix, lower, upper, pairs: Pairs, still, soft: float) -> tuple[Array, Array]:
    """The least-squares correction of `y` onto the rows, pushed inside the bounds; multipliers of its size."""
    n = y.size
    moving = (~still[:n]).astype(float)
    point = np.where(still[:n], lower[:n], y)
    value = rows.A @ point
    solve = rows.factor(moving, np.where(still[n:], 0.0, 1.0) + soft)
    weight = solve(value - np.clip(value, lower[n:], upper[n:])) if solve is not None else np.zeros(value.size)
    x = point - moving * (rows.At @ weight)
    v = np.concatenate([x, rows.A @ x])
    outside = np.abs(x - np.clip(x, lower[:n], upper[:n])).max(initial=0.0)
    size = max(
        outside, np.abs(weight).max(initial=0.0), np.abs(x - point).max(initial=0.0), 1e-3 * np.abs(y).max()
    )
    size = max(size, 1e-150)
    with np.errstate(invalid="ignore"):
        room = np.where(np.isfinite(upper - lower), np.minimum(size, 0.25 * (upper - lower)), size)
    v = np.where(still, lower, np.clip(v, lower + room, upper - room))
    return v, np.full(pairs.index.size, size)
