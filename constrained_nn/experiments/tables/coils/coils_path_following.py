"""CoILS on a bicycle that follows a circle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from constrained_nn.experiments.tables.coils.table import CONDITIONS, CoILSExperiment
from control_envs.dynamics import PathFollowing


@dataclass(frozen=True)
class PathModel(CoILSExperiment):
    """A bicycle at 6 m/s beside a circle of 6 m, whose goal needs a steering angle that is not 0."""

    # 2 % of the box are reached within a few seconds of the ten
    rate: ClassVar[float] = 1.0
    name: ClassVar[str] = "coils-path-following"
    title: ClassVar[str] = "CoILS: path following"
    notes: ClassVar = (
        *CONDITIONS,
        "Steering by 0.7 rad to either side of the angle that holds the path, `atan(l/radius)`; up to 1 m beside the "
        "path and 0.8 rad across it. The input enters as a tangent, which the model, affine in it, can fit only "
        "roughly.",
    )

    @property
    def plant(self) -> PathFollowing:
        return PathFollowing()

    @property
    def equilibrium(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(2), np.array([PathFollowing().hold])

    @property
    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([1.0, 0.8]), np.full(1, 0.7)


EXPERIMENT = PathModel()
