"""Time stepping of `∂v/∂t = L v + N(v)` with a diagonal stiff part `L`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = Any


class Stepper(Protocol):
    """One step with constants that depend on the symbol of `L` and on `dt` only."""

    def coefficients(self, symbol: np.ndarray, dt: float) -> tuple[np.ndarray, ...]: ...

    def step(
        self, coefficients: tuple[Array, ...], nonlinear: Callable[[Array], Array], v: Array
    ) -> Array: ...


@dataclass(frozen=True)
class ETDRK4:
    """Exponential Runge-Kutta method of order 4 that integrates `L` exactly.

    `a = e^{hL/2} v + φ N(v)`, `b = e^{hL/2} v + φ N(a)`, `c = e^{hL/2} a + φ (2 N(b) − N(v))`,
    `v⁺ = e^{hL} v + f₁ N(v) + 2 f₂ (N(a) + N(b)) + f₃ N(c)`.

    With `z = hL`: `φ = h (e^{z/2} − 1)/z`, `f₁ = h (−4 − z + e^z (4 − 3z + z²))/z³`, `f₂ = h (2 + z + e^z (z − 2))/z³`,
    `f₃ = h (−4 − 3z − z² + e^z (4 − z))/z³`. Near `z = 0` these lose all digits by cancellation; they are the means
    of their values on a circle of radius 1 around `z`.

    Args:
        contour_points: Points on the upper half of the circle.

    References:
        Cox and Matthews, Exponential time differencing for stiff systems (2002), eqs. (26)-(29).
        Kassam and Trefethen, Fourth-order time-stepping for stiff PDEs (2005), sections 2 and 3.
    """

    contour_points: int = 32

    def coefficients(self, symbol: np.ndarray, dt: float) -> tuple[np.ndarray, ...]:
        h, z = dt, dt * symbol
        angle = np.pi * (np.arange(self.contour_points) + 0.5) / self.contour_points
        s = z[..., None] + np.exp(1j * angle)
        e = np.exp(s)
        phi = (np.exp(0.5 * s) - 1.0) / s
        f1 = (-4.0 - s + e * (4.0 - 3.0 * s + s**2)) / s**3
        f2 = 2.0 * (2.0 + s + e * (s - 2.0)) / s**3
        f3 = (-4.0 - 3.0 * s - s**2 + e * (4.0 - s)) / s**3
        return (np.exp(z), np.exp(0.5 * z), *(h * f.mean(-1).real for f in (phi, f1, f2, f3)))

    def step(self, coefficients: tuple[Array, ...], nonlinear: Callable[[Array], Array], v: Array) -> Array:
        whole, half, phi, f1, f2, f3 = coefficients
        start = nonlinear(v)
        decayed = half * v
        a = decayed + phi * start
        at_a = nonlinear(a)
        at_b = nonlinear(decayed + phi * at_a)
        at_c = nonlinear(half * a + phi * (2.0 * at_b - start))
        return whole * v + f1 * start + f2 * (at_a + at_b) + f3 * at_c


@dataclass(frozen=True)
class CrankNicolsonHeun:
    """Crank-Nicolson for `L`, Heun for `N`, order 2.

    `(1 − hL/2) v̂ = (1 + hL/2) v + h N(v)`, `(1 − hL/2) v⁺ = (1 + hL/2) v + h/2 (N(v) + N(v̂))`.
    """

    def coefficients(self, symbol: np.ndarray, dt: float) -> tuple[np.ndarray, ...]:
        implicit = 1.0 / (1.0 - 0.5 * dt * symbol)
        return implicit * (1.0 + 0.5 * dt * symbol), dt * implicit

    def step(self, coefficients: tuple[Array, ...], nonlinear: Callable[[Array], Array], v: Array) -> Array:
        linear, weight = coefficients
        start, decayed = nonlinear(v), linear * v
        return decayed + 0.5 * weight * (start + nonlinear(decayed + weight * start))
