"""Cart-pole: a pole balanced on a cart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, Mechanical, Quantity, matrix, rectangle


@dataclass(frozen=True)
class CartPole(Mechanical):
    """Point mass on a massless rod on a cart; `θ = 0` is upright, positive to the right.

    `(M + m) p'' + m l (cos θ θ'' − sin θ θ'²) = F + w − b p'`, `m l cos θ p'' + m l² θ'' − m g l sin θ = 0`.

    Guarantee: without friction, input and disturbance the energy
    `(M + m) p'²/2 + m l p' θ' cos θ + m l² θ'²/2 + m g l cos θ` is conserved.

    Args:
        cart_mass: `M` [kg], a float or `(*batch)`.
        pole_mass: `m` [kg], a float or `(*batch)`.
        length: `l` [m], a float or `(*batch)`.
        friction: Viscous friction `b` of the cart [N s/m], a float or `(*batch)`.
        gravity: Gravitational acceleration [m/s^2].

    Example:
        >>> import numpy as np
        >>> CartPole().derivative(0.0, np.zeros(4), np.array([2.0]))
        array([ 0.,  0.,  2., -4.])

    References:
        Åström and Murray, Feedback Systems (2008), example 2.1.
    """

    cart_mass: Array = 1.0
    pole_mass: Array = 0.1
    length: Array = 0.5
    friction: Array = 0.0
    gravity: Array = 9.81

    state: ClassVar = (
        Quantity("p", "m"),
        Quantity("theta", "rad", angle=True),
        Quantity("v", "m/s"),
        Quantity("omega", "rad/s"),
    )
    input: ClassVar = (Quantity("F", "N"),)
    disturbance: ClassVar = (Quantity("w", "N"),)

    def H(self, q: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        moment = self.pole_mass * self.length
        coupling = moment * xp.cos(q[..., 1])
        rows = [[self.cart_mass + self.pole_mass, coupling], [coupling, moment * self.length]]
        return matrix(rows, q[..., 0], xp)

    def C(self, q: Array, velocity: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        swing = -self.pole_mass * self.length * xp.sin(q[..., 1]) * velocity[..., 1]
        return matrix([[0.0, swing], [0.0, 0.0]], q[..., 0], xp)

    def g(self, q: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        weight = self.pole_mass * self.gravity * self.length
        return stack([xp.zeros_like(q[..., 0]), -weight * xp.sin(q[..., 1])], xp)

    def B(self, q: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        return matrix([[1.0], [0.0]], q[..., 0], xp)

    def force(self, t: Array, x: Array, w: Array | None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        on_cart = -self.friction * x[..., 2]
        on_cart = on_cart if w is None else on_cart + w[..., 0]
        return stack([on_cart, xp.zeros_like(on_cart)], xp)

    def accelerate(self, q: Array, force: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        c, s = xp.cos(q[..., 1]), xp.sin(q[..., 1])
        on_cart, on_pole = force[..., 0], force[..., 1] / self.length
        carried = self.cart_mass + self.pole_mass * s * s
        total = self.cart_mass + self.pole_mass
        p = (on_cart - c * on_pole) / carried
        theta = (total / self.pole_mass * on_pole - c * on_cart) / (self.length * carried)
        return stack([p, theta], xp)

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        tip = np.array([x[0], 0.0]) + float(np.mean(self.length)) * np.array([np.sin(x[1]), np.cos(x[1])])
        return [rectangle((x[0], 0.0), 0.0, 0.3, 0.15), np.array([[x[0], 0.0], tip])]
