"""Supervised and unsupervised training of a network behind constraints: batches of contexts, no plant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from constrained_nn.settings import MOST_SEED, require_integer, require_real
from constrained_nn.training.engine import Measurement, Training, run_training
from constrained_nn.training.schedule import LearningRate, Schedule

Loss = Callable[..., Tensor]


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
    return [float("nan") if loss is None else loss for loss in history.loss]


def _require_settings(epochs, learning_rate, seed, batch, final_learning_rate, max_norm, every) -> None:
    require_integer("fit", "epochs", epochs)
    require_integer("fit", "seed", seed, most=MOST_SEED // 1_000_004)
    require_integer("fit", "batch", batch, least=1, optional=True)
    require_integer("fit", "every", every, least=1)
    require_real("fit", "learning_rate", learning_rate, above=0.0)
    require_real("fit", "final_learning_rate", final_learning_rate, least=0.0, optional=True)
    require_real("fit", "max_norm", max_norm, least=0.0, optional=True)
