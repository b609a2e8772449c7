"""Damped pendulum with a torque at the pivot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, ControlAffine, Quantity, circle


@dataclass(frozen=True)
class Pendulum(ControlAffine):
    """Point mass on a rigid rod; `θ = 0` hangs down.

    `m l² θ'' = τ + w − b θ' − m g l sin θ`.

    Guarantee: without damping, input and disturbance the energy `m l² θ'²/2 − m g l cos θ` is conserved. The
    parameters may differ between batch elements.

    Args:
        mass: Mass [kg], a float or `(*batch)`.
        length: Length of the rod [m], a float or `(*batch)`.
        damping: Viscous friction at the pivot [N m s/rad], a float or `(*batch)`.
        gravity: Gravitational acceleration [m/s^2].

    Example:
        >>> import numpy as np
        >>> Pendulum(damping=0.0).derivative(0.0, np.array([np.pi / 2, 1.0]), np.array([0.0]))
        array([ 1.  , -9.81])

    References:
        Khalil, Nonlinear Systems (2002), Eq. 1.5.
    """

    mass: Array = 1.0
    length: Array = 1.0
    damping: Array = 0.1
    gravity: Array = 9.81

    state: ClassVar = (Quantity("theta", "rad", angle=True), Quantity("omega", "rad/s"))
    input: ClassVar = (Quantity("tau", "N m"),)
    disturbance: ClassVar = (Quantity("w", "N m"),)

    @property
    def inertia(self) -> Array:
        """Moment of inertia about the pivot [kg m^2]."""
        return self.mass * self.length * self.length

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        torque = u[..., 0] if w is None else u[..., 0] + w[..., 0]
        return stack([x[..., 1], (torque + self._own_torque(x, xp)) / self.inertia], xp)

    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        torque = self._own_torque(x, xp) if w is None else self._own_torque(x, xp) + w[..., 0]
        return stack([x[..., 1], torque / self.inertia], xp)

    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        zero = xp.zeros_like(x[..., 0])
        return stack([zero, zero + 1.0 / self.inertia], xp)[..., None]

    def _own_torque(self, x: Array, xp: Any) -> Array:
        weight = self.mass * self.gravity * self.length
        return -self.damping * x[..., 1] - weight * xp.sin(x[..., 0])

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        length = float(np.mean(self.length))
        tip = length * np.array([np.sin(x[0]), -np.cos(x[0])])
        return [np.stack([np.zeros(2), tip]), circle(tip, 0.08 * length)]
