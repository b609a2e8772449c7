"""CoILS on the van der Pol oscillator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from constrained_nn.experiments.tables.coils.table import CONDITIONS, CoILSExperiment
from control_envs.dynamics import VanDerPol


@dataclass(frozen=True)
class VanDerPolModel(CoILSExperiment):
    """An oscillator whose rest is unstable, from samples with states up to 3 and inputs up to 5."""

    rate: ClassVar[float] = 1.0
    name: ClassVar[str] = "coils-van-der-pol"
    title: ClassVar[str] = "CoILS: van der Pol oscillator"
    notes: ClassVar = CONDITIONS

    @property
    def plant(self) -> VanDerPol:
        return VanDerPol()

    @property
    def equilibrium(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(2), np.zeros(1)

    @property
    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        return np.full(2, 3.0), np.full(1, 5.0)


EXPERIMENT = VanDerPolModel()
