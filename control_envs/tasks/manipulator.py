"""Swing a two-link arm to a pose beneath a ceiling."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from control_envs.dynamics import Manipulator
from control_envs.tasks.base import Array, TaskConstraint, limit
from control_envs.tasks.regulation import RegulationTask

_ARM = Manipulator(lengths=(0.5, 0.5), masses=(1.0, 1.0))
CEILING = 0.6


def _above_ceiling(t: Array, x: Array, u: Array) -> Array:
    return _ARM.tip(x[..., :2])[..., 1] - CEILING


class ManipulatorTask(RegulationTask):
    """Two links of 0.5 m and 1 kg to (2, 0.3) rad; torques up to 15 and 6 N m, speeds up to 5 rad/s, a ceiling."""

    name: ClassVar = "manipulator"
    summary: ClassVar = "two-link planar arm to a pose, joint speed limits and a ceiling"
    plant = _ARM
    dt = 0.02
    horizon = 200
    input_low, input_high = np.array([-15.0, -6.0]), np.array([15.0, 6.0])
    state_low, state_high = (
        np.array([-np.inf, -np.inf, -40.0, -40.0]),
        np.array([np.inf, np.inf, 40.0, 40.0]),
    )
    goal = np.array([2.0, 0.3, 0.0, 0.0])
    goal_input = plant.g(goal[:2])
    state_weights, input_weights = np.array([10.0, 10.0, 0.1, 0.1]), np.array([0.1, 0.1])
    start_low, start_high = np.array([-0.5, -0.5, -0.1, -0.1]), np.array([0.5, 0.5, 0.1, 0.1])
    constraints = (
        limit(plant, "rate1", size=5.0),
        limit(plant, "rate2", size=5.0),
        TaskConstraint("ceiling", "m", _above_ceiling),
    )
    view = ((-1.2, 1.2), (-1.2, 1.0))

    def scenery(self):
        return [np.array([[-1.2, CEILING], [1.2, CEILING]])]
