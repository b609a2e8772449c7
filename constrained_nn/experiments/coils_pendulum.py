"""CoILS on the inverted pendulum with a torque limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from constrained_nn.experiments._coils import CoILSExperiment
from control_envs.dynamics import Pendulum


@dataclass(frozen=True)
class PendulumModel(CoILSExperiment):
    """A pendulum of 0.15 kg and 0.5 m around its upper rest, from samples over half a turn to either side."""

    horizon: int = 1000

    # fast decay settles within the test; a long hold would turn the policy into a limit cycle
    rate: ClassVar[float] = 1.0
    dt: ClassVar[float] = 0.01
    name: ClassVar[str] = "coils-pendulum"
    title: ClassVar[str] = "CoILS: inverted pendulum with a torque limit"
    notes: ClassVar = (
        "Torque up to 1.5 N m; 0.74 N m hold it at any angle. Angles are not wrapped: the box is a half turn to "
        "either side of the upper rest, and 4 rad/s.",
        "Without a penalty on the correction the fit leans on it: the model is stable everywhere, and the plant is "
        "not. That row documents the failure.",
    )

    @property
    def plant(self) -> Pendulum:
        return Pendulum(mass=0.15, length=0.5, damping=0.1)

    @property
    def equilibrium(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([np.pi, 0.0]), np.zeros(1)

    @property
    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([np.pi, 4.0]), np.full(1, 1.5)


EXPERIMENT = PendulumModel()
