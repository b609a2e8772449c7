"""Hover a quadrotor above the ground and beside a pole."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from control_envs.arrays import constant, namespace, stack
from control_envs.disturbances import Gust
from control_envs.dynamics import Quadrotor
from control_envs.tasks.base import Array, keep_out, limit
from control_envs.tasks.regulation import QuadraticTask


class QuadrotorTask(QuadraticTask):
    """Quadrotor of 1 kg to (0, 0, 1) m in gusts of 0.3 N; the ground, and a pole of 0.3 m radius at (−1, 0)."""

    name: ClassVar = "quadrotor"
    summary: ClassVar = "quadrotor to a hover in gusts, above the ground and beside a pole"
    plant: Quadrotor = Quadrotor()  # pyright: ignore[reportIncompatibleVariableOverride]
    dt = 0.02
    horizon = 250
    input_low, input_high = np.array([0.0, -0.3, -0.3, -0.1]), np.array([20.0, 0.3, 0.3, 0.1])
    state_low = np.array([-5.0] * 3 + [-1.1] * 4 + [-10.0] * 3 + [-25.0] * 3)
    state_high = np.array([5.0] * 3 + [1.1] * 4 + [10.0] * 3 + [25.0] * 3)
    goal = np.array([0.0, 0.0, 1.0, 1.0, *[0.0] * 9])
    goal_input = np.array([9.81, 0.0, 0.0, 0.0])
    state_weights = np.array([2.0] * 3 + [0.0, 1.0, 1.0, 1.0] + [0.2] * 3 + [0.05] * 3)
    input_weights = np.array([0.02, 1.0, 1.0, 1.0])
    start_low = np.array([-3.0, -0.5, 0.7, 1.0, *[0.0] * 3, *[-0.2] * 3, *[-0.1] * 3])
    start_high = np.array([-2.0, 0.5, 1.5, 1.0, *[0.0] * 3, *[0.2] * 3, *[0.1] * 3])
    constraints = (
        limit(plant, "pz", low=0.1),
        keep_out(plant, "pole", ("px", "py"), (-1.0, 0.0), 0.3),
    )
    disturbance = Gust(0.3, tau=0.5)
    view = ((-3.5, 1.5), (-0.2, 3.0))

    def nominal(self, t: Array, x: Array) -> Array:
        """Position loop that asks for a tilt, attitude loop that makes it; small angles, blind to the pole."""
        xp = namespace(x)
        plant = self.plant
        ex, ey, ez = (x[..., i] - self.goal[i] for i in range(3))
        ax, ay = (xp.clip(-1.5 * e - 2.0 * x[..., i], -3.0, 3.0) for e, i in ((ex, 7), (ey, 8)))
        lift = plant.mass * (plant.gravity - 4.0 * ez - 3.0 * x[..., 9])
        ew = x[..., 3]
        roll, pitch, yaw = (2.0 * x[..., i] * ew for i in (4, 5, 6))
        torque = [
            plant.Jx * (60.0 * (-ay / plant.gravity - roll) - 15.0 * x[..., 10]),
            plant.Jy * (60.0 * (ax / plant.gravity - pitch) - 15.0 * x[..., 11]),
            plant.Jz * (-10.0 * yaw - 6.0 * x[..., 12]),
        ]
        low, high = constant(self.input_low, x, xp), constant(self.input_high, x, xp)
        return xp.minimum(xp.maximum(stack([lift, *torque], xp), low), high)

    def scenery(self):
        pole = np.array([[-1.3, 0.0], [-0.7, 0.0], [-0.7, 3.0], [-1.3, 3.0], [-1.3, 0.0]])
        return [pole, np.array([[-5.0, 0.1], [5.0, 0.1]])]
