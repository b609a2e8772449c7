"""Kolmogorov flow at Reynolds number 40, learned: a turbulence that stays on its ring for ten thousand steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from constrained_nn.experiments.runner import Experiment
from constrained_nn.experiments.tables.eco.chaos import ChaosExperiment, Recipe, chaos_rows

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from constrained_nn.certificates import EnergyFunction


@dataclass(frozen=True)
class EcoKolmogorov(ChaosExperiment):
    """Long rollouts of a learned Kolmogorov flow.

    Args:
        recipe, steps, samples, far_steps, device: See `ChaosExperiment`.
        count, length: Number of training trajectories and states of each, 0.05 s apart.
        inner: Points in each direction of the grid that the network sees, of 64.
        width, depth: Of the transport operator.
        tests, test_length: Number of unseen trajectories and states of each, a second apart.
        dt: Step of the solver [s].
    """

    count: int = 32
    length: int = 1000
    inner: int = 48
    width: int = 8
    depth: int = 4
    tests: int = 16
    test_length: int = 500
    dt: float = 0.025

    name: ClassVar[str] = "eco-kolmogorov"
    title: ClassVar[str] = "Kolmogorov flow at Reynolds number 40, learned and bounded"
    source: ClassVar[str] = "ECO (arXiv 2512.01984), Table 1: DeepONet alone and with ECO"
    rows: ClassVar = chaos_rows(
        {"physical_kl": 0.141, "pca_kl": 5.298, "log_spectral": 11.79},
        {"physical_kl": 0.06221, "pca_kl": 0.9877, "log_spectral": 0.3689},
    )
    seeds: ClassVar = (1,)
    substeps: ClassVar[int] = 20
    safety: ClassVar[float | None] = 1e-8  # the energy's condition number is in what rounding may take
    notes: ClassVar = (
        "64 by 64 points, steps of 1 s, vorticity. A reduced training, for one core: 32 trajectories of 50 s after a "
        "transient of 50 s. The network is a transport operator in float32 (products of the field with its velocities "
        "and gradients, which are given, with learned coefficients); it sees 48 by 48 points and the force, steps "
        "0.05 s, and is applied twenty times a step. States and energies in float64.",
        "Statistics over the last 2,000 of 10,000 steps, against 8 unseen trajectories of 500 s (the published "
        "measures take 2,000 states of them); the first row is the same for 8 others, the noise floor. Published "
        "definitions: values in 50 bins over the joint range; 50 by 50 bins of a fixed box in the PCA plane; power by "
        "shells of integer wavenumber.",
        "All rows share a first stage of training; the second has the layer, the penalty, or nothing, for as many "
        "epochs. The level is the largest energy of the data times 1.1. The row ECO learns the shape of the level set "
        "too, smaller by the volume term; then its level is raised to what the last 100 states of every training "
        "trajectory (5 s) need, so that no true transition among them is forbidden.",
        "Settings were chosen on eight trajectories of another seed; that the center must keep its mean was noticed on "
        "those of the table. The plane of a sample is noisy: four groups of 2,000 states of the truth have median "
        "radii of 70.6, 69.6, 77.9 and 76.0 in that of the table, and 16 trajectories of 500 s, each in its own, 50 to "
        "83. In the plane of all translates, that of the leading wave, each of the 16 has 74.9 to 76.2, and all "
        "together 75.45.",
        "The cells were made with a share of 1e-11 of the bound kept free for rounding. The proof of the one-step "
        "bound (`constrained-nn certify` of a model's folder) asks for 1.9e-9; since then 1e-8 are kept free.",
    )

    def shape(self) -> tuple[int, ...]:
        return (64, 64)

    def fast(self) -> Experiment:
        return replace(
            self,
            recipe=replace(self.recipe, shared=1, own=1, batch=4, horizon=(1, 2)),
            steps=6,
            samples=6,
            far_steps=3,
            count=1,
            length=8,
            tests=2,
            test_length=6,
            inner=16,
            width=4,
            depth=1,
        )

    def trajectories(self, folder: Path) -> np.ndarray:
        return self._record(folder, seed=1, count=self.count, samples=self.length, interval=0.05, batch=8)

    def truth(self, folder: Path) -> np.ndarray:
        return self._record(
            folder, seed=0, count=self.tests, samples=self.test_length, interval=1.0, batch=16
        )

    def _record(self, folder: Path, **options: Any) -> np.ndarray:
        from control_envs.flows import KolmogorovFlow, record

        flow = KolmogorovFlow()
        transient = 50.0 if self.steps > 100 else 1.0
        states = record(flow, dt=self.dt, transient=transient, folder=folder, device=self.device, **options)
        return states.reshape(*states.shape[:2], -1)

    def network(self, data: np.ndarray) -> nn.Module:
        import torch

        from constrained_nn.experiments.tables.eco.models import vorticity

        return vorticity(torch.from_numpy(data), 64, self.inner, self.width, self.depth, wavenumber=4)

    def energy(self, states: Tensor) -> EnergyFunction:
        from constrained_nn.certificates import FourierEnergy

        energy = FourierEnergy.from_data(states, (64, 64), headroom=1.1, floor=1e-6)
        energy.mean.requires_grad_(False)  # the flow conserves the mean, and so shall the ray to the center
        return energy

    def published(self, truth: np.ndarray, model: np.ndarray) -> dict[str, float]:
        return self.as_published(truth, model, half_width=200.0)


EXPERIMENT = EcoKolmogorov(
    Recipe(
        shared=16,
        own=1,
        learning_rate=1e-2,
        restart=0.01,
        batch=4,
        horizon=(2, 4),
        every=5,
        sobolev=2.0,
        noise=0.002,
    )
)
