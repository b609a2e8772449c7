"""Planar rotorcraft with full actuation, in wind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, Mechanical, Quantity, matrix, rectangle

PLANAR_STATE = (
    Quantity("px", "m"),
    Quantity("py", "m"),
    Quantity("phi", "rad", angle=True),
    Quantity("vx", "m/s"),
    Quantity("vy", "m/s"),
    Quantity("rate", "rad/s"),
)
ZERO = ((0.0, 0.0, 0.0),) * 3
IDENTITY = (
    (1.0, 0.0, 0.0),
    (0.0, 1.0, 0.0),
    (0.0, 0.0, 1.0),
)  # plain numbers: torch.compile traces no arrays


def air_velocity(x: Array, w: Array | None, xp: Any) -> tuple[Array, Array]:
    """Velocity relative to a wind `w` along `px`, in body axes [m/s]."""
    c, s = xp.cos(x[..., 2]), xp.sin(x[..., 2])
    vx = x[..., 3] if w is None else x[..., 3] - w[..., 0]
    vy = x[..., 4]
    return c * vx + s * vy, c * vy - s * vx


def drag_force(x: Array, along: Array, across: Array, b1: Array, b2: Array, xp: Any) -> tuple[Array, Array]:
    """Quadratic drag of the body velocities, in inertial axes, for unit mass [N]."""
    c, s = xp.cos(x[..., 2]), xp.sin(x[..., 2])
    f1, f2 = -b1 * along * abs(along), -b2 * across * abs(across)
    return c * f1 - s * f2, s * f1 + c * f2


@dataclass(frozen=True)
class PlanarRotorcraft(Mechanical):
    """Planar fully actuated rotorcraft (PFAR) of unit mass and inertia.

    `q'' + (0, g, 0) = B(φ) u + drag`, `q = (px, py, φ)`, `u` = (thrust along body y, torque, thrust along body x),
    drag `−(b1 v1|v1|, b2 v2|v2|)` of the air velocity in body axes.

    Guarantee: `B` is orthogonal, so that `u = Bᵀ τ` for any generalized force `τ`.

    Args:
        drag_x: `b1` [kg/m], a float or `(*batch)`.
        drag_y: `b2` [kg/m], a float or `(*batch)`.
        gravity: Gravitational acceleration [m/s^2].

    Example:
        >>> import numpy as np
        >>> PlanarRotorcraft().derivative(0.0, np.zeros(6), np.array([9.81, 0.0, 0.0]), np.array([2.0]))
        array([0. , 0. , 0. , 0.4, 0. , 0. ])

    References:
        Richards et al., Control-oriented meta-learning (arXiv 2204.06716), the fully actuated rotorcraft.
    """

    drag_x: Array = 0.1
    drag_y: Array = 1.0
    gravity: Array = 9.81

    state: ClassVar = PLANAR_STATE
    input: ClassVar = (Quantity("thrust", "N"), Quantity("torque", "N m"), Quantity("side", "N"))
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
        return matrix([[-s, 0.0, c], [c, 0.0, s], [0.0, 1.0, 0.0]], c, xp)

    def force(self, t: Array, x: Array, w: Array | None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        fx, fy = drag_force(x, *air_velocity(x, w, xp), self.drag_x, self.drag_y, xp)
        return stack([fx, fy, xp.zeros_like(fx)], xp)

    def accelerate(self, q: Array, force: Array, *, xp: Any = None) -> Array:
        return force  # H is the identity

    def inverse_dynamics(
        self, q: Array, velocity: Array, v: Array, acceleration: Array, *, xp: Any = None
    ) -> Array:
        return acceleration + self.g(q, xp=xp)

    def allocate(self, q: Array, force: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        c, s = xp.cos(q[..., 2]), xp.sin(q[..., 2])
        fx, fy = force[..., 0], force[..., 1]
        return stack([c * fy - s * fx, force[..., 2], c * fx + s * fy], xp)

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        c, s = xp.cos(x[..., 2]), xp.sin(x[..., 2])
        fx, fy = drag_force(x, *air_velocity(x, w, xp), self.drag_x, self.drag_y, xp)
        thrust, torque, side = u[..., 0], u[..., 1], u[..., 2]
        ax, ay = c * side - s * thrust + fx, s * side + c * thrust + fy - self.gravity
        return xp.concatenate([x[..., 3:], stack([ax, ay, torque], xp)], -1)

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        return rotorcraft_outline(x)


def rotorcraft_outline(x: np.ndarray) -> list[np.ndarray]:
    """A beam with two rotors, of planar state `(px, py, φ, ...)`."""
    along = np.array([np.cos(x[2]), np.sin(x[2])])
    up = np.array([-along[1], along[0]])
    rotors = [rectangle(x[:2] + side * 0.4 * along + 0.08 * up, x[2], 0.3, 0.04) for side in (-1, 1)]
    return [rectangle(x[:2], x[2], 1.0, 0.06), *rotors]
