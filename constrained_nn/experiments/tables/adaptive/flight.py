"""What the experiments with rotorcraft in wind share: references, winds, tests, published figures."""

from __future__ import annotations

import math
import shutil
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from constrained_nn.experiments.runner import Experiment
from control_envs.disturbances import ScaledBeta
from control_envs.references import (
    ReferenceTable,
    Spline,
    minimum_derivative_spline,
    proportional_times,
    random_walk,
)

if TYPE_CHECKING:
    from torch import Tensor

    from constrained_nn.control import Controller, DynamicController

MODELS = (2, 5, 10, 20, 50)
TRAJECTORIES = 500  # recorded flights that a run chooses from
DATA_SEED, TEST_SEED, META_SEED = 0, 42, 1000


def flights(
    rows: Sequence[int],
    seed: int,
    duration: float,
    derivatives: tuple[int, ...],
    *,
    roll: float | None,
    order: int,
    total: int | None = None,
) -> Spline:
    """Random references of the paper: five steps of up to 2 m (and π/6), knots of the roll cut off at `roll`."""
    steps = (2.0, 2.0) if roll is None else (2.0, 2.0, math.pi / 6)
    limits = None if roll is None else (np.inf, np.inf, roll)
    knots = random_walk(seed, 1 + max(rows) if total is None else total, steps, limits=limits)[list(rows)]
    cut = None if roll is None else (np.inf, np.inf, math.pi / 3)
    times = proportional_times(knots, duration)
    return minimum_derivative_spline(times, knots, derivatives, order=order, limits=cut)


def winds(rows: Sequence[int], seed: int, law: ScaledBeta) -> Tensor:
    """One wind a flight `(len(rows), 1)` [m/s]; row i comes from the generator with key (seed, i)."""
    import torch

    key = [np.array([(seed + 7_919) % 2**64, i], dtype=np.uint64) for i in rows]
    values = [law.draw(np.random.Generator(np.random.Philox(key=k))) for k in key]
    return torch.tensor(values, dtype=torch.float64)[:, None]


def chosen(seed: int, count: int) -> list[int]:
    """Which recorded flights a run with this seed learns from: the first of one permutation.

    Raises:
        ValueError: There are not as many, or the seed is negative.
    """
    if not 1 <= count <= TRAJECTORIES:
        raise ValueError(f"expected 1 to {TRAJECTORIES} recorded flights, got {count}.")
    if seed < 0:
        raise ValueError(f"expected a seed of at least 0, got {seed}.")
    return np.random.default_rng(seed).permutation(TRAJECTORIES)[:count].tolist()


def table(spline: Spline, dt: float, horizon: int, stages: int = 1) -> ReferenceTable:
    """The reference at all times, in torch float64."""
    import torch

    return spline.table(dt, horizon, stages=stages).to(torch.zeros(1, dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class Tests:
    """Test flights.

    Args:
        plant: The true plant.
        references: Table of the references.
        goal: States to be followed `(T + 1, count, n)`.
        wind: `(count, 1)` [m/s].
        dt: Step [s].
        hold: Whether the input is held over a step.
        limit: State error above which, at any time, a test counts as run away.
    """

    plant: Any
    references: ReferenceTable
    goal: Tensor
    wind: Tensor
    dt: float
    hold: bool
    limit: float = 100.0

    def fly(self, controller: Controller, **options: Any) -> Any:
        """The trajectory of all tests."""
        import torch

        from control_envs.simulate import rollout

        with torch.no_grad():
            return rollout(
                self.plant,
                controller,
                self.goal[0],
                dt=self.dt,
                horizon=len(self.goal) - 1,
                reference=self.references,
                disturbance=lambda t, x: self.wind,
                hold=self.hold,
                **options,
            )

    def part(self, begin: int, end: int) -> Tests:
        """Tests `begin` to `end - 1`."""
        values = self.references.values[:, begin:end]
        references = ReferenceTable(values, self.references.step, self.references.t0)
        return replace(self, references=references, goal=self.goal[:, begin:end], wind=self.wind[begin:end])

    def errors(self, path: Any) -> tuple[Tensor, Tensor]:
        """RMS state error over time of each test, and which ran away."""
        distance = (path.x.movedim(-2, 0) - self.goal).square().sum(-1)
        gone = ~(distance < self.limit**2).all(0)
        return distance.mean(0).sqrt(), gone

    def measure(self, controller: Controller) -> tuple[float, int]:
        """Mean RMS error of the tests, and the number that ran away: those are in the count, not in the mean.

        Flown 200 at a time: the states of all at once need gigabytes.
        """
        import torch

        count = len(self.wind)
        parts = [self.part(i, min(i + 200, count)) for i in range(0, count, 200)]
        rms, gone = (torch.cat(v) for v in zip(*(p.errors(p.fly(controller)) for p in parts), strict=True))
        return rms[~gone].mean().item() if not gone.all() else math.nan, int(gone.sum())


@dataclass(frozen=True)
class Recorded(Experiment):
    """An adaptive controller learned from recorded flights, and judged on test flights in stronger wind.

    Args:
        epochs: Passes of the models over the recorded flights.
        steps: Steps of the training through the closed loop.
        ridge_steps: Steps of the published ridge regression.
        fair_steps: Steps of the fair one.
        tests: Number of test flights.
        seconds: Length of a recorded flight [s].
        test_seconds: Length of a test flight [s].
        meta_dt: Step of the integrator in training [s].

    Attributes:
        derivatives, roll, order: How the references of the training are drawn, see `flights`.
        duration: Their length [s].
        errors: Names of the columns with an error.

    Raises:
        ValueError: A count is not whole or too small, a time is not positive, or a time is not
            whole in steps.
    """

    epochs: int = 300
    steps: int = 500
    ridge_steps: int = 2000
    fair_steps: int = 1000
    tests: int = 200
    seconds: float = 30.0
    test_seconds: float = 10.0
    meta_dt: float = 0.025

    derivatives: ClassVar[tuple[int, ...]]
    roll: ClassVar[float | None]
    order: ClassVar[int]
    duration: ClassVar[float]
    errors: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("steps", 0), ("ridge_steps", 1), ("fair_steps", 1), ("tests", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{self.name}: expected {name} whole and at least {least}, got {value}.")
        for name, step in (("seconds", 0.01), ("test_seconds", 0.01), ("meta_dt", self.meta_dt)):
            total = self.duration if name == "meta_dt" else getattr(self, name)
            if not (step > 0 and total > 0 and abs(total / step - round(total / step)) < 1e-6):
                raise ValueError(
                    f"{self.name}: expected {name} positive and {total:g} s a whole number of steps of {step:g} s."
                )

    @property
    @abstractmethod
    def prior(self) -> Any:
        """What the controller knows of the plant."""

    @abstractmethod
    def record(self, seed: int, count: int) -> Any:
        """What is known of the force from `count` recorded flights, chosen by the seed."""

    @abstractmethod
    def untrained(self, generator: Any) -> DynamicController:
        """The controller before the training."""

    @abstractmethod
    def target(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """State and input to be followed, of values of the reference `(..., k, p)`."""

    @abstractmethod
    def baseline(self) -> DynamicController:
        """A controller that has learned nothing, for the figure of the loop."""

    @abstractmethod
    def loop_goal(self) -> Tensor:
        """States of the loop `(T + 1, n)`, 100 a second."""

    @abstractmethod
    def loop(self, controller: DynamicController) -> Any:
        """The trajectory of the loop in wind."""

    @property
    def directions(self) -> Callable[[Tensor], Tensor] | None:
        """`x -> (..., d, m)`: directions in which an input can act; None, the default, is all."""
        return None

    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    @cached_property
    def _flown(self) -> dict[tuple[int, int], Any]:
        return {}

    def data(self, seed: int, count: int) -> Any:
        """The same as `record`; flown once."""
        if (seed, count) not in self._flown:
            self._flown[seed, count] = self.record(seed, count)
        return self._flown[seed, count]

    def draw(self, result: Mapping[str, Any], folder: Path) -> list[Path]:
        """RMS error against the number M of recorded flights; a row that learns nothing is a level.

        Rows behind a shield fly another task (around the disc), and are left out.
        """
        from constrained_nn.plotting import plot_curves

        panels = {}
        for column in (c for c in result["columns"] if c["name"] in self.errors):
            pair = {}, {}
            for row in (row for row in result["rows"] if not row["name"].startswith("shield")):
                name, _, count = row["label"].partition(", M = ")
                for curves, kind in zip(pair, ("ours", "published"), strict=True):
                    value = row[kind].get(column["name"])
                    if value is not None and isinstance(value["mean"], float):
                        point = (float(count or "nan"), value["mean"], value["std"])
                        curves.setdefault(name, []).append(point)
            if pair[0]:
                panels[column["label"]] = pair
        name = folder / f"{self.name}.png"
        return [plot_curves(name, panels, xlabel="recorded flights M", ylabel="RMS error")] if panels else []

    def ridge(self, method: str, count: int, seed: int, directory: Path) -> Any:
        """Features by ridge regression, `mrr` as published or `mrr-fair`; a finished one is read back."""
        import torch

        from constrained_nn.control import TanhFeatures
        from constrained_nn.training import fit_ridge_features

        features = TanhFeatures(6, generator=torch.Generator().manual_seed(seed))
        published = method == "mrr"
        fit_ridge_features(
            features,
            self.data(seed, count),
            seed=seed,
            steps=self.ridge_steps if published else self.fair_steps,
            unit=0.01 if published else 1.0,
            weight_decay=1e-4 if published else 0.0,
            directions=self.directions,
            checkpoint=directory / "ridge.safetensors",
        )
        return features

    def meta(
        self, count: int, seed: int, directory: Path, progress: Callable | None = None
    ) -> tuple[Any, Any]:
        """The controller with learned features and gains, and the history; a finished training is read back."""
        import torch

        from constrained_nn.training import MetaConfig, fit_ensemble, meta_train

        models, _ = fit_ensemble(
            self.data(seed, count), seed=seed, epochs=self.epochs, checkpoint=directory / "models.safetensors"
        )
        controller = self.untrained(torch.Generator().manual_seed(seed))
        compiled = self.steps >= 50 and shutil.which("g++") is not None  # else it costs more than it saves
        config = MetaConfig(steps=self.steps, duration=self.duration, dt=self.meta_dt, compiled=compiled)
        spline = flights(
            range(10), META_SEED + seed, self.duration, self.derivatives, roll=self.roll, order=self.order
        )
        history = meta_train(
            controller,
            self.prior,
            models,
            table(spline, config.dt, config.horizon, stages=2),
            self.target,
            config,
            settings={"seed": seed, "epochs": self.epochs, "seconds": self.seconds},
            checkpoint=directory / "meta.safetensors",
            progress=progress,
        )
        return controller, history
