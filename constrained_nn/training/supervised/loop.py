"""Supervised and unsupervised training of a network behind constraints: batches of contexts, no plant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.errors import SetTypeError
from constrained_nn.layers import Completion, ProjectionLayer
from constrained_nn.linalg import matvec, rmatvec
from constrained_nn.sets import IntervalSet, Polyhedron
from constrained_nn.settings import MOST_SEED, require_integer, require_real
from constrained_nn.training.engine import Measurement, Training, run_training
from constrained_nn.training.schedule import LearningRate, Schedule

Loss = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True)
class Enforcement(ABC):
    """How the raw output of a network becomes the decision, and what is added to the loss.

    Args:
        weight: Weight of the squared residual of the decision in the loss.
    """

    weight: float = 0.0

    def __post_init__(self) -> None:
        require_real(type(self).__name__, "weight", self.weight, least=0.0)

    @abstractmethod
    def decide(
        self, raw: Float[Tensor, "*batch n"], set: IntervalSet, epoch: int | None = None
    ) -> Float[Tensor, "*batch n"]:
        """The decision in training epoch `epoch` (from 1), or in evaluation (`None`)."""

    def penalty(self, raw: Tensor, y: Tensor, set: IntervalSet) -> Float[Tensor, "*batch"]:
        """What is added to the loss of each element."""
        return self.weight * set.residual(y).square().sum(-1)


@dataclass(frozen=True)
class Penalty(Enforcement):
    """The network alone, with a penalty `weight |residual|²` (none for `weight = 0`)."""

    def decide(self, raw: Tensor, set: IntervalSet, epoch: int | None = None) -> Tensor:
        return raw


@dataclass(frozen=True, kw_only=True)
class Correction(Enforcement):
    """A fixed number of momentum steps along the gradient of `|residual|²` of linear rows (DC3), and the penalty.

    Args:
        corrections: Number of steps.
        step: Step size.
        momentum: Share of the last step that is kept.
        wrong_lower_sign: Push *into* violated lower bounds, as the published code of
            the piecewise problems does.
    """

    corrections: int = 10
    step: float = 1e-2
    momentum: float = 0.5
    wrong_lower_sign: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("Correction", "corrections", self.corrections)
        require_real("Correction", "step", self.step, above=0.0)
        require_real("Correction", "momentum", self.momentum, least=0.0, below=1.0)

    def decide(self, raw: Tensor, set: IntervalSet, epoch: int | None = None) -> Tensor:
        y, change = raw, torch.zeros_like(raw)
        A = set.jacobian(raw)
        for _ in range(self.corrections):
            Ay = matvec(A, y)
            above, below = torch.relu(Ay - set.upper), torch.relu(set.lower - Ay)
            gradient = 2.0 * rmatvec(A, above + below if self.wrong_lower_sign else above - below)
            change = self.step * gradient + self.momentum * change
            y = y - change
        return y


@dataclass(frozen=True, kw_only=True)
class Completed(Enforcement):
    """Equalities by completion: the network outputs the free variables, and another strategy works on those.

    The set is a `Polyhedron` whose last rows are the equalities `C y = d` of the completion.

    Args:
        complete: The completion.
        free: What is done with the free variables, whose rows are the other rows of the set.
    """

    complete: Completion
    free: Enforcement

    def decide(self, raw: Tensor, set: IntervalSet, epoch: int | None = None) -> Tensor:
        if not isinstance(set, Polyhedron):
            raise SetTypeError(
                f"Completed: expected a Polyhedron whose last rows are the equalities, got {type(set).__name__}. "
                f"Convert with Polyhedron.of(set)."
            )
        k = len(self.complete.dependent)
        d = set.upper[..., -k:]
        rows = Polyhedron(set.A[..., :-k, :], set.lower[..., :-k], set.upper[..., :-k])
        return self.complete(self.free.decide(raw, self.complete.reduce(rows, d), epoch), d)


@dataclass(frozen=True)
class Layer(Enforcement):
    """A projection layer behind the network, from the start, after a warm-up, or faded in.

    In training `y = raw + share (layer(raw) − raw)`, where `share` is 0 for the first `warmup` epochs and grows
    to 1 over the next `fade` epochs. The penalty on the residual of the decision vanishes with the layer on;
    `distance_weight |y − raw|²` does not, and pulls the raw output inside.

    Args:
        layer: The layer.
        factor: Result of `layer.factor(set)` for sets with the same matrix.
        warmup: Epochs without it.
        fade: Epochs over which it comes in.
        distance_weight: Weight of the squared distance between raw output and decision.
    """

    layer: ProjectionLayer
    factor: Any = None
    warmup: int = 0
    fade: int = 0
    distance_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("Layer", "warmup", self.warmup)
        require_integer("Layer", "fade", self.fade)
        require_real("Layer", "distance_weight", self.distance_weight, least=0.0)

    def share(self, epoch: int | None) -> float:
        """How much of the layer is on."""
        if epoch is None or epoch > self.warmup + self.fade:
            return 1.0
        return max(0.0, (epoch - self.warmup) / (self.fade + 1))

    def decide(self, raw: Tensor, set: IntervalSet, epoch: int | None = None) -> Tensor:
        share = self.share(epoch)
        if share == 0.0:
            return raw
        value = self.layer(raw, set, factor=self.factor)
        return value if share == 1.0 else raw + share * (value - raw)

    def penalty(self, raw: Tensor, y: Tensor, set: IntervalSet) -> Tensor:
        total = super().penalty(raw, y, set)
        if self.distance_weight:
            total = total + self.distance_weight * (y - raw).square().sum(-1)
        return total


class Fit(Training):
    """A network on data; a step is an epoch.

    Args:
        module: The network.
        data, loss, batch, seed: See `fit`.
    """

    name: ClassVar[str] = "fit"
    unit: ClassVar[str] = "epoch"

    def __init__(
        self, module: nn.Module, data: Sequence[Tensor], loss: Loss, batch: int | None, seed: int
    ) -> None:
        self.module, self.data, self.loss, self.batch, self.seed = module, data, loss, batch, seed

    def batches(self, step: int) -> Iterator[Measurement]:
        torch.manual_seed(1_000_003 * self.seed + step)
        for rows in self.order(step):
            part = self.data if rows is None else [t[rows] for t in self.data]
            yield Measurement(self.loss(step, *part), size=len(part[0]))

    def order(self, epoch: int) -> Sequence[Tensor | None]:
        """The rows of each batch; None for all of them as they are."""
        if self.batch is None:
            return [None]
        shuffled = np.random.default_rng([self.seed, epoch]).permutation(len(self.data[0]))
        return torch.from_numpy(shuffled).split(self.batch)


def fit(
    network: nn.Module,
    data: Sequence[Tensor],
    loss: Loss,
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    batch: int | None = None,
    final_learning_rate: float | None = None,
    max_norm: float | None = None,
    checkpoint: Path | None = None,
    every: int = 100,
    settings: Mapping[str, Any] = MappingProxyType({}),
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Minimize a loss over batches with Adam; returns the mean loss of every epoch.

    The order of the data and all random numbers of an epoch (dropout) are functions of seed and epoch, and a
    checkpoint holds weights and optimizer: an interrupted run that is resumed ends with the same weights.

    Args:
        network: The network; its weights are changed.
        data: Tensors with one row each per sample.
        loss: `loss(epoch, *batch) -> scalar`, summed over the batch, as published.
        epochs: Passes over the data.
        learning_rate: Step size of Adam.
        seed: Seed of order and dropout.
        batch: Samples a step; all of them in their given order if `None`.
        final_learning_rate: Its last value, reached along a cosine over the epochs; default: constant.
        max_norm: Longest gradient, of a loss that is the mean over the batch; longer ones are scaled down.
        checkpoint: File to save to, and to go on from if it exists.
        every: Epochs between checkpoints.
        settings: What else determines the numbers, as JSON values; a checkpoint with others is refused.
        progress: Called as `progress(epoch, loss)`.

    Raises:
        ConvergenceError: The loss, a gradient or a weight is not finite; the last checkpoint is kept.
        FileFormatError: The checkpoint is damaged or belongs to other settings.
        ValueError: A setting is out of range; `TypeError` for one that is no number.
    """
    _require_settings(epochs, learning_rate, seed, batch, final_learning_rate, max_norm, every)
    own: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate, "seed": seed, "batch": batch}
    own |= {} if final_learning_rate is None else {"final_learning_rate": final_learning_rate}
    own |= {} if max_norm is None else {"max_norm": max_norm}

    def report(epoch: int, record: dict[str, float]) -> None:
        if progress is not None:
            progress(epoch, record["loss"])

    rate = LearningRate(learning_rate, final_learning_rate, over=epochs)
    network.train()
    with torch.random.fork_rng(devices=[]):
        history = run_training(
            Fit(network, data, loss, batch, seed),
            Schedule(epochs, rate, every, max_norm),
            settings={**own, "more": dict(settings)},
            checkpoint=checkpoint,
            progress=report,
        )
    network.eval()
    return history.loss


def _require_settings(epochs, learning_rate, seed, batch, final_learning_rate, max_norm, every) -> None:
    require_integer("fit", "epochs", epochs)
    require_integer("fit", "seed", seed, most=MOST_SEED // 1_000_004)
    require_integer("fit", "batch", batch, least=1, optional=True)
    require_integer("fit", "every", every, least=1)
    require_real("fit", "learning_rate", learning_rate, above=0.0)
    require_real("fit", "final_learning_rate", final_learning_rate, least=0.0, optional=True)
    require_real("fit", "max_norm", max_norm, least=0.0, optional=True)
