"""Bring the van der Pol oscillator to rest."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from control_envs.dynamics import VanDerPol
from control_envs.tasks.regulation import RegulationTask


class VanDerPolTask(RegulationTask):
    """Oscillator with unit damping from states up to 3 to rest, input up to 5 1/s^2."""

    name: ClassVar = "van-der-pol"
    summary: ClassVar = "van der Pol oscillator to rest under an input limit"
    plant = VanDerPol()
    dt = 0.05
    horizon = 200
    input_low, input_high = np.array([-5.0]), np.array([5.0])
    state_low, state_high = np.array([-6.0, -12.0]), np.array([6.0, 12.0])
    goal, goal_input = np.zeros(2), np.zeros(1)
    state_weights, input_weights = np.array([1.0, 1.0]), np.array([1.0])
    start_low, start_high = np.array([-3.0, -3.0]), np.array([3.0, 3.0])
    view = ((-4.0, 4.0), (-4.0, 4.0))
