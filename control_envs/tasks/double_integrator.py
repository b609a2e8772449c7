"""Bring a mass on a line to the origin without passing a wall or a speed limit."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import stack
from control_envs.dynamics import DoubleIntegrator
from control_envs.tasks.base import Array, limit
from control_envs.tasks.clearance import Clearance
from control_envs.tasks.regulation import RegulationTask

WALLS = (-3.0, 0.1)  # [m]
SPEED = 0.7  # [m/s]
KAPPA, ALPHA = 1.2, 5.0  # [1/s]


def _before(x: Array, xp: Any) -> Array:
    return WALLS[1] - x[..., 0]


def _behind(x: Array, xp: Any) -> Array:
    return x[..., 0] - WALLS[0]


def _not_faster(x: Array, xp: Any) -> Array:
    return SPEED - x[..., 1]


def _not_slower(x: Array, xp: Any) -> Array:
    return x[..., 1] + SPEED


def _braking(x: Array, xp: Any) -> Array:
    """`h = e' + kappa e` of a wall has `|h''| = kappa |F| / m <= kappa`; a little more, so that rounding is covered."""
    zero = xp.zeros_like(x[..., 0])
    return stack([zero + 1.01 * KAPPA, zero], xp)


def _straight(x: Array, xp: Any) -> Array:
    zero = xp.zeros_like(x[..., 0])
    return stack([zero, zero], xp)


class DoubleIntegratorTask(RegulationTask):
    """Mass of 1 kg, force up to 1 N, wall at 0.1 m beyond the goal, speed up to 0.7 m/s.

    Attributes:
        clearances: What inputs that are held must keep: both ends of the track, the speed in both directions.
        clearance_hold: Time for which an input is held then [s].
        clearance_box: A box of states, lower and upper ends, whose faces they exclude.
    """

    name: ClassVar = "double-integrator"
    summary: ClassVar = "mass on a line to the origin, a wall behind it and a speed limit"
    plant = DoubleIntegrator()
    dt = 0.05
    horizon = 120
    input_low, input_high = np.array([-1.0]), np.array([1.0])
    state_low, state_high = np.array([-3.0, -3.0]), np.array([3.0, 3.0])
    goal, goal_input = np.zeros(2), np.zeros(1)
    state_weights, input_weights = np.array([1.0, 0.1]), np.array([0.1])
    start_low, start_high = np.array([-2.0, -0.2]), np.array([-1.0, 0.2])
    constraints = (limit(plant, "p", high=WALLS[1]), limit(plant, "v", size=SPEED))
    clearance_hold = 0.05
    clearance_box = (np.array([WALLS[0] - 0.05, -SPEED - 0.05]), np.array([WALLS[1] + 0.05, SPEED + 0.05]))
    clearances = (
        Clearance("wall", "m", _before, _braking, (KAPPA, ALPHA)),
        Clearance("far wall", "m", _behind, _braking, (KAPPA, ALPHA)),
        Clearance("speed", "m/s", _not_faster, _straight, (ALPHA,)),
        Clearance("speed back", "m/s", _not_slower, _straight, (ALPHA,)),
    )
    view = ((-3.0, 1.0), (-1.0, 1.0))

    def scenery(self):
        return [np.array([[0.1, -0.5], [0.1, 0.5]])]
