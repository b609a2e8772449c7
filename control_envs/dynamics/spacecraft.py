"""Planar spacecraft whose center of mass is not where its thrusters act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, ControlAffine, Quantity, arrow, matrix


@dataclass(frozen=True)
class Spacecraft(ControlAffine):
    """Planar spacecraft with an offset center of mass, as published.

    `ω' = (M − ox Fy + oy Fx) / J`, `m vx' = Fx + ω' oy + ω² ox`, `m vy' = Fy − ω' ox + ω² oy`.

    Guarantee: exactly the published equations, in which the heading turns neither force nor offset, and the terms
    `ω' o` and `ω² o` stand beside forces although they lack the unit of a mass.

    Args:
        mass: `m` [kg], a float or `(*batch)`.
        inertia: `J` [kg m^2], a float or `(*batch)`.
        offset_x: `ox` [m], a float or `(*batch)`.
        offset_y: `oy` [m], a float or `(*batch)`.

    Example:
        >>> import numpy as np
        >>> Spacecraft().derivative(0.0, np.zeros(6), np.array([0.0, 0.0, 0.005])).round(6).tolist()
        [0.0, 0.0, 0.0, 0.2, -0.2, 1.0]

    References:
        Richards et al., Learning control-oriented dynamical structure from data (arXiv 2302.02529), the spacecraft.
    """

    mass: Array = 0.5
    inertia: Array = 0.005
    offset_x: Array = 0.1
    offset_y: Array = 0.1

    state: ClassVar = (
        Quantity("px", "m"),
        Quantity("py", "m"),
        Quantity("theta", "rad", angle=True),
        Quantity("vx", "m/s"),
        Quantity("vy", "m/s"),
        Quantity("omega", "rad/s"),
    )
    input: ClassVar = (Quantity("Fx", "N"), Quantity("Fy", "N"), Quantity("M", "N m"))

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        ox, oy, square = self.offset_x, self.offset_y, x[..., 5] ** 2
        turn = (u[..., 2] - ox * u[..., 1] + oy * u[..., 0]) / self.inertia
        ax = (u[..., 0] + turn * oy + square * ox) / self.mass
        ay = (u[..., 1] - turn * ox + square * oy) / self.mass
        return stack([x[..., 3], x[..., 4], x[..., 5], ax, ay, turn], xp)

    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        square = x[..., 5] ** 2 / self.mass
        ax, ay = square * self.offset_x, square * self.offset_y
        return stack([x[..., 3], x[..., 4], x[..., 5], ax, ay, xp.zeros_like(square)], xp)

    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        ox, oy, m, J = self.offset_x, self.offset_y, self.mass, self.inertia
        rows = [
            [0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0],
            [(1.0 + oy * oy / J) / m, -oy * ox / J / m, oy / J / m],
            [-ox * oy / J / m, (1.0 + ox * ox / J) / m, -ox / J / m],
            [oy / J, -ox / J, 1.0 / J],
        ]
        return matrix(rows, x[..., 0], xp)

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        return [arrow(x[:2], x[2], 0.12)]
