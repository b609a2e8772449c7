"""Unicycle driven by its speeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, ControlAffine, Quantity, arrow, matrix


@dataclass(frozen=True)
class KinematicUnicycle(ControlAffine):
    """Velocity-controlled unicycle.

    `px' = v cos θ, py' = v sin θ, θ' = ω` with input `(v, ω)`.

    Guarantee: driftless; no parameters, no disturbance.

    Example:
        >>> import numpy as np
        >>> KinematicUnicycle().derivative(0.0, np.zeros(3), np.array([2.0, 0.5]))
        array([2. , 0. , 0.5])

    References:
        HardNet++ (arXiv 2604.19669), the task with an obstacle.
    """

    state: ClassVar = (Quantity("px", "m"), Quantity("py", "m"), Quantity("theta", "rad", angle=True))
    input: ClassVar = (Quantity("v", "m/s"), Quantity("omega", "rad/s"))

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        theta, v = x[..., 2], u[..., 0]
        return stack([v * xp.cos(theta), v * xp.sin(theta), u[..., 1]], xp)

    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        return (xp or namespace(x)).zeros_like(x)

    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        theta = x[..., 2]
        return matrix([[xp.cos(theta), 0.0], [xp.sin(theta), 0.0], [0.0, 1.0]], theta, xp)

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        return [arrow(x[:2], x[2], 0.25)]
