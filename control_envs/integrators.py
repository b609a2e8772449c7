"""Integrators of fixed step: the same functions for NumPy and torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from control_envs.dynamics import Dynamics

Array = Any


@runtime_checkable
class Integrator(Protocol):
    """One step of length `dt` (scalar or `(*batch, 1)`) with the input held constant."""

    def step(
        self, plant: Dynamics, t: Array, x: Array, u: Array, w: Array | None, dt: Array, xp: Any
    ) -> Array: ...


@dataclass(frozen=True)
class Euler:
    """Explicit Euler, order 1."""

    def step(self, plant, t, x, u, w, dt, xp):
        return x + dt * plant.derivative(t, x, u, w, xp=xp)


@dataclass(frozen=True)
class RK4:
    """Classical Runge-Kutta, order 4, in `substeps` equal steps."""

    substeps: int = 1

    def step(self, plant, t, x, u, w, dt, xp):
        h = dt / self.substeps
        for i in range(self.substeps):
            s = t + i * h
            k1 = plant.derivative(s, x, u, w, xp=xp)
            k2 = plant.derivative(s + 0.5 * h, x + (0.5 * h) * k1, u, w, xp=xp)
            k3 = plant.derivative(s + 0.5 * h, x + (0.5 * h) * k2, u, w, xp=xp)
            k4 = plant.derivative(s + h, x + h * k3, u, w, xp=xp)
            x = x + (h / 6.0) * (k1 + 2.0 * (k2 + k3) + k4)
        return x
