"""CoILS on the planar aircraft with two rotors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from constrained_nn.experiments.tables.coils.table import CONDITIONS, CoILSExperiment
from control_envs.dynamics import PlanarBirotor


@dataclass(frozen=True)
class BirotorModel(CoILSExperiment):
    """A planar aircraft around hover, its rotors limited."""

    grid: int = 3
    count: int = 2000
    epochs: int = 60
    rate: ClassVar[float] = 0.8
    name: ClassVar[str] = "coils-birotor"
    title: ClassVar[str] = "CoILS: planar aircraft on two rotors"
    notes: ClassVar = (
        *CONDITIONS,
        "Each rotor within 1 N of the thrust that holds the aircraft, 2.45 N; 1 m, 0.5 rad, 1 m/s and 1 rad/s to "
        "either side of hover.",
    )

    @property
    def plant(self) -> PlanarBirotor:
        return PlanarBirotor()

    @property
    def equilibrium(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(6), np.full(2, 0.5 * 0.5 * 9.81)

    @property
    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([1.0, 1.0, 0.5, 1.0, 1.0, 1.0]), np.full(2, 1.0)


EXPERIMENT = BirotorModel()
