"""Van der Pol oscillator with an input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, ControlAffine, Quantity, circle


@dataclass(frozen=True)
class VanDerPol(ControlAffine):
    """Oscillator whose damping is negative near rest and positive far from it.

    `x1' = x2`, `x2' = μ (1 − x1²) x2 − x1 + u + w`.

    Guarantee: without input the origin is unstable, and every other state tends to one limit cycle.

    Args:
        damping: `μ` [1/s], a float or `(*batch)`.

    Example:
        >>> import numpy as np
        >>> VanDerPol().derivative(0.0, np.array([2.0, 1.0]), np.array([0.5]))
        array([ 1. , -4.5])

    References:
        Khalil, Nonlinear Systems (2002), Example 2.6.
    """

    damping: Array = 1.0

    state: ClassVar = (Quantity("x1", "1"), Quantity("x2", "1/s"))
    input: ClassVar = (Quantity("u", "1/s^2"),)
    disturbance: ClassVar = (Quantity("w", "1/s^2"),)

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        push = u[..., 0] if w is None else u[..., 0] + w[..., 0]
        return stack([x[..., 1], self._own(x) + push], xp)

    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        own = self._own(x)
        return stack([x[..., 1], own if w is None else own + w[..., 0]], xp)

    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        zero = xp.zeros_like(x[..., 0])
        return stack([zero, zero + 1.0], xp)[..., None]

    def _own(self, x: Array) -> Array:
        return self.damping * (1.0 - x[..., 0] ** 2) * x[..., 1] - x[..., 0]

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        return [np.array([[0.0, 0.0], x]), circle(x, 0.08)]
