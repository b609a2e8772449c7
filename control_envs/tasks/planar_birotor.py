"""Bring a planar aircraft on two rotors to a hover at the origin."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from control_envs.dynamics import PlanarBirotor
from control_envs.tasks.regulation import RegulationTask


class PlanarBirotorTask(RegulationTask):
    """Birotor of 0.5 kg from within 10 m to a hover; each rotor pulls 0.1 to 2 times the weight; 150 Hz.

    References:
        Richards et al., Learning control-oriented dynamical structure from data (arXiv 2302.02529): plant and boxes.
    """

    name: ClassVar = "planar-birotor"
    summary: ClassVar = "planar aircraft on two rotors to a hover"
    plant = PlanarBirotor()
    dt = 1.0 / 150.0
    horizon = 1500
    input_low, input_high = np.full(2, 0.1 * 0.5 * 9.81), np.full(2, 2.0 * 0.5 * 9.81)
    state_low = np.array([-40.0, -40.0, -np.inf, -40.0, -40.0, -60.0])
    state_high = np.array([40.0, 40.0, np.inf, 40.0, 40.0, 60.0])
    goal, goal_input = np.zeros(6), np.full(2, 0.25 * 9.81)
    state_weights, input_weights = np.ones(6), np.ones(2)
    start_low = np.array([-10.0, -10.0, -np.pi / 3, -2.0, -1.0, -np.pi / 3])
    start_high = -start_low
    view = ((-14.0, 14.0), (-14.0, 14.0))
