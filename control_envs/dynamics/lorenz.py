"""Lorenz's two models of chaos; neither has an input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace, stack
from control_envs.dynamics.base import Array, Dynamics, Quantity, circle


@dataclass(frozen=True)
class Lorenz63(Dynamics):
    """Convection in three modes, with the butterfly attractor.

    `x' = σ (y − x)`, `y' = x (ρ − z) − y`, `z' = x y − β z`.

    Guarantee: with the default parameters motion is chaotic (largest Lyapunov exponent 0.906) and dissipative: volumes
    shrink at the rate `σ + 1 + β`, and `ρ x² + σ y² + σ (z − 2ρ)²` falls outside of a bounded set.

    Args:
        prandtl: `σ`, a float or `(*batch)`.
        rayleigh: `ρ`, a float or `(*batch)`.
        aspect: `β`, a float or `(*batch)`.

    Example:
        >>> import numpy as np
        >>> Lorenz63().derivative(0.0, np.array([1.0, 2.0, 3.0]), np.empty(0))
        array([10., 23., -6.])

    References:
        Lorenz, Deterministic nonperiodic flow (1963), eqs. (25)-(27).
        Sparrow, The Lorenz Equations (1982), appendix C.
    """

    prandtl: Array = 10.0
    rayleigh: Array = 28.0
    aspect: Array = 8.0 / 3.0

    state: ClassVar = (Quantity("x", "1"), Quantity("y", "1"), Quantity("z", "1"))
    input: ClassVar = ()

    def derivative(
        self, t: Array, x: Array, u: Array | None = None, w: Array | None = None, *, xp: Any = None
    ) -> Array:
        xp = xp or namespace(x)
        a, b, c = x[..., 0], x[..., 1], x[..., 2]
        rates = [self.prandtl * (b - a), a * (self.rayleigh - c) - b, a * b - self.aspect * c]
        return stack(rates, xp)

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        return [np.array([[0.0, 0.0], [x[0], x[2]]]), circle((x[0], x[2]), 0.8)]


@dataclass(frozen=True)
class Lorenz96(Dynamics):
    """A latitude circle of weather: advection, damping and a constant force at every point.

    `xᵢ' = (xᵢ₊₁ − xᵢ₋₂) xᵢ₋₁ − xᵢ + F`, indices modulo `size`.

    Guarantee: advection keeps `‖x‖²`, so that `d/dt ½ ‖x‖² = −‖x‖² + F Σᵢ xᵢ`; no state leaves the ball of radius
    `F √size` once it is inside. With 40 points and `F = 8` motion is chaotic (largest Lyapunov exponent 1.7).

    Args:
        size: Number of points, at least 4.
        forcing: `F`, a float or `(*batch)`.

    Raises:
        ValueError: There are fewer than 4 points.

    Example:
        >>> import numpy as np
        >>> Lorenz96(size=4).derivative(0.0, np.array([1.0, 2.0, 3.0, 4.0]), np.empty(0))
        array([ 3.,  5., 11.,  1.])

    References:
        Lorenz, Predictability: a problem partly solved (1996), eq. (1).
    """

    size: int = 40
    forcing: Array = 8.0

    input: ClassVar = ()

    def __post_init__(self) -> None:
        if self.size < 4:
            raise ValueError(
                f"Lorenz96: expected size of at least 4, got {self.size}. With fewer, neighbors are one point."
            )

    @property
    def state(self) -> tuple[Quantity, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return tuple(Quantity(f"x{i}", "1") for i in range(1, self.size + 1))

    def derivative(
        self, t: Array, x: Array, u: Array | None = None, w: Array | None = None, *, xp: Any = None
    ) -> Array:
        xp = xp or namespace(x)
        forcing = self.forcing[..., None] if getattr(self.forcing, "ndim", 0) else self.forcing
        around = xp.concatenate([x[..., -2:], x, x[..., :1]], -1)
        return (around[..., 3:] - around[..., :-3]) * around[..., 1:-2] - x + forcing

    def outline(self, x: np.ndarray) -> list[np.ndarray]:
        angle = 2.0 * np.pi * np.arange(self.size + 1) / self.size
        radius = 20.0 + np.append(x, x[0])
        return [radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1), circle((0.0, 0.0), 20.0)]
