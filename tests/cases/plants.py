"""Rows of the plants, each with its equations of motion written out for one element in plain Python."""

from __future__ import annotations

from math import cos, pi, sin

from control_envs.dynamics import DoubleIntegrator, Pendulum, Unicycle
from tests.cases._rows import PlantCase


def _unicycle(t, x, u, w):
    _, _, theta, v, omega = x
    return [v * cos(theta), v * sin(theta), omega, u[0], u[1]]


def _double_integrator(t, x, u, w):
    return [x[1], (u[0] + w[0]) / 2.5]


def _pendulum(t, x, u, w):
    m, length, b, g = 0.7, 1.3, 0.2, 9.81
    torque = u[0] + w[0] - b * x[1] - m * g * length * sin(x[0])
    return [x[1], torque / (m * length**2)]


ROWS = [
    PlantCase("Unicycle", Unicycle, Unicycle, _unicycle, (3.0, 3.0, pi, 2.0, 2.0)),
    PlantCase(
        "DoubleIntegrator",
        DoubleIntegrator,
        lambda: DoubleIntegrator(mass=2.5),
        _double_integrator,
        (2.0, 2.0),
    ),
    PlantCase(
        "Pendulum", Pendulum, lambda: Pendulum(mass=0.7, length=1.3, damping=0.2), _pendulum, (pi, 3.0)
    ),
]
