"""Kinematic car."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, ControlAffine, Quantity, matrix, placed, rectangle


@dataclass(frozen=True)
class Car(ControlAffine):
    """Kinematic single-track car, reference point at the rear axle.

    `px' = v cos θ, py' = v sin θ, θ' = v tan δ / L, v' = a, δ' = r` with input `(a, r)`.

    Guarantee: the wheels roll without slip; meant for `|δ| < π/2`.

    Args:
        wheelbase: `L` [m], a float or `(*batch)`.

    Example:
        >>> import numpy as np
        >>> Car().derivative(0.0, np.array([0.0, 0.0, 0.0, 1.0, 0.0]), np.array([2.0, 0.1]))
        array([1. , 0. , 0. , 2. , 0.1])

    References:
        LaValle, Planning Algorithms (2006), Eq. 13.15.
    """

    wheelbase: Array = 2.5

    state: ClassVar = (
        Quantity("px", "m"),
        Quantity("py", "m"),
        Quantity("theta", "rad", angle=True),
        Quantity("v", "m/s"),
        Quantity("delta", "rad"),
    )
    input: ClassVar = (Quantity("a", "m/s^2"), Quantity("r", "rad/s"))

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        return stack([*self._rolling(x, xp), u[..., 0], u[..., 1]], xp)

    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        zero = xp.zeros_like(x[..., 0])
        return stack([*self._rolling(x, xp), zero, zero], xp)

    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        rows = [[0.0, 0.0]] * 3 + [[1.0, 0.0], [0.0, 1.0]]
        return matrix(rows, x[..., 0], xp)

    def _rolling(self, x: Array, xp: Any) -> tuple[Array, Array, Array]:
        theta, v, delta = x[..., 2], x[..., 3], x[..., 4]
        return v * xp.cos(theta), v * xp.sin(theta), v * xp.tan(delta) / self.wheelbase

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        length = float(np.mean(self.wheelbase))
        body = rectangle((0.5 * length, 0.0), 0.0, 1.5 * length, 0.7 * length)
        front = np.array([length, 0.0])
        wheel = placed(0.2 * length * np.array([[-1, 0], [1, 0]]), front, x[4])
        return [placed(body, x[:2], x[2]), placed(wheel, x[:2], x[2])]
