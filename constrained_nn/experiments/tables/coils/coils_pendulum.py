"""CoILS on the inverted pendulum with a torque limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from constrained_nn.experiments.tables.coils.table import CONDITIONS, CoILSExperiment
from control_envs.dynamics import Pendulum


@dataclass(frozen=True)
class PendulumModel(CoILSExperiment):
    """A pendulum of 0.15 kg and 0.5 m around its upper rest, from samples over half a turn to either side."""

    # V must shrink by exp(−15) within the test: to 2 % of the box, with room for its level sets
    # being no spheres
    rate: ClassVar[float] = 1.5
    name: ClassVar[str] = "coils-pendulum"
    title: ClassVar[str] = "CoILS: inverted pendulum with a torque limit"
    notes: ClassVar = (
        *CONDITIONS,
        "Torque up to 1.5 N m; 0.74 N m hold it at any angle. Angles are not wrapped: the box is a half turn to "
        "either side of the upper rest, and 4 rad/s.",
        "The torque outweighs everything else in the velocities, so that a small relative error of the fit is a large "
        "one beside gravity, and the states where no torque helps are a thin strip. Three things therefore decide: "
        "networks of outputs scaled to the samples; a penalty that leaves the model to the samples (else it bends, "
        "and the fit is some ten times as bad); and the worst states of the box in the penalty (on the samples alone "
        "the strip gets thinner instead of better, and the plant slides along it at a tenth of the rate).",
        "Without a penalty the model is stable all the same, its correction fills a strip of one or two per cent of "
        "the box, and on the plant dV/dt is negative nearly everywhere. But the plant has to pass through the strip, "
        "where only the model moves on: almost no start arrives. That row documents the failure.",
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
