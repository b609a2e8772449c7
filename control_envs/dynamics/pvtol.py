"""PVTOL: planar vertical take-off and landing aircraft, in wind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, Mechanical, Quantity, matrix
from control_envs.dynamics.planar_rotorcraft import (
    IDENTITY,
    PLANAR_STATE,
    ZERO,
    air_velocity,
    drag_force,
    rotorcraft_outline,
)


@dataclass(frozen=True)
class PVTOL(Mechanical):
    """Underactuated planar aircraft of unit mass and inertia.

    `q'' + (0, g, 0) = B(φ) u + drag`, `q = (px, py, φ)`, `u` = (thrust, angular acceleration), columns of `B`:
    `(−sin φ, cos φ, 0)` and `(ε cos φ, ε sin φ, 1)`; the drag turns the body by
    `−b3 (vR|vR| − vL|vL|)`, `vR = r φ' − v2`, `vL = −r φ' − v2`.

    Guarantee: for `ε = 0`, `Bᵀ B` is the identity; most of the drag is outside the range of `B`.

    Args:
        drag_x: `b1` [kg/m], a float or `(*batch)`.
        drag_y: `b2` [kg/m], a float or `(*batch)`.
        drag_rotor: `b3` [kg], a float or `(*batch)`.
        arm: `r` [m], a float or `(*batch)`.
        coupling: `ε` [m], a float or `(*batch)`.
        gravity: Gravitational acceleration [m/s^2].

    Example:
        >>> import numpy as np
        >>> PVTOL().derivative(0.0, np.zeros(6), np.array([10.81, 2.0]))
        array([0., 0., 0., 0., 1., 2.])

    References:
        Richards et al., Control-oriented meta-learning (arXiv 2204.06716), the PVTOL.
    """

    drag_x: Array = 0.01
    drag_y: Array = 1.0
    drag_rotor: Array = 1.0
    arm: Array = 1.0
    coupling: Array = 0.0
    gravity: Array = 9.81

    state: ClassVar = PLANAR_STATE
    input: ClassVar = (Quantity("thrust", "N"), Quantity("turn", "rad/s^2"))
    disturbance: ClassVar = (Quantity("wind", "m/s"),)

    def H(self, q: Array, *, xp: Any = None) -> Array:
        return matrix(IDENTITY, q[..., 0], xp or namespace(q))

    def C(self, q: Array, velocity: Array, *, xp: Any = None) -> Array:
        return matrix(ZERO, q[..., 0], xp or namespace(q))

    def g(self, q: Array, *, xp: Any = None) -> Array:
        zero = (xp or namespace(q)).zeros_like(q[..., 0])
        return stack([zero, zero + self.gravity, zero], xp or namespace(q))

    def B(self, q: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        c, s = xp.cos(q[..., 2]), xp.sin(q[..., 2])
        return matrix([[-s, self.coupling * c], [c, self.coupling * s], [0.0, 1.0]], c, xp)

    def force(self, t: Array, x: Array, w: Array | None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        along, across = air_velocity(x, w, xp)
        fx, fy = drag_force(x, along, across, self.drag_x, self.drag_y, xp)
        right, left = self.arm * x[..., 5] - across, -self.arm * x[..., 5] - across
        return stack([fx, fy, -self.drag_rotor * (right * abs(right) - left * abs(left))], xp)

    def accelerate(self, q: Array, force: Array, *, xp: Any = None) -> Array:
        return force  # H is the identity

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        return rotorcraft_outline(x)
