"""Hold a lightly damped linear system in a band against a disturbance."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from control_envs.disturbances import Gust
from control_envs.dynamics import LinearSystem
from control_envs.tasks.base import limit
from control_envs.tasks.regulation import RegulationTask


class LinearTask(RegulationTask):
    """Oscillator of 1 rad/s and damping ratio 0.1, disturbed by a correlated signal of standard deviation 0.3."""

    name: ClassVar = "linear"
    summary: ClassVar = "disturbed linear oscillator, both states in a band"
    plant = LinearSystem(
        A=np.array([[0.0, 1.0], [-1.0, -0.2]]), B=np.array([[0.0], [1.0]]), E=np.array([[0.0], [1.0]])
    )
    dt = 0.05
    horizon = 200
    input_low, input_high = np.array([-2.0]), np.array([2.0])
    state_low, state_high = np.array([-5.0, -5.0]), np.array([5.0, 5.0])
    goal, goal_input = np.zeros(2), np.zeros(1)
    state_weights, input_weights = np.array([1.0, 1.0]), np.array([0.1])
    start_low, start_high = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    constraints = (limit(plant, "x1", size=1.5), limit(plant, "x2", size=1.5))
    disturbance = Gust(0.3)
    view = ((-0.5, 1.5), (-2.0, 2.0))
