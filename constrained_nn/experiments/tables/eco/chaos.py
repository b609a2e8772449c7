"""What the experiments on learned chaos share: rows, training in two stages, long rollouts and their statistics."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from constrained_nn.experiments.runner import Column, Experiment, Published, Row
from constrained_nn.files import write_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from constrained_nn.certificates import EnergyFunction
    from constrained_nn.statistics import Reference

CLIPPED, TEST_ONLY, SOFT, ECO_ROW, ALONE, TRUTH = "clip", "test-only", "soft", "eco", "backbone", "truth"


def chaos_rows(
    alone: Mapping[str, float] | None = None, eco: Mapping[str, float] | None = None
) -> tuple[Row, ...]:
    """The rows, with the published numbers of the backbone alone and of ECO."""

    def published(values: Mapping[str, float] | None) -> dict[str, Published]:
        return {name: Published(value) for name, value in (values or {}).items()}

    return (
        Row(TRUTH, "another trajectory of the truth", seeded=False),
        Row(ALONE, "backbone alone", published(alone)),
        Row(CLIPPED, "backbone, states clipped to a ball"),
        Row(SOFT, "backbone, soft dissipativity (Markov neural operator)"),
        Row(TEST_ONLY, "ECO layer in the test only"),
        Row(ECO_ROW, "ECO", published(eco)),
    )


CHAOS_COLUMNS = (
    Column("physical_kl", "KL of values, published definition", ".4f"),
    Column("pca_kl", "KL in the PCA plane, published definition", ".3f"),
    Column("log_spectral", "log-spectral distance, published definition", ".4f"),
    Column("values_kl", "KL of values", ".4f"),
    Column("components_kl", "KL in the PCA plane", ".3f"),
    Column("spatial_distance", "log-spectral distance in space", ".3f"),
    Column("temporal_distance", "in time", ".4f"),
    Column("ring_radius", "median radius in the PCA plane", ".1f"),
    Column("wave_radius", "of the leading wave", ".2f"),
    Column("bounded_steps", "steps within 10 times the start's norm", ".0f"),
    Column("largest_norm", "largest norm, in that of the start", ".3g"),
    Column("far_inside", "starts of 1 to 100 times the norm that end inside the level set [%]", ".0f"),
    Column("one_step", "error of one step [%]", ".2g"),
    Column("active", "steps the layer changed [%]", ".3f"),
    Column("train_minutes", "training [min of one core]", ".1f"),
)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: first without the row's own constraint or penalty, then with it, for equal budgets.

    Args:
        shared: Epochs that all rows have in common.
        own: Epochs with the row's own layer or penalty (for the backbone alone: with nothing).
        learning_rate, final_learning_rate: Adam's, along a cosine in the first stage; the second
            stage goes from `restart` times the first one's start to the same end.
        restart: See there.
        batch: Windows a step.
        horizon: Steps of a window in the first stage and in the second.
        every: Distance between two windows, in samples.
        sobolev: Order of the derivatives in the loss.
        noise: Noise on the first state of a window, in standard deviations.
        volume: Weight of the volume of the level set.
        max_norm: Longest gradient.
    """

    shared: int
    own: int
    learning_rate: float = 2e-3
    final_learning_rate: float = 2e-5
    restart: float = 0.25
    batch: int = 32
    horizon: tuple[int, int] = (1, 2)
    every: int = 1
    sobolev: float = 0.0
    noise: float = 0.0
    volume: float = 1e-6
    max_norm: float = 1.0


@dataclass(frozen=True)
class ChaosExperiment(Experiment):
    """Learned next states of a chaotic system, free and constrained, by what they do in the long run.

    Args:
        recipe: Training.
        steps: Model steps of the long rollout, each of `substeps` applications of the network.
        samples: States that the statistics are taken over: the last ones of the rollout, and as
            many of the truth.
        far_steps: Steps from far starts.
        device: Device of training and rollouts.
    """

    recipe: Recipe
    steps: int = 10_000
    samples: int = 2_000
    far_steps: int = 1_000
    device: str = "cpu"

    columns: ClassVar = CHAOS_COLUMNS
    alpha: ClassVar[float] = 0.99
    substeps: ClassVar[int] = 1
    interval: ClassVar[float] = 1.0
    far_starts: ClassVar[int] = 4
    homogeneous: ClassVar[bool] = True
    safety: ClassVar[float | None] = None

    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Grid of the state; states are flattened."""

    @abstractmethod
    def trajectories(self, folder: Path) -> np.ndarray:
        """Training data `(count, samples, n)`, float32, at intervals of one application of the network."""

    @abstractmethod
    def truth(self, folder: Path) -> np.ndarray:
        """Unseen trajectories `(2 runs, T, n)`, float32, at intervals of one step; half of them are the reference."""

    @abstractmethod
    def network(self, data: np.ndarray) -> nn.Module:
        """The next state of a state, with fresh weights."""

    @abstractmethod
    def energy(self, states: Tensor) -> EnergyFunction:
        """Energy with center, shape and level from states `(count, n)`."""

    @abstractmethod
    def published(self, truth: np.ndarray, model: np.ndarray) -> dict[str, float]:
        """Measures of states `(samples, *grid)` as the paper's code defines them."""

    def as_published(self, truth: np.ndarray, model: np.ndarray, half_width: float) -> dict[str, float]:
        """The three measures of the table, with the box of the PCA plane."""
        from constrained_nn.statistics import (
            published_log_spectral_distance,
            published_pca_kl,
            published_physical_kl,
        )

        flat = (w.reshape(len(w), -1) for w in (truth, model))
        return {
            "physical_kl": published_physical_kl(truth, model),
            "pca_kl": published_pca_kl(*flat, half_width=half_width),
            "log_spectral": published_log_spectral_distance(truth, model),
        }

    def on(self, device: str) -> Experiment:
        return replace(self, device=device)

    def settings(self) -> Mapping[str, Any]:
        """Everything but the device."""
        values = asdict(self)
        del values["device"]
        return values | {"alpha": self.alpha, "substeps": self.substeps, "interval": self.interval}

    # --- one cell ------------------------------------------------------------------------------------------

    def run(self, row: str, seed: int | None, directory: Path) -> Mapping[str, float]:
        import torch

        from constrained_nn.evidence import save_evolution
        from constrained_nn.experiments.tables.eco.models import shadow
        from constrained_nn.models import ECO
        from constrained_nn.statistics import Reference

        folder = directory.parent / "data"
        truth = self.truth(folder)
        grid = truth.reshape(*truth.shape[:2], *self.shape())
        half = len(grid) // 2
        reference = Reference.of(grid[:half], self.interval)
        if row == TRUTH:
            return self.measure(reference, grid[half:])
        model, measures = self.train(row, int(seed or 0), directory)
        model.eval()
        with torch.no_grad():
            measures |= self.one_step(model, truth)
            states, found = self.long_rollout(model, truth[0, 0])
            measures |= found
            np.savez(directory / "rollout.npz", states=states[-self.samples :])
            measures |= self.from_afar(model, truth)
            measures |= self.extra(model, states)
        if isinstance(model, ECO):
            save_evolution(directory, self.name, model, dtype=torch.float64)  # for `constrained-nn certify`
            mean, plane = (torch.from_numpy(x).to(self.device) for x in (reference.mean, reference.plane))
            center, shape = shadow(model.energy, mean, plane)
            np.savez(directory / "level_set.npz", center=center.cpu().numpy(), shape=shape.cpu().numpy())
        last = states[-self.samples :]
        if not np.isfinite(last).any():
            return measures  # gone: there is nothing to have statistics of
        return measures | self.measure(reference, last[None])

    def extra(self, model: nn.Module, states: np.ndarray) -> Mapping[str, float]:
        """Further measures of the model, with the states of its long rollout."""
        return {}

    def measure(self, reference: Reference, states: np.ndarray) -> dict[str, float]:
        """All measures of states `(runs, T, *grid)`; the published ones of as many states as the model has."""
        from constrained_nn.statistics import LeadingWave

        truth, model = (w.reshape(-1, *self.shape()) for w in (reference.states, states))
        measures = self.published(truth[: self.samples], model[: self.samples]) | reference.compare(states)
        if self.homogeneous:
            measures["wave_radius"] = LeadingWave.of(truth).radius(model)
        return measures

    def train(self, row: str, seed: int, directory: Path) -> tuple[nn.Module, dict[str, float]]:
        """The trained model of a row, and what its training tells."""
        import torch

        from constrained_nn.certificates import energy_report
        from constrained_nn.experiments.tables.eco.models import ClippedToBall
        from constrained_nn.models import ECO

        data = np.array(self.trajectories(directory.parent / "data"))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.network(data).to(self.device)
        flat = torch.from_numpy(data[:, :: max(1, data.shape[1] // 100)]).flatten(0, 1).double()
        energy = self.energy(flat).to(self.device)
        longest = float((flat - flat.mean(0)).norm(dim=-1).max())
        shared = directory.parent / f"shared-seed{seed}"
        self.stage(network, data, 0, shared, seed)
        own, model = (row if row in (SOFT, ECO_ROW) else ALONE), network
        if own == ECO_ROW:
            model = ECO(network, energy, alpha=self.alpha, safety=self.safety)
        place = directory if own == row else directory.parent / f"{ALONE}-seed{seed}"
        far = self.soft(longest) if own == SOFT else None
        self.stage(
            model, data, 1, place, seed, soft=far, volume=self.recipe.volume if own == ECO_ROW else 0.0
        )
        minutes = read_minutes(shared) + read_minutes(place)
        if row == CLIPPED:
            model = ClippedToBall(network, flat.mean(0).to(self.device), 1.1 * longest)
        elif row == TEST_ONLY:
            model = ECO(network, energy, alpha=self.alpha, safety=self.safety)
        measures = {"train_minutes": minutes, "largest_data_norm": longest}
        if isinstance(model, ECO):
            pairs = torch.from_numpy(data[:, -100:]).to(self.device)
            now, then = pairs[:, :-1].flatten(0, 1), pairs[:, 1:].flatten(0, 1)
            report = energy_report(energy, now, then, alpha=self.alpha)
            learned = {"learned_level_forbids": 100 * report.forbidden, "coverage": 100 * report.coverage}
            if report.level_without > report.level:  # the level that the learned shape needs
                energy.set_level(1.02 * report.level_without)
            measures |= learned | {"log_volume": report.log_volume, "level": float(energy.level)}
        return model, measures

    def soft(self, longest: float) -> Any:
        """Penalty of the row `soft`."""
        from constrained_nn.training import SoftDissipativity

        return SoftDissipativity(1.5 * longest, 3.0 * longest, weight=0.1)

    def stage(
        self,
        model: nn.Module,
        data: np.ndarray,
        number: int,
        directory: Path,
        seed: int,
        *,
        soft: Any = None,
        volume: float = 0.0,
    ) -> None:
        from constrained_nn.training import fit_operator

        r = self.recipe
        directory.mkdir(parents=True, exist_ok=True)
        before, began = read_minutes(directory), time.process_time()

        def note(epoch: int, loss: float) -> None:
            write_json(directory / "minutes.json", before + (time.process_time() - began) / 60.0)

        fit_operator(
            model,
            data,
            epochs=(r.shared, r.own)[number],
            batch=r.batch,
            learning_rate=(1.0, r.restart)[number] * r.learning_rate,
            final_learning_rate=r.final_learning_rate,
            seed=seed + number,
            horizon=r.horizon[number],
            norm=self.norm(data),
            noise=r.noise * float(data[:, ::50].std()),
            volume=volume,
            dissipativity=soft,
            every=r.every,
            max_norm=r.max_norm,
            device=self.device,
            checkpoint=directory / f"stage{number}.safetensors",
            progress=note,
        )

    def norm(self, data: np.ndarray) -> Any:
        """Square of the size of an error, in which the increments of the data have size about one."""
        import torch

        from constrained_nn.training import Sobolev

        sobolev = Sobolev(self.shape(), self.recipe.sobolev, cutoff=self.shape()[0] / 16.0)
        increments = torch.from_numpy(np.diff(data[:, :200], axis=1)[:, ::10])
        scale = float(sobolev(increments).mean())
        return lambda error: sobolev(error) / scale

    # --- rollouts ------------------------------------------------------------------------------------------

    def advance(self, model: nn.Module, w: Tensor) -> Tensor:
        """One step of `interval`."""
        for _ in range(self.substeps):
            w = model(w)
        return w

    def one_step(self, model: nn.Module, truth: np.ndarray) -> dict[str, float]:
        import torch

        both = torch.from_numpy(truth[:, :: max(1, truth.shape[1] // 50)].copy())
        following = torch.from_numpy(truth[:, 1 :: max(1, truth.shape[1] // 50)].copy())
        count = min(both.shape[1], following.shape[1])
        start, end = (x[:, :count].flatten(0, 1).double().to(self.device) for x in (both, following))
        error = (self.advance(model, start) - end).norm(dim=-1) / end.norm(dim=-1)
        return {"one_step": 100 * float(error.mean())}

    def long_rollout(self, model: nn.Module, start: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
        """States after each step `(steps, *grid)`, float32, and how far they went; NaN after the last finite one."""
        import torch

        from constrained_nn.models import ECO

        w = torch.from_numpy(start.copy()).double().to(self.device).unsqueeze(0)
        reach = float(w.norm())
        states = np.full((self.steps, w.shape[-1]), np.nan, np.float32)
        active, largest, bounded = 0, 0.0, self.steps
        for k in range(self.steps):
            for _ in range(self.substeps):
                if isinstance(model, ECO):
                    step = model.solve(w)
                    active += int((step.value != step.raw).any())
                    w = step.value
                else:
                    w = model(w)
            size = float(w.norm()) / reach
            largest = max(largest, size) if np.isfinite(size) else float("inf")
            if not size <= 10.0:
                bounded = min(bounded, k)
            if not size <= 1e8:
                break
            states[k] = w[0].float().cpu().numpy()
        found = {"bounded_steps": float(bounded), "largest_norm": largest}
        if isinstance(model, ECO):
            found["active"] = 100.0 * active / (self.steps * self.substeps)
        return states.reshape(-1, *self.shape()), found

    def from_afar(self, model: nn.Module, truth: np.ndarray) -> dict[str, float]:
        """Share of starts of 1 to 100 times the norm of the truth that end inside the level set; for `ECO`."""
        import torch

        from constrained_nn.models import ECO

        if not isinstance(model, ECO):
            return {}
        times = torch.logspace(0, 2, self.far_starts, dtype=torch.float64).unsqueeze(-1)
        pick = np.linspace(0, truth.shape[1] - 1, self.far_starts).astype(int)
        start = (times * torch.from_numpy(truth[1, pick]).double()).to(self.device)
        rollout = model.rollout(start, self.far_steps, every=self.far_steps)
        inside = rollout.energy[-1] <= model.energy.level.double()
        return {
            "far_inside": 100.0 * float(inside.double().mean()),
            "far_violation": float(rollout.violation.max()),
        }


def read_minutes(directory: Path) -> float:
    """Minutes of training that a folder has seen, over all resumptions."""
    file = directory / "minutes.json"
    return float(json.loads(file.read_text())) if file.exists() else 0.0
