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
from numpy.typing import NDArray

from constrained_nn.solvers.polyhedron.large.row_matrix import Array, RowMatrix, Solve

# Share of the way to the boundary that a step takes at most.
_BACK = 0.995
# Resistance of a row whose bounds are far away, and the least size of a start.
_LOOSE, _LEAST = 1e-20, 1e-150


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
        return np.bincount(self.index, weight, self.size).astype(np.float64, copy=False)


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


@dataclass
class _Newton:
    """Newton's equations at an iterate, factored.

    Args:
        at: The iterate.
        pull: `y − x − Aᵀ weight` `(n,)`.
        toward: Right-hand side of the rows before any force of the bounds `(m,)`.
        D: Inverse of what a component resists `(n,)`, 0 where it is fixed.
        E: The same for the values of the rows `(m,)`, 0 for equalities.
        solve: Solves with `A D Aᵀ + E`.
    """

    rows: RowMatrix
    at: Iterate
    pull: Array
    toward: Array
    D: Array
    E: Array
    solve: Solve

    def direction(self, wanted: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Changes of `v`, `weight`, `Aᵀ weight`, `gap` and `z` on which `gap z` becomes `wanted` to first order."""
        at, D, E, n = self.at, self.D, self.E, self.at.n
        h = at.pairs.sum(at.pairs.sign * (wanted / at.gap))
        d = self.solve(self.toward + self.rows.A @ (D * h[:n]) - E * h[n:])
        share = self.rows.At @ d
        dv = np.concatenate([D * (self.pull + h[:n] - share), E * (at.weight + d + h[n:])])
        dgap = at.pairs.sign * dv[at.pairs.index]
        return dv, d, share, dgap, (wanted - at.z * dgap) / at.gap - at.z


def central_path(
    y: Array, rows: RowMatrix, lower: Array, upper: Array, *, max_steps: int
) -> Iterator[Iterate]:
    """Iterates towards the projection of `y (n,)`; it ends when a step is no longer possible.

    Args:
        lower: Bounds of `(x, A x)` for the unit rows `(n + m,)`; `upper` likewise, `lower <= upper`.
    """
    still = lower == upper  # fixed components of the point, and equality rows
    at = _start(y, rows, lower, upper, still)
    pull = y - at.v[: y.size] - rows.At @ at.weight
    for _ in range(max_steps):
        newton = _factor(at, rows, still, pull)
        if newton is None:
            return
        # Mehrotra's predictor shows how far the complementarity can go, the corrector goes there
        _, _, _, dgap, dz = newton.direction(np.zeros(at.z.size))
        a = _length(at.gap, dgap, at.z, dz)
        total, ahead = float(at.gap @ at.z), float((at.gap + a * dgap) @ (at.z + a * dz))
        mean = (ahead / total) ** 3 * total / at.z.size if total > 0 else 0.0
        dv, d, share, dgap, dz = newton.direction(mean - dgap * dz)
        a = min(1.0, _BACK * _length(at.gap, dgap, at.z, dz, limit=2.0))
        v, weight, z = at.v + a * dv, at.weight + a * d, at.z + a * dz
        if not np.isfinite(v.sum() + weight.sum() + z.sum()):
            return
        pull = pull - a * (dv[: y.size] + share)
        distance = float(np.linalg.norm(v[: y.size] - y))
        at = Iterate(v, weight, z, at.pairs.gap(v), at.pairs, y.size, distance)
        yield at


def _factor(at: Iterate, rows: RowMatrix, still: NDArray[np.bool_], pull: Array) -> _Newton | None:
    """Newton's equations, or `None` where they have no factor."""
    n = at.n
    theta = at.pairs.sum(at.z / at.gap)
    D = np.where(still[:n], 0.0, 1.0 / (1.0 + theta[:n]))
    E = np.where(still[n:], 0.0, 1.0 / np.maximum(theta[n:], _LOOSE))
    solve = rows.factor(D, E)
    if solve is None:
        return None
    missing = at.v[n:] - rows.A @ at.v[:n]
    return _Newton(rows, at, pull, rows.A @ (D * pull) - E * at.weight - missing, D, E, solve)


def _length(gap: Array, dgap: Array, z: Array, dz: Array, limit: float = 1.0) -> float:
    """Longest step, up to `limit`, that keeps gaps and multipliers non-negative."""
    fastest = max((-dgap / gap).max(initial=0.0), (-dz / z).max(initial=0.0))
    return limit if fastest * limit <= 1.0 else 1.0 / fastest


def _start(y: Array, rows: RowMatrix, lower: Array, upper: Array, still: NDArray[np.bool_]) -> Iterate:
    """The least-squares correction of `y` onto the rows, pushed inside the bounds; multipliers of its size."""
    n = y.size
    point = np.where(still[:n], lower[:n], y)
    value = rows.A @ point
    solve = rows.factor((~still[:n]).astype(float), (~still[n:]).astype(float))
    miss = value - np.clip(value, lower[n:], upper[n:])
    weight = miss if solve is None else solve(miss)
    x = np.where(still[:n], point, point - rows.At @ weight)
    outside = np.abs(x - np.clip(x, lower[:n], upper[:n]))
    lengths = [outside, np.abs(weight), np.abs(x - point), 1e-3 * np.abs(y)]
    size = max(_LEAST, *(float(length.max(initial=0.0)) for length in lengths))
    room = np.minimum(size, 0.25 * (upper - lower))
    v = np.clip(np.concatenate([x, rows.A @ x]), lower + room, upper - room)
    v = np.where(still, lower, v)
    pairs = Pairs.of(lower, upper)
    z = np.full(pairs.index.size, size)
    return Iterate(v, np.zeros(value.size), z, pairs.gap(v), pairs, n, float(np.linalg.norm(v[:n] - y)))
