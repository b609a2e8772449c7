"""Quadrotor in three dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, ControlAffine, Quantity, matrix


@dataclass(frozen=True)
class Quadrotor(ControlAffine):
    """Rigid body with thrust along its third axis and three torques; attitude as a unit quaternion.

    `p' = v, e' = e ⊗ (0, ω)/2, m v' = R(e)(0, 0, T) − (0, 0, m g) + w, J ω' = τ − ω × J ω`, `z` up, `ω` in body
    axes, `e = (ew, ex, ey, ez)`, input `(T, τx, τy, τz)`, `J` diagonal.

    Guarantee: `|e|` is conserved exactly in continuous time and to the order of the integrator in simulation.

    Args:
        mass: `m` [kg], a float or `(*batch)`.
        Jx: Moment of inertia about the first body axis [kg m^2], a float or `(*batch)`.
        Jy: About the second [kg m^2], a float or `(*batch)`.
        Jz: About the third [kg m^2], a float or `(*batch)`.
        gravity: Gravitational acceleration [m/s^2].

    Example:
        >>> import numpy as np
        >>> x = np.eye(13)[3]  # at the origin, upright, at rest
        >>> Quadrotor(mass=2.0).derivative(0.0, x, np.array([21.62, 0.0, 0.0, 0.0]))[9].round(12)
        np.float64(1.0)

    References:
        Mellinger and Kumar, Minimum snap trajectory generation and control for quadrotors (ICRA 2011), Eq. 2-4.
    """

    mass: Array = 1.0
    Jx: Array = 0.01
    Jy: Array = 0.01
    Jz: Array = 0.018
    gravity: Array = 9.81

    state: ClassVar = (
        *(Quantity(f"p{a}", "m") for a in "xyz"),
        *(Quantity(f"e{a}", "1") for a in "wxyz"),
        *(Quantity(f"v{a}", "m/s") for a in "xyz"),
        *(Quantity(f"omega_{a}", "rad/s") for a in "xyz"),
    )
    input: ClassVar = (
        Quantity("T", "N"),
        Quantity("tau_x", "N m"),
        Quantity("tau_y", "N m"),
        Quantity("tau_z", "N m"),
    )
    disturbance: ClassVar = (Quantity("wx", "N"), Quantity("wy", "N"), Quantity("wz", "N"))

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        axis = self._thrust_axis(x)
        push = u[..., 0] / self.mass
        turn = [u[..., 1] / self.Jx, u[..., 2] / self.Jy, u[..., 3] / self.Jz]
        pushes = [*(0.0 * push for _ in range(7)), *(push * a for a in axis), *turn]
        return self.drift(t, x, w, xp=xp) + stack(pushes, xp)

    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        ew, ex, ey, ez = (x[..., i] for i in range(3, 7))
        ox, oy, oz = (x[..., i] for i in range(10, 13))
        zero = xp.zeros_like(ew)
        blow = [zero, zero, zero] if w is None else [w[..., i] / self.mass for i in range(3)]
        parts = [
            x[..., 7],
            x[..., 8],
            x[..., 9],
            -0.5 * (ex * ox + ey * oy + ez * oz),
            0.5 * (ew * ox + ey * oz - ez * oy),
            0.5 * (ew * oy + ez * ox - ex * oz),
            0.5 * (ew * oz + ex * oy - ey * ox),
            blow[0],
            blow[1],
            blow[2] - self.gravity,
            (self.Jy - self.Jz) / self.Jx * oy * oz,
            (self.Jz - self.Jx) / self.Jy * oz * ox,
            (self.Jx - self.Jy) / self.Jz * ox * oy,
        ]
        return stack([zero + part for part in parts], xp)

    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        columns = [[0.0] * 4] * 7 + [[a / self.mass, 0.0, 0.0, 0.0] for a in self._thrust_axis(x)]
        columns += [
            [0.0, 1.0 / self.Jx, 0.0, 0.0],
            [0.0, 0.0, 1.0 / self.Jy, 0.0],
            [0.0, 0.0, 0.0, 1.0 / self.Jz],
        ]
        return matrix(columns, x[..., 0], xp)

    def _thrust_axis(self, x: Array) -> tuple[Array, Array, Array]:
        """Third column of the rotation matrix of a unit quaternion."""
        ew, ex, ey, ez = (x[..., i] for i in range(3, 7))
        return 2.0 * (ex * ez + ew * ey), 2.0 * (ey * ez - ew * ex), ew * ew - ex * ex - ey * ey + ez * ez

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        """Seen along the y axis: the two arms and the thrust axis, in the plane of `px` and `pz`."""
        ew, ex, ey, ez = x[3:7]
        first = np.array([1 - 2 * (ey**2 + ez**2), 2 * (ex * ez - ew * ey)])
        second = np.array([2 * (ex * ey - ew * ez), 2 * (ey * ez + ew * ex)])
        third = np.array(self._thrust_axis(x))[[0, 2]]
        at = x[[0, 2]]
        arms = [np.stack([at - 0.25 * a, at + 0.25 * a]) for a in (first, second)]
        return [*arms, np.stack([at, at + 0.15 * third])]
