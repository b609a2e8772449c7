"""Swing a pendulum up under a torque limit and a speed limit."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from control_envs.dynamics import Pendulum
from control_envs.tasks.base import limit
from control_envs.tasks.regulation import RegulationTask


class PendulumTask(RegulationTask):
    """Pendulum of 1 kg and 1 m from near rest below to the top, torque up to 6 N m, speed up to 7 rad/s."""

    name: ClassVar = "pendulum"
    summary: ClassVar = "swing-up of a damped pendulum, torque and speed limits"
    plant = Pendulum()
    dt = 0.05
    horizon = 200
    input_low, input_high = np.array([-6.0]), np.array([6.0])
    state_low, state_high = np.array([-np.inf, -12.0]), np.array([np.inf, 12.0])
    goal, goal_input = np.array([np.pi, 0.0]), np.zeros(1)
    state_weights, input_weights = np.array([10.0, 0.1]), np.array([0.01])
    start_low, start_high = np.array([-0.5, -0.5]), np.array([0.5, 0.5])
    constraints = (limit(plant, "omega", size=7.0),)
    view = ((-1.3, 1.3), (-1.3, 1.3))
