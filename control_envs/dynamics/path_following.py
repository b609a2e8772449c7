"""Bicycle that follows a circular path at constant speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, Dynamics, Quantity, arrow, circle


@dataclass(frozen=True)
class PathFollowing(Dynamics):
    """Kinematic bicycle beside the circle of radius 1 that it shall follow.

    `d' = v sin θ`, `θ' = v tan(δ)/l − v cos θ/(ρ − d)`: the distance `d` from the path toward its center, and the
    angle `θ` between the bicycle and the path.

    Guarantee: `(0, 0)` is at rest for the steering angle `atan(l/ρ)` (`hold`), and for no other.

    Args:
        speed: `v` [m/s], a float or `(*batch)`.
        wheelbase: `l` [m], a float or `(*batch)`.
        radius: `ρ` of the path [m], a float or `(*batch)`.

    Example:
        >>> import numpy as np
        >>> plant = PathFollowing()
        >>> plant.derivative(0.0, np.zeros(2), np.array([plant.hold])).round(12).tolist()
        [0.0, 0.0]

    References:
        Chang, Roohi, Gao, Neural Lyapunov control (arXiv 2005.00611), path following; the last term of the published
        code lacks the factor `v`.
    """

    speed: Array = 6.0
    wheelbase: Array = 1.0
    radius: Array = 6.0

    state: ClassVar = (Quantity("d", "m"), Quantity("theta", "rad", angle=True))
    input: ClassVar = (Quantity("delta", "rad"),)

    @property
    def hold(self) -> Array:
        """Steering angle on the path [rad]."""
        return np.arctan2(self.wheelbase, self.radius)

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        d, theta = x[..., 0], x[..., 1]
        turn = self.speed * xp.tan(u[..., 0]) / self.wheelbase
        return stack([self.speed * xp.sin(theta), turn - self.speed * xp.cos(theta) / (self.radius - d)], xp)

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        radius = float(np.mean(self.radius))
        return [circle((0.0, 0.0), radius), arrow((radius - x[0], 0.0), 0.5 * np.pi + x[1], 0.1 * radius)]
