"""Drive a velocity-controlled unicycle around an ellipse."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from control_envs._array import constant, namespace, stack
from control_envs.dynamics import KinematicUnicycle
from control_envs.dynamics._base import circle
from control_envs.simulate import Euler
from control_envs.tasks._base import Array, TaskConstraint
from control_envs.tasks._regulation import QuadraticTask

ELLIPSE = (0.51020408, 0.90702948)  # pᵀ diag(...) p >= 1; semi-axes 1.4 m and 1.05 m


def _penetration(t: Array, x: Array, u: Array) -> Array:
    return 1.0 - ELLIPSE[0] * x[..., 0] ** 2 - ELLIPSE[1] * x[..., 1] ** 2


class KinematicUnicycleTask(QuadraticTask):
    """The plant, obstacle, limits and start states of the predictive-control task of HardNet++.

    20 explicit Euler steps of 0.2 s to (3.5, 0, 0), `0 <= v <= 2` m/s, `|ω| <= 1.5` rad/s. The published cost is a
    sum over steps; the stage cost is its summand by second, with the heading error by its chord.

    References:
        HardNet++ (arXiv 2604.19669), the task with an obstacle.
    """

    name: ClassVar = "kinematic-unicycle"
    summary: ClassVar = "velocity-controlled unicycle around an elliptical obstacle"
    plant = KinematicUnicycle()
    dt = 0.2
    horizon = 20
    integrator = Euler()
    input_low, input_high = np.array([0.0, -1.5]), np.array([2.0, 1.5])
    state_low, state_high = np.array([-5.0, -5.0, -np.inf]), np.array([6.0, 5.0, np.inf])
    goal, goal_input = np.array([3.5, 0.0, 0.0]), np.zeros(2)
    state_weights, input_weights = np.full(3, 1.0 / 0.2), np.full(2, 0.1 / 0.2)
    start_low, start_high = np.array([-4.0, -2.4, -0.45]), np.array([-2.2, 2.4, 0.45])
    constraints = (TaskConstraint("obstacle", "1", _penetration),)
    view = ((-4.5, 4.5), (-3.0, 3.0))

    def nominal(self, t: Array, x: Array) -> Array:
        """Proportional heading and speed controller to the goal, blind to the obstacle."""
        xp = namespace(x)
        dx, dy = self.goal[0] - x[..., 0], self.goal[1] - x[..., 1]
        turn = xp.arctan2(dy, dx) - x[..., 2]
        turn = xp.arctan2(xp.sin(turn), xp.cos(turn))
        u = stack([xp.sqrt(dx * dx + dy * dy) * xp.cos(turn), 2.0 * turn], xp)
        low, high = constant(self.input_low, x, xp), constant(self.input_high, x, xp)
        return xp.minimum(xp.maximum(u, low), high)

    def brake(self, t: Array, x: Array) -> Array:
        """Stand still: this vehicle stops at once."""
        return namespace(x).zeros_like(x[..., :2])

    def scenery(self):
        return [circle((0.0, 0.0), (ELLIPSE[0] ** -0.5, ELLIPSE[1] ** -0.5))]
