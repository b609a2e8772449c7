"""Pendulum of any number of links, each a point mass on a rigid rod."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from control_envs.arrays import constant, namespace
from control_envs.dynamics.base import Array, Mechanical, Quantity


@dataclass(frozen=True)
class NLinkPendulum(Mechanical):
    """Point masses on rods that hang from each other; all angles `θ` are to the vertical, 0 hangs down.

    `Σⱼ M lᵢ lⱼ (cos(θᵢ − θⱼ) θⱼ'' + sin(θᵢ − θⱼ) θⱼ'²) + M lᵢ g sin θᵢ = τᵢ − b θᵢ'`, `M` the mass beyond both links,
    and `τ` the torque at the upper pivot, which acts on the first link.

    Guarantee: without damping and input the energy is conserved; with damping and without input it decreases, and the
    rest below is the only one that is stable.

    Args:
        lengths: Lengths of the links [m]; their number is the number of links.
        masses: Masses [kg].
        damping: Viscous friction of every link against the air [N m s/rad], a float or `(*batch)`.
        gravity: Gravitational acceleration [m/s^2].

    Raises:
        ValueError: `lengths` and `masses` do not have the same number of entries.

    Example:
        >>> import numpy as np
        >>> one = NLinkPendulum(lengths=(1.0,), masses=(1.0,))
        >>> one.derivative(0.0, np.array([np.pi / 2, 1.0]), np.zeros(1)).round(6).tolist()
        [1.0, -10.11]

    References:
        Manek, Kolter, Learning stable deep dynamics models (arXiv 2001.06116), section 4.1.
    """

    lengths: tuple[float, ...] = (0.5, 0.5)
    masses: tuple[float, ...] = (1.0, 1.0)
    damping: Array = 0.3
    gravity: Array = 9.81

    def __post_init__(self) -> None:
        if len(self.lengths) != len(self.masses) or not self.lengths:
            raise ValueError(
                f"NLinkPendulum: expected as many masses as lengths, got {len(self.masses)} and {len(self.lengths)}. "
                f"Give every link one of each."
            )

    @property
    def state(self) -> tuple[Quantity, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        links = range(1, len(self.lengths) + 1)
        angles = tuple(Quantity(f"theta{i}", "rad", angle=True) for i in links)
        return angles + tuple(Quantity(f"rate{i}", "rad/s") for i in links)

    @property
    def input(self) -> tuple[Quantity, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return (Quantity("tau", "N m"),)

    def H(self, q: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        return constant(self._weights, q, xp) * xp.cos(q[..., :, None] - q[..., None, :])

    def C(self, q: Array, velocity: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        turn = xp.sin(q[..., :, None] - q[..., None, :]) * velocity[..., None, :]
        return constant(self._weights, q, xp) * turn

    def g(self, q: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(q)
        beyond = np.cumsum(np.array(self.masses)[::-1])[::-1]
        moment = constant(beyond * np.array(self.lengths), q, xp)
        return self._column(self.gravity) * moment * xp.sin(q)

    def B(self, q: Array, *, xp: Any = None) -> Array:
        return constant(np.eye(len(self.lengths))[:, :1], q, xp or namespace(q))

    def force(self, t: Array, x: Array, w: Array | None, *, xp: Any = None) -> Array:
        return -self._column(self.damping) * x[..., self.degrees :]

    @property
    def _weights(self) -> np.ndarray:
        """`M lᵢ lⱼ` of every pair of links."""
        beyond = np.cumsum(np.array(self.masses)[::-1])[::-1]
        links = np.arange(len(self.lengths))
        return beyond[np.maximum(links[:, None], links)] * np.outer(self.lengths, self.lengths)

    def _column(self, parameter: Array) -> Array:
        return parameter[..., None] if hasattr(parameter, "shape") else parameter

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        a = x[: self.degrees]
        steps = np.array(self.lengths)[:, None] * np.stack([np.sin(a), -np.cos(a)], -1)
        return [np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])]
