"""Bring a mass on a line to the origin without passing a wall or a speed limit."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from control_envs.dynamics import DoubleIntegrator
from control_envs.tasks._base import limit
from control_envs.tasks._regulation import RegulationTask


class DoubleIntegratorTask(RegulationTask):
    """Mass of 1 kg, force up to 1 N, wall at 0.1 m beyond the goal, speed up to 0.7 m/s."""

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
    constraints = (limit(plant, "p", high=0.1), limit(plant, "v", size=0.7))
    view = ((-3.0, 1.0), (-1.0, 1.0))

    def scenery(self):
        return [np.array([[0.1, -0.5], [0.1, 0.5]])]
