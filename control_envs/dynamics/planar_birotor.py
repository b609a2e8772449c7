"""Planar aircraft on two rotors, its velocity in body axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, ControlAffine, Quantity, matrix
from control_envs.dynamics.planar_rotorcraft import rotorcraft_outline


@dataclass(frozen=True)
class PlanarBirotor(ControlAffine):
    """Planar aircraft on two rotors whose velocity is that along its own axes.

    `px' = v cos φ − w sin φ`, `py' = v sin φ + w cos φ`, `v' = w φ' − g sin φ`,
    `w' = −v φ' − g cos φ + (u1 + u2)/m`, `φ'' = L (u1 − u2)/J`.

    Guarantee: the input matrix is constant, and nothing but the output depends on the position.

    Args:
        mass: `m` [kg], a float or `(*batch)`.
        arm: `L`, from the center to a rotor [m], a float or `(*batch)`.
        inertia: `J` [kg m^2], a float or `(*batch)`.
        gravity: Gravitational acceleration [m/s^2].

    Example:
        >>> import numpy as np
        >>> (PlanarBirotor().derivative(0.0, np.zeros(6), np.array([2.4625, 2.4425])).round(3) + 0.0).tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]

    References:
        Richards et al., Learning control-oriented dynamical structure from data (arXiv 2302.02529), the PVTOL.
    """

    mass: Array = 0.5
    arm: Array = 0.25
    inertia: Array = 0.005
    gravity: Array = 9.81

    state: ClassVar = (
        Quantity("px", "m"),
        Quantity("py", "m"),
        Quantity("phi", "rad", angle=True),
        Quantity("along", "m/s"),
        Quantity("across", "m/s"),
        Quantity("rate", "rad/s"),
    )
    input: ClassVar = (Quantity("u1", "N"), Quantity("u2", "N"))

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        lift = (u[..., 0] + u[..., 1]) / self.mass
        turn = self.arm * (u[..., 0] - u[..., 1]) / self.inertia
        return self._motion(x, lift, turn, xp)

    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        zero = xp.zeros_like(x[..., 0])
        return self._motion(x, zero, zero, xp)

    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        lift, turn = 1.0 / self.mass, self.arm / self.inertia
        rows = [[0.0, 0.0]] * 4 + [[lift, lift], [turn, -turn]]
        return matrix(rows, x[..., 0], xp or namespace(x))

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        return rotorcraft_outline(x)

    def _motion(self, x: Array, lift: Array, turn: Array, xp: Any) -> Array:
        c, s = xp.cos(x[..., 2]), xp.sin(x[..., 2])
        v, w, rate = x[..., 3], x[..., 4], x[..., 5]
        zero = xp.zeros_like(c)  # parameters of the batch shape make every row of it
        rows = [
            v * c - w * s,
            v * s + w * c,
            rate,
            w * rate - self.gravity * s,
            lift - v * rate - self.gravity * c,
            zero + turn,
        ]
        return stack(rows, xp)
