"""Bring a spacecraft with an offset center of mass to rest at the origin."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from control_envs.dynamics import Spacecraft
from control_envs.tasks.regulation import RegulationTask


class SpacecraftTask(RegulationTask):
    """Spacecraft of 0.5 kg from within 1 m at any heading to rest; forces up to 1 N, torque up to 0.1 N m; 150 Hz."""

    name: ClassVar = "spacecraft"
    summary: ClassVar = "planar spacecraft with an offset center of mass to rest"
    plant = Spacecraft()
    dt = 1.0 / 150.0
    horizon = 1500
    input_low, input_high = np.array([-1.0, -1.0, -0.1]), np.array([1.0, 1.0, 0.1])
    state_low = np.array([-10.0, -10.0, -np.inf, -10.0, -10.0, -25.0])
    state_high = np.array([10.0, 10.0, np.inf, 10.0, 10.0, 25.0])
    goal, goal_input = np.zeros(6), np.zeros(3)
    state_weights, input_weights = np.ones(6), np.ones(3)
    start_low = np.array([-1.0, -1.0, -np.pi, -0.2, -0.2, -0.25])
    start_high = -start_low
    view = ((-1.5, 1.5), (-1.5, 1.5))
