"""SD-LQR's spacecraft: how many samples a learned regulator needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from constrained_nn.experiments.runner import Row
from constrained_nn.experiments.tables.sd_lqr.table import NOTES, STEPS, RegulatorExperiment, published

if TYPE_CHECKING:
    from collections.abc import Mapping

    from control_envs.tasks import RegulationTask


@dataclass(frozen=True)
class SpacecraftRegulator(RegulatorExperiment):
    """Regulators of a spacecraft with an offset center of mass."""

    steps: Mapping[str, int] = field(default_factory=lambda: dict(STEPS))

    name: ClassVar[str] = "sd-lqr-spacecraft"
    title: ClassVar[str] = "SD-LQR: spacecraft, few samples"
    rows: ClassVar = (
        Row("sd-lqr", "SD-LQR, mean-value factors of an economical model", published(0.483, 0.483, 0.483)),
        Row("lqr-economical", "LQR of the same model"),
        Row("sd-lqr-joint", "SD-LQR, learned factors, as published", published(0.483, 0.483, 0.483)),
        Row("lqr-joint", "LQR of the model trained with factors"),
        Row("lqr-learned", "LQR of a learned model, as published", published(22.9, 1.00, 0.48)),
        Row("lqr-scaled", "LQR of a learned model, in scaled units"),
        Row("ccm", "contraction metric", published(113.0, 179.0, 0.5)),
        Row("lqr-known", "LQR of the known plant", published(0.483, 0.483, 0.483), seeded=False),
        Row("sd-lqr-known", "SD-LQR of the known plant", seeded=False),
    )
    notes: ClassVar = (
        *NOTES,
        "Riccati equations at 50 Hz, inputs at 150 Hz.",
    )
    near: ClassVar[float] = 0.2
    refresh: ClassVar[int] = 3
    room: ClassVar = (1.0, 1.0, 0.1)

    @property
    def task(self) -> RegulationTask:
        from control_envs.tasks import SpacecraftTask

        return SpacecraftTask()


EXPERIMENT = SpacecraftRegulator()
