"""Kuramoto-Sivashinsky equation."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np

from control_envs.arrays import namespace
from control_envs.flows.base import Array, Flow
from control_envs.flows.random_fields import gaussian_field


@dataclass(frozen=True)
class KuramotoSivashinsky(Flow):
    """Flame fronts and thin films in one dimension: the simplest equation with chaos in space and time.

    `∂u/∂t = −u ∂u/∂x − ∂²u/∂x² − ∂⁴u/∂x⁴`, periodic in `x` with period `length`.

    Guarantee: the mean of `u` is constant, and `d/dt ½ ∫u² = ∫u_x² − ∫u_xx²` holds to rounding for the
    semi-discrete equation. Long waves grow, short waves decay, the nonlinear term carries energy from one to the other;
    solutions of mean zero stay bounded.

    Args:
        length: Period.
        points: Points of the grid.

    Example:
        >>> import numpy as np
        >>> flow = KuramotoSivashinsky(points=64)
        >>> start = flow.sample(np.random.default_rng(0), 3)
        >>> flow.trajectory(start, steps=20, dt=0.1, every=10).shape
        (3, 3, 64)

    References:
        Kassam and Trefethen, Fourth-order time-stepping for stiff PDEs (2005), where the period is 32π.
        Hyman and Nicolaenko, The Kuramoto-Sivashinsky equation: a bridge between PDEs and dynamical systems (1986).
    """

    length: float = 32.0 * pi
    points: int = 512

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.points,)

    @property
    def x(self) -> np.ndarray:
        """Grid `(points,)`."""
        return self.length / self.points * np.arange(self.points)

    @property
    def wavenumbers(self) -> np.ndarray:
        """`k = 2π j / length` of the kept modes `j = 0, 1, ..., ⌊(points − 1)/3⌋`."""
        return 2.0 * pi / self.length * np.arange((self.points - 1) // 3 + 1)

    def symbol(self) -> np.ndarray:
        k = self.wavenumbers
        return k**2 - k**4

    def tables(self) -> tuple[np.ndarray, ...]:
        return (-0.5j * self.wavenumbers,)

    def nonlinear(self, spectrum: Array, tables: tuple[Array, ...], xp: Any) -> Array:
        u = self.to_grid(spectrum, xp=xp)
        return tables[0] * self.to_spectrum(u * u, xp=xp)

    def to_spectrum(self, w: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(w)
        return xp.fft.rfft(w)[..., : (self.points - 1) // 3 + 1]

    def to_grid(self, spectrum: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(spectrum)
        return xp.fft.irfft(spectrum, self.points)

    def sample(
        self, rng: np.random.Generator, count: int, *, scale: float = 1.0, correlation_length: float = 3.0
    ) -> np.ndarray:
        """Gaussian random fields `(count, points)` of mean zero and standard deviation `scale`."""
        return gaussian_field(rng, count, self.shape, (self.length,), correlation_length, scale)
