"""Planar manipulator with any number of links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from control_envs.arrays import constant, namespace
from control_envs.dynamics.base import Array, Mechanical, Quantity


@dataclass(frozen=True)
class Manipulator(Mechanical):
    """Chain of uniform rods in a vertical plane, a torque at every joint; `q = 0` hangs straight down.

    `H(q) q'' + C(q, q') q' + g(q) = τ + w − b q'` with joint angles `q` relative to the link before.

    Guarantee: without damping, input and disturbance the energy is conserved, and `H' − 2 C` is skew-symmetric.

    Args:
        lengths: Lengths of the links [m]; their number is the number of joints.
        masses: Masses of the links [kg].
        payload: Point mass at the tip [kg], a float or `(*batch)`.
        damping: Viscous friction at the joints [N m s/rad], a float or `(*batch)`.
        gravity: Gravitational acceleration [m/s^2].

    Raises:
        ValueError: `lengths` and `masses` do not have the same number of entries.

    Example:
        >>> import numpy as np
        >>> arm = Manipulator(lengths=(1.0, 1.0), masses=(1.0, 1.0), damping=0.0)
        >>> arm.derivative(0.0, np.zeros(4), np.zeros(2)) + 0.0
        array([0., 0., 0., 0.])

    References:
        Spong, Hutchinson and Vidyasagar, Robot Modeling and Control (2006), section 7.4.
    """

    lengths: tuple[float, ...] = (0.5, 0.5)
    masses: tuple[float, ...] = (1.0, 1.0)
    payload: Array = 0.0
    damping: Array = 0.1
    gravity: Array = 9.81

    def __post_init__(self) -> None:
        if len(self.lengths) != len(self.masses) or not self.lengths:
            raise ValueError(
                f"Manipulator: expected as many masses as lengths, got {len(self.masses)} and {len(self.lengths)}."
                f" Give every link one of each."
            )

    @property
    def state(self) -> tuple[Quantity, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        joints = range(1, len(self.lengths) + 1)
        angles = tuple(Quantity(f"q{i}", "rad", angle=True) for i in joints)
        return angles + tuple(Quantity(f"rate{i}", "rad/s") for i in joints)

    @property
    def input(self) -> tuple[Quantity, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return tuple(Quantity(f"tau{i}", "N m") for i in range(1, len(self.lengths) + 1))

    @property
    def disturbance(self) -> tuple[Quantity, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return tuple(Quantity(f"w{i}", "N m") for i in range(1, len(self.lengths) + 1))

    def H(self, q: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        a = self._angles(q, xp)
        S = self._sums(q, xp)
        return S.T @ (self._coupling(q, xp) * xp.cos(a[..., :, None] - a[..., None, :])) @ S

    def C(self, q: Array, velocity: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        a, rate = self._angles(q, xp), self._angles(velocity, xp)
        S = self._sums(q, xp)
        swing = xp.sin(a[..., :, None] - a[..., None, :]) * rate[..., None, :]
        return S.T @ (self._coupling(q, xp) * swing) @ S

    def g(self, q: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        lengths, masses = np.array(self.lengths), np.array(self.masses)
        beyond = np.cumsum(masses[::-1])[::-1] - masses
        moment = constant((0.5 * masses + beyond) * lengths, q, xp)
        moment = moment + self._column(self.payload) * constant(lengths, q, xp)
        return (self._column(self.gravity) * moment * xp.sin(self._angles(q, xp))) @ self._sums(q, xp)

    def B(self, q: Array, *, xp: Any = None) -> Array:
        return constant(np.eye(len(self.lengths)), q, xp or namespace(q))

    def force(self, t: Array, x: Array, w: Array | None, *, xp: Any = None) -> Array:
        friction = -self._column(self.damping) * x[..., self.degrees :]
        return friction if w is None else friction + w

    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        lower = xp.linalg.inv(self.H(x[..., : self.degrees], xp=xp))
        return xp.concatenate([xp.zeros_like(lower), lower], -2)

    def tip(self, q: Array, *, xp: Any = None) -> Array:
        """Position of the tip `(*batch, 2)` [m]."""
        xp = xp or namespace(q)
        a = self._angles(q, xp)
        lengths = constant(self.lengths, q, xp)
        return xp.stack([(lengths * xp.sin(a)).sum(-1), -(lengths * xp.cos(a)).sum(-1)], -1)

    def _angles(self, q: Array, xp: Any) -> Array:
        """Angles of the links to the vertical: sums of joint angles."""
        return xp.cumsum(q, -1)

    def _sums(self, q: Array, xp: Any) -> Array:
        return constant(np.tril(np.ones((len(self.lengths),) * 2)), q, xp)

    def _coupling(self, q: Array, xp: Any) -> Array:
        """Inertia between links for equal angles: Σ over the bodies of mass times the two lever arms."""
        lengths, masses = np.array(self.lengths), np.array(self.masses)
        n = len(lengths)
        arms = np.tril(np.ones((n, n)), -1) * lengths + 0.5 * np.diag(lengths)  # (body, link)
        rods = (arms.T * masses) @ arms + np.diag(masses * lengths**2 / 12.0)
        tip = constant(np.outer(lengths, lengths), q, xp)
        return constant(rods, q, xp) + self._column(self._column(self.payload)) * tip

    def _column(self, parameter: Array) -> Array:
        return parameter[..., None] if hasattr(parameter, "shape") else parameter

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        a = np.cumsum(x[: self.degrees])
        steps = np.array(self.lengths)[:, None] * np.stack([np.sin(a), -np.cos(a)], -1)
        return [np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])]
