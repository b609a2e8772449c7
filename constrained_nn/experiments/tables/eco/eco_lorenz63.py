"""Lorenz' three modes, learned: a butterfly that no weights can make blow up."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from constrained_nn.experiments.runner import Column, Experiment
from constrained_nn.experiments.tables.eco.chaos import CHAOS_COLUMNS, ChaosExperiment, Recipe, chaos_rows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from constrained_nn.certificates import EnergyFunction

_SHOWN = {
    *("values_kl", "components_kl", "temporal_distance", "bounded_steps", "largest_norm"),
    *("far_inside", "one_step", "active", "train_minutes"),
}


@dataclass(frozen=True)
class EcoLorenz63(ChaosExperiment):
    """Long rollouts of a learned Lorenz-63 system.

    Args:
        recipe, steps, samples, far_steps, device: See `ChaosExperiment`.
        count, length: Number of training trajectories and states of each, 0.05 s apart.
        hidden: Widths of the network.
    """

    count: int = 20
    length: int = 1000
    hidden: tuple[int, ...] = (64, 64, 64)

    name: ClassVar[str] = "eco-lorenz63"
    title: ClassVar[str] = "Lorenz-63, learned and bounded"
    source: ClassVar[str] = "ECO (arXiv 2512.01984) shows figures of this system and prints no numbers"
    columns: ClassVar = (
        *(c for c in CHAOS_COLUMNS if c.name in _SHOWN),
        Column("lyapunov", "largest Lyapunov exponent [1/s]", ".3f"),
    )
    rows: ClassVar = chaos_rows()
    seeds: ClassVar = (1,)
    interval: ClassVar[float] = 0.05
    far_starts: ClassVar[int] = 64
    homogeneous: ClassVar[bool] = False
    notes: ClassVar = (
        "Steps of 0.05 s; 20 trajectories of 50 s for training. A network of three hidden layers of 64 in float32 and "
        "an energy with a dense matrix; states and energies in float64. Statistics over the last 2,000 of 10,000 steps "
        "against 2,000 of an unseen trajectory; the first row is the same for a second one, the noise floor. The "
        "largest Lyapunov exponent is that of the weights in float64, the mean over ten runs of 1,000 steps from "
        "states of the rollout; the system's is 0.906.",
        "All rows share a first stage of training; the second has the layer, the penalty, or nothing, for as many "
        "epochs. The level is the largest energy of the data times 1.1. The row ECO learns the shape of the level set "
        "too, smaller by the volume term; then its level is raised to what the last 100 states of every training "
        "trajectory need, so that no true transition among them is forbidden.",
    )

    def shape(self) -> tuple[int, ...]:
        return (3,)

    def fast(self) -> Experiment:
        recipe = replace(self.recipe, shared=2, own=1)
        return replace(self, recipe=recipe, steps=100, samples=100, far_steps=100, count=4, length=200)

    def trajectories(self, folder: Path) -> np.ndarray:
        return self._record(1, self.count, self.length)

    def truth(self, folder: Path) -> np.ndarray:
        return self._record(2, 2, self.samples)

    def _record(self, seed: int, count: int, samples: int) -> np.ndarray:
        """RK4 with steps of 0.005 s after a transient of 10 s; too quick to be kept."""
        from control_envs.dynamics import Lorenz63
        from control_envs.simulate import RK4

        plant, middle = Lorenz63(), np.array([0.0, 0.0, 25.0])
        x = middle + np.random.default_rng(seed).uniform(-20, 20, (count, 3))
        states = []
        for k in range(samples + 200):
            x = RK4(substeps=10).step(plant, 0.0, x, np.empty(0), None, self.interval, np)
            if k >= 200:
                states.append(x)
        return np.stack(states, 1).astype(np.float32)

    def network(self, data: np.ndarray) -> nn.Module:
        import torch

        from constrained_nn.experiments.tables.eco.models import convection

        return convection(torch.from_numpy(data), self.hidden)

    def energy(self, states: Tensor) -> EnergyFunction:
        from constrained_nn.certificates import DenseEnergy

        return DenseEnergy.from_data(states, headroom=1.1)

    def published(self, truth: np.ndarray, model: np.ndarray) -> dict[str, float]:
        return {}

    def norm(self, data: np.ndarray) -> Any:
        import torch

        step = torch.from_numpy(np.sqrt((np.diff(data, axis=1) ** 2).mean((0, 1)))).to(self.device)
        return lambda error: (error / step).square().mean(-1)

    def extra(self, model: nn.Module, states: np.ndarray) -> Mapping[str, float]:
        import torch

        from constrained_nn.statistics import largest_lyapunov_exponent

        if not np.isfinite(states).all():
            return {}
        steps, runs = min(1000, len(states) // 10), 10
        exponent = largest_lyapunov_exponent(
            copy.deepcopy(model).double(),  # in float32 the distance to a near trajectory is mostly rounding
            torch.from_numpy(states[:: len(states) // runs][:runs]).double().to(self.device),
            steps=steps,
            interval=self.interval,
            generator=torch.Generator().manual_seed(0),
            discard=steps // 10,
            separation=1e-6,
        )
        return {"lyapunov": float(exponent.mean())}


EXPERIMENT = EcoLorenz63(Recipe(shared=20, own=5, batch=64, horizon=(1, 4)))
