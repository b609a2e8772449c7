"""Balance a pole on a cart between two stops."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from control_envs.dynamics import CartPole
from control_envs.tasks.base import limit
from control_envs.tasks.regulation import RegulationTask


class CartPoleTask(RegulationTask):
    """Pole near upright, force up to 10 N, track of ±2 m, tilt up to 0.3 rad."""

    name: ClassVar = "cart-pole"
    summary: ClassVar = "balance a pole on a cart, track and tilt limits"
    plant = CartPole()
    dt = 0.02
    horizon = 250
    input_low, input_high = np.array([-10.0]), np.array([10.0])
    state_low, state_high = np.array([-3.0, -np.inf, -8.0, -15.0]), np.array([3.0, np.inf, 8.0, 15.0])
    goal, goal_input = np.zeros(4), np.zeros(1)
    state_weights, input_weights = np.array([1.0, 10.0, 0.1, 0.1]), np.array([0.01])
    start_low, start_high = np.array([-1.0, -0.15, -0.2, -0.2]), np.array([1.0, 0.15, 0.2, 0.2])
    constraints = (limit(plant, "p", size=2.0), limit(plant, "theta", size=0.3))
    view = ((-2.5, 2.5), (-1.0, 1.5))

    def scenery(self):
        return [np.array([[-2.15, -0.1], [-2.15, 0.1]]), np.array([[2.15, -0.1], [2.15, 0.1]])]
