"""Unicycle driven by its accelerations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import constant, namespace
from control_envs.dynamics.base import Array, ControlAffine, Quantity, arrow

_ACTUATION = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


@dataclass(frozen=True)
class Unicycle(ControlAffine):
    """Acceleration-controlled unicycle.

    `px' = v cos θ, py' = v sin θ, θ' = ω, v' = a, ω' = α` with input `(a, α)`.

    Guarantee: exact kinematics of a wheel that rolls without slip; no parameters, no disturbance.

    Example:
        >>> import numpy as np
        >>> Unicycle().derivative(0.0, np.array([0.0, 0.0, 0.0, 1.0, 0.5]), np.array([2.0, 3.0]))
        array([1. , 0. , 0.5, 2. , 3. ])

    References:
        HardNet (arXiv 2410.10807), section 5.4, the safety-critical control task.
    """

    state: ClassVar = (
        Quantity("px", "m"),
        Quantity("py", "m"),
        Quantity("theta", "rad", angle=True),
        Quantity("v", "m/s"),
        Quantity("omega", "rad/s"),
    )
    input: ClassVar = (Quantity("a", "m/s^2"), Quantity("alpha", "rad/s^2"))

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        return xp.concatenate([self._velocity(x, xp), x[..., 4:], u], -1)

    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        return xp.concatenate([self._velocity(x, xp), x[..., 4:], xp.zeros_like(x[..., 3:])], -1)

    def _velocity(self, x: Array, xp: Any) -> Array:
        """`v (cos θ, sin θ)`, the cosine as a shifted sine: one array operation for both."""
        return x[..., 3:4] * xp.sin(x[..., 2:3] + constant([0.5 * np.pi, 0.0], x, xp))

    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        return constant(_ACTUATION, x, xp or namespace(x))

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        return [arrow(x[:2], x[2], 0.2)]
