"""References: what a controller tracks, with its derivatives in closed form.

A reference is a function of time with values `(*batch, k + 1, p)`: row `i` holds the i-th time derivative of `p`
coordinates. `Reference.table` evaluates it once at all times that a fixed-step simulation visits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, factorial, pi
from typing import Any

import numpy as np

Array = Any


class Reference(ABC):
    """A smooth signal and its derivatives.

    Attributes:
        order: Highest derivative `k` in its values.
    """

    order: int

    @abstractmethod
    def sample(self, times: np.ndarray) -> np.ndarray:
        """Values at times `(T,)` [s]: `(T, *batch, order + 1, p)`."""

    def __call__(self, t: float) -> np.ndarray:
        """Value at one time: `(*batch, order + 1, p)`."""
        return self.sample(np.array([t]))[0]

    def table(self, dt: float, horizon: int, *, stages: int = 1, t0: float = 0.0) -> ReferenceTable:
        """All values at `t0 + i dt / stages`: `stages = 2` holds what classical Runge-Kutta steps need."""
        step = dt / stages
        return ReferenceTable(self.sample(t0 + step * np.arange(horizon * stages + 1)), step, t0)


@dataclass(frozen=True, eq=False)
class ReferenceTable:
    """A reference at equidistant times, as an array that a simulation looks up.

    Args:
        values: `(T, *batch, order + 1, p)`, NumPy or torch.
        step: Time between two entries [s].
        t0: Time of the first entry [s].

    Raises:
        ValueError: `reference(t)` for a time that is not in the table.
    """

    values: Array
    step: float
    t0: float = 0.0

    def __call__(self, t: float) -> Array:
        place = (t - self.t0) / self.step
        index = round(place)
        if not (0 <= index < len(self.values) and abs(place - index) < 1e-6):
            raise ValueError(
                f"ReferenceTable: expected a time t = {self.t0:g} + i {self.step:g} of the table, "
                f"i < {len(self.values)}, got {t:g}. Make it with `reference.table(dt, horizon, stages=...)`."
            )
        return self.values[index]

    def to(self, like: Any) -> ReferenceTable:
        """The same table as a torch tensor of the dtype and device of `like`."""
        import torch

        values = torch.as_tensor(self.values, dtype=like.dtype, device=like.device)
        return ReferenceTable(values.contiguous(), self.step, self.t0)


@dataclass(frozen=True, eq=False)
class Spline(Reference):
    """A piecewise polynomial through knots.

    Before the first and after the last knot it stands still.

    Args:
        times: Times of the knots `(*batch, K + 1)` [s], increasing.
        coefficients: `(*batch, K, p, c)`: coordinate = `Σ_j coefficients[..., j] s^j`, `s` = share of the piece in
            [0, 1].
        order: Highest derivative in the values.
        limits: For each coordinate the largest size `(p,)`; beyond it the value is cut off and the derivatives are
            zero. None: no limit.
    """

    times: np.ndarray
    coefficients: np.ndarray
    order: int = 2
    limits: tuple[float, ...] | None = None

    def sample(self, times: np.ndarray) -> np.ndarray:
        inner = self.times[..., 1:-1]
        clipped = np.clip(times, self.times[..., :1], self.times[..., -1:])  # (*batch, T)
        piece = (clipped[..., None] >= inner[..., None, :]).sum(-1)
        start = np.take_along_axis(self.times, piece, -1)
        length = np.take_along_axis(self.times, piece + 1, -1) - start
        share = ((clipped - start) / length)[..., None]
        c = np.take_along_axis(self.coefficients, piece[..., None, None], -3)  # (*batch, T, p, c)
        outside = ((times < self.times[..., :1]) | (times > self.times[..., -1:]))[..., None]
        rows = []
        for k in range(self.order + 1):
            value = np.zeros(c.shape[:-1])
            for j in reversed(range(c.shape[-1])):
                value = value * share + c[..., j]
            value = value / length[..., None] ** k
            rows.append(np.where(outside, 0.0, value) if k else value)
            c = c[..., 1:] * np.arange(1, c.shape[-1])
        values = np.stack(rows, -2)  # (*batch, T, order + 1, p)
        if self.limits is not None:
            limit = np.asarray(self.limits)
            cut = abs(values[..., :1, :]) > limit
            position = np.clip(values[..., :1, :], -limit, limit)
            values = np.concatenate([position, np.where(cut, 0.0, values[..., 1:, :])], -2)
        return np.moveaxis(values, -3, 0)


def minimum_derivative_spline(
    times: np.ndarray,
    knots: np.ndarray,
    derivatives: Sequence[int],
    *,
    order: int = 2,
    limits: Sequence[float] | None = None,
) -> Spline:
    """The curve through knots that minimizes `∫ |d-th derivative|² dt`, at rest at both ends.

    The minimizer has degree `2d − 1`, so that each piece is fixed by value and `d − 1` derivatives at its two ends;
    those at the inner knots solve one small symmetric system for each coordinate.

    Args:
        times: Times of the knots `(*batch, K + 1)` [s], increasing.
        knots: `(*batch, K + 1, p)`.
        derivatives: `d` of each coordinate, `(p,)`; derivatives 1 to `d − 1` vanish at both ends.
        order: Highest derivative in the values of the spline.
        limits: See `Spline`.

    Raises:
        ValueError: Times do not increase, or the shapes do not fit.
    """
    times, knots = np.asarray(times, dtype=float), np.asarray(knots, dtype=float)
    if knots.shape[:-1] != times.shape or knots.shape[-1] != len(derivatives) or times.shape[-1] < 2:
        raise ValueError(
            f"minimum_derivative_spline: expected times (*batch, K + 1), knots (*batch, K + 1, p) and p = "
            f"{len(derivatives)} derivatives, got {times.shape} and {knots.shape}. At least two knots are needed."
        )
    if not (np.diff(times) > 0).all():
        raise ValueError(
            "minimum_derivative_spline: expected increasing times, got equal or falling ones. Drop knots that "
            "coincide."
        )
    width = 2 * max(derivatives)
    parts = []
    for i, d in enumerate(derivatives):
        c = _minimum(times, knots[..., i], d)
        parts.append(np.concatenate([c, np.zeros((*c.shape[:-1], width - 2 * d))], -1))
    return Spline(times, np.stack(parts, -2), order, None if limits is None else tuple(limits))


def _minimum(times: np.ndarray, knots: np.ndarray, d: int) -> np.ndarray:
    """Coefficients `(*batch, K, 2d)` of one coordinate."""
    length = np.diff(times)
    batch, pieces = length.shape[:-1], length.shape[-1]
    to_coefficients = _hermite(d)
    cost = to_coefficients.T @ _integrals(d) @ to_coefficients  # of end values in units of the piece
    # unknowns: derivatives 0..d-1 at every knot; all but the inner derivatives are known
    values = np.zeros((*batch, pieces + 1, d))
    values[..., 0] = knots
    powers = length[..., None] ** np.arange(d)
    scale = np.concatenate([powers, powers], -1)
    if d > 1 and pieces > 1:
        full = np.zeros((*batch, (pieces + 1) * d, (pieces + 1) * d))
        for k in range(pieces):
            block = cost * scale[..., k, :, None] * scale[..., k, None, :]
            part = slice(k * d, (k + 2) * d)
            full[..., part, part] += block * (length[..., k] ** (1 - 2 * d))[..., None, None]
        free = np.array([k * d + j for k in range(1, pieces) for j in range(1, d)])
        known = np.setdiff1d(np.arange((pieces + 1) * d), free)
        flat = values.reshape(*batch, -1)
        right = -(full[..., free[:, None], known] @ flat[..., known, None])
        flat[..., free] = np.linalg.solve(full[..., free[:, None], free], right)[..., 0]
        values = flat.reshape(*batch, pieces + 1, d)
    ends = np.concatenate([values[..., :-1, :], values[..., 1:, :]], -1) * scale
    return ends @ to_coefficients.T


def _hermite(d: int) -> np.ndarray:
    """Coefficients `(2d,)` of the polynomial on [0, 1] from its derivatives 0..d−1 at both ends."""
    conditions = np.zeros((2 * d, 2 * d))
    for k in range(d):
        conditions[k, k] = factorial(k)
        for j in range(k, 2 * d):
            conditions[d + k, j] = factorial(j) / factorial(j - k)
    return np.linalg.inv(conditions)


def _integrals(d: int) -> np.ndarray:
    """`∫_0^1 p^(d) q^(d) ds` of monomials."""
    n = 2 * d
    table = np.zeros((n, n))
    for i in range(d, n):
        for j in range(d, n):
            product = comb(i, d) * factorial(d) * comb(j, d) * factorial(d)
            table[i, j] = product / (i + j - 2 * d + 1)
    return table


def random_walk(
    seed: int, count: int, steps: Sequence[float], *, pieces: int = 5, limits: Sequence[float] | None = None
) -> np.ndarray:
    """Knots `(count, pieces + 1, p)`: from the origin, uniform steps of up to `steps` `(p,)`, cut off at `limits`.

    Row i comes from the generator with key (seed, i), whatever `count` is.
    """
    size = np.asarray(steps, dtype=float)
    rows = []
    for i in range(count):
        rng = np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, i], dtype=np.uint64)))
        rows.append(size * (2.0 * rng.random((pieces, len(size))) - 1.0))
    knots = np.cumsum(np.array(rows).reshape(count, pieces, len(size)), 1)
    if limits is not None:
        knots = np.clip(knots, -np.asarray(limits), np.asarray(limits))
    return np.concatenate([np.zeros((count, 1, len(size))), knots], 1)


def proportional_times(knots: np.ndarray, duration: float) -> np.ndarray:
    """Times `(*batch, K + 1)` from 0 to `duration` [s] in proportion to the distance between knots."""
    distance = np.maximum(np.linalg.norm(np.diff(knots, axis=-2), axis=-1), 1e-9)
    ends = np.cumsum(distance, -1)
    times = duration * ends / ends[..., -1:]
    return np.concatenate([np.zeros_like(times[..., :1]), times], -1)


@dataclass(frozen=True)
class Loops(Reference):
    """Loops that move along: `x = a sin(2πt/T) + v t`, `y = b (1 − cos(2πt/T))`, and a roll of a parabola if asked for.

    Args:
        width, height: `a` and `b` [m].
        period: `T` [s].
        speed: `v` [m/s].
        roll: Third coordinate `4 roll (t/T)(1 − t/T)` [rad], or None for two coordinates.
        order: Highest derivative in the values.
    """

    width: float = 2.0
    height: float = 3.0
    period: float = 10.0
    speed: float = 0.4
    roll: float | None = None
    order: int = 2

    def sample(self, times: np.ndarray) -> np.ndarray:
        rate = 2.0 * pi / self.period
        share = times / self.period
        rows = []
        for k in range(self.order + 1):
            phase = rate * times + 0.5 * pi * k
            x = self.width * rate**k * np.sin(phase) + self.speed * (times, 1.0, 0.0)[min(k, 2)]
            y = (self.height if k == 0 else 0.0) - self.height * rate**k * np.cos(phase)
            row = [x + 0.0 * times, y]
            if self.roll is not None:
                parabola = (share * (1 - share), (1 - 2 * share) / self.period, -2.0 / self.period**2, 0.0)
                row.append(4.0 * self.roll * parabola[min(k, 3)] + 0.0 * times)
            rows.append(np.stack(row, -1))
        return np.stack(rows, -2)
