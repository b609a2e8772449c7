"""Change lanes past a parked vehicle."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from control_envs.arrays import constant, namespace, stack
from control_envs.dynamics import Car, circle
from control_envs.tasks.base import Array, keep_out, limit
from control_envs.tasks.regulation import QuadraticTask


class CarTask(QuadraticTask):
    """Car at 8 m/s along `y = 0`, an obstacle of 2 m radius at (25, 0.5), a road of ±4 m, steering up to 0.5 rad."""

    name: ClassVar = "car"
    summary: ClassVar = "kinematic car along a road, past an obstacle"
    plant = Car()
    dt = 0.05
    horizon = 120
    input_low, input_high = np.array([-5.0, -1.0]), np.array([3.0, 1.0])
    state_low, state_high = (
        np.array([-10.0, -10.0, -np.inf, -2.0, -0.7]),
        np.array([100.0, 10.0, np.inf, 20.0, 0.7]),
    )
    goal, goal_input = np.array([50.0, 0.0, 0.0, 8.0, 0.0]), np.zeros(2)
    state_weights, input_weights = np.array([0.0, 0.5, 5.0, 0.2, 1.0]), np.array([0.05, 0.5])
    start_low, start_high = np.array([-1.0, -1.0, -0.1, 7.0, 0.0]), np.array([1.0, 1.0, 0.1, 9.0, 0.0])
    constraints = (
        keep_out(plant, "obstacle", ("px", "py"), (25.0, 0.5), 2.0),
        limit(plant, "py", size=4.0),
        limit(plant, "delta", size=0.5),
    )
    view = ((-5.0, 55.0), (-8.0, 8.0))

    def nominal(self, t: Array, x: Array) -> Array:
        """Holds the speed and follows `y = 0`, blind to the obstacle."""
        xp = namespace(x)
        steer = -0.05 * x[..., 1] - 0.8 * xp.sin(x[..., 2])
        u = stack([self.goal[3] - x[..., 3], 5.0 * (steer - x[..., 4])], xp)
        low, high = constant(self.input_low, x, xp), constant(self.input_high, x, xp)
        return xp.minimum(xp.maximum(u, low), high)

    def brake(self, t: Array, x: Array) -> Array:
        """Stops as hard as the tires allow, steering held."""
        xp = namespace(x)
        v = x[..., 3]
        return stack([xp.clip(-v / self.dt, self.input_low[0], self.input_high[0]), xp.zeros_like(v)], xp)

    def scenery(self):
        edges = [np.array([[-5.0, y], [55.0, y]]) for y in (-4.0, 4.0)]
        return [circle((25.0, 0.5), 2.0), *edges]
