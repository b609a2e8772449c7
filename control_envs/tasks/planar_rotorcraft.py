"""Hover in wind: the planar rotorcraft, fully actuated and as a PVTOL."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from control_envs.disturbances import Drawn, ScaledBeta
from control_envs.dynamics import PVTOL, PlanarRotorcraft
from control_envs.tasks.base import limit
from control_envs.tasks.regulation import RegulationTask


class _Hover(RegulationTask):
    dt = 0.02
    horizon = 250
    state_low = np.array([-6.0, -6.0, -np.inf, -15.0, -15.0, -15.0])
    state_high = np.array([6.0, 6.0, np.inf, 15.0, 15.0, 15.0])
    goal = np.zeros(6)
    state_weights = np.array([2.0, 2.0, 1.0, 0.2, 0.2, 0.1])
    start_low = np.array([-2.0, -1.0, -0.3, -0.5, -0.5, -0.2])
    start_high = np.array([2.0, 2.0, 0.3, 0.5, 0.5, 0.2])
    view = ((-4.0, 4.0), (-3.0, 3.0))

    def scenery(self):
        return [np.array([[-4.0, -2.0], [4.0, -2.0]])]


class PlanarRotorcraftTask(_Hover):
    """Fully actuated rotorcraft at the origin in the training wind `6 Beta(5, 9)` m/s; floor at −2 m, tilt 1 rad.

    References:
        Richards et al., Control-oriented meta-learning (arXiv 2204.06716): plant and wind; the hover task is ours.
    """

    name: ClassVar = "planar-rotorcraft"
    summary: ClassVar = "fully actuated planar rotorcraft to a hover in wind"
    plant = PlanarRotorcraft()
    goal_input, input_weights = np.array([9.81, 0.0, 0.0]), np.full(3, 0.02)
    input_low, input_high = np.array([0.0, -10.0, -10.0]), np.array([20.0, 10.0, 10.0])
    constraints = (limit(plant, "py", low=-2.0), limit(plant, "phi", size=1.0))
    disturbance = Drawn(ScaledBeta(6.0, 5.0, 9.0))


class PVTOLTask(_Hover):
    """PVTOL at the origin in the training wind `3 Beta(5, 9)` m/s; floor at −2 m, tilt up to 1 rad.

    References:
        Richards et al., Control-oriented meta-learning (arXiv 2204.06716): plant and wind; the hover task is ours.
    """

    name: ClassVar = "pvtol"
    summary: ClassVar = "underactuated planar aircraft to a hover in wind"
    plant = PVTOL()
    goal_input, input_weights = np.array([9.81, 0.0]), np.full(2, 0.02)
    input_low, input_high = np.array([0.0, -20.0]), np.array([20.0, 20.0])
    constraints = (limit(plant, "py", low=-2.0), limit(plant, "phi", size=1.0))
    disturbance = Drawn(ScaledBeta(3.0, 5.0, 9.0))
