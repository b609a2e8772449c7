"""Kuramoto-Sivashinsky equation, learned by the published backbone from as many trajectories as published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from constrained_nn.experiments.runner import Experiment
from constrained_nn.experiments.tables.eco.chaos import Recipe
from constrained_nn.experiments.tables.eco.eco_ks import EcoKuramotoSivashinsky

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


@dataclass(frozen=True)
class EcoKuramotoSivashinskyDeepONet(EcoKuramotoSivashinsky):
    """`EcoKuramotoSivashinsky` with a DeepONet that gives the next state itself, a second later.

    Args:
        recipe, steps, samples, far_steps, device, inner, width, depth, kernel: See
            `EcoKuramotoSivashinsky`.
        count, length: Number of training trajectories and states of each, a second apart.
        channels, hidden, basis, harmonics: Of the DeepONet.
    """

    count: int = 6
    length: int = 500
    channels: tuple[int, ...] = (32, 64, 128, 256)
    hidden: tuple[int, ...] = (256, 256, 256)
    basis: int = 256
    harmonics: int = 32

    name: ClassVar[str] = "eco-ks-deeponet"
    title: ClassVar[str] = "Kuramoto-Sivashinsky equation, with the published backbone"
    seeds: ClassVar = (1,)
    substeps: ClassVar[int] = 1
    notes: ClassVar = (
        "Period 32π, 512 points, steps of 1 s. As published: 6 trajectories of 500 s for training, a DeepONet with "
        "four strided convolutions that gives the next state itself, the mean square error of one step. Ours: 60 "
        "epochs in batches of 64 (published: 40,000 in batches of 2,048), a trunk that sees 32 harmonics (with the "
        "first alone it learned nothing in as long), and the ray in place of the published map. Statistics over "
        "the last 2,000 of 10,000 steps, against 2,000 s of an unseen trajectory; the first row is the same for a "
        "second unseen trajectory, the noise floor.",
        *EcoKuramotoSivashinsky.notes[2:],
    )

    def fast(self) -> Experiment:
        return replace(super().fast(), channels=(4,), hidden=(8,), basis=8, harmonics=4)  # type: ignore[type-var]

    def trajectories(self, folder: Path) -> np.ndarray:
        return self._record(folder, seed=1, count=self.count, samples=self.length, interval=1.0)

    def network(self, data: np.ndarray) -> nn.Module:
        import torch

        from constrained_nn.experiments.tables.eco.models import published_fronts

        return published_fronts(
            torch.from_numpy(data.copy()), self.channels, self.hidden, self.basis, self.harmonics
        )


EXPERIMENT = EcoKuramotoSivashinskyDeepONet(
    Recipe(shared=48, own=12, learning_rate=1e-3, final_learning_rate=1e-5, batch=64, horizon=(1, 1))
)
