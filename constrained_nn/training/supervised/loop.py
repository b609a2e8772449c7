"""Supervised and unsupervised training of a network behind constraints: batches of contexts, no plant."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.errors import ConvergenceError, FileFormatError
from constrained_nn.files import read_tensors, write_tensors
from constrained_nn.layers import Completion, ProjectionLayer
from constrained_nn.linalg import matvec, rmatvec
from constrained_nn.sets import IntervalSet, Polyhedron
from constrained_nn.settings import MOST_SEED, require_integer, require_real
from constrained_nn.training.checkpoint import (
    pack,
    require_finite,
    require_same_settings,
    require_step,
    unpack,
)

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

    The set is made of rows, of which the last are the equalities `C y = d` of the completion.

    Args:
        complete: The completion.
        free: What is done with the free variables, whose rows are the other rows of the set.
    """

    complete: Completion
    free: Enforcement

    def decide(self, raw: Tensor, set: IntervalSet, epoch: int | None = None) -> Tensor:
        whole, k = Polyhedron.of(set), len(self.complete.dependent)
        d = whole.upper[..., -k:]
        rows = Polyhedron(whole.A[..., :-k, :], whole.lower[..., :-k], whole.upper[..., :-k])
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
        ConvergenceError: The loss or a weight is not finite; the last checkpoint is kept.
        FileFormatError: The checkpoint is damaged or belongs to other settings.
        ValueError: A setting is out of range; `TypeError` for one that is no number.
    """
    _require_settings(epochs, learning_rate, seed, batch, final_learning_rate, max_norm, every)
    own: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate, "seed": seed, "batch": batch}
    own |= {} if final_learning_rate is None else {"final_learning_rate": final_learning_rate}
    own |= {} if max_norm is None else {"max_norm": max_norm}
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    done, losses = 0, []
    if checkpoint is not None and checkpoint.exists():
        done, losses = _restore(checkpoint, network, optimizer, own, settings)
    count = len(data[0])
    network.train()
    with torch.random.fork_rng(devices=[]):
        for epoch in range(done + 1, epochs + 1):
            torch.manual_seed(1_000_003 * seed + epoch)
            total = 0.0
            if final_learning_rate is not None:
                share = 0.5 + 0.5 * math.cos(math.pi * (epoch - 1) / epochs)
                rate = final_learning_rate + share * (learning_rate - final_learning_rate)
                optimizer.param_groups[0]["lr"] = rate
            for chosen in _batches(count, batch, seed, epoch):
                value = loss(epoch, *(data if chosen is None else [t[chosen] for t in data]))
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                if max_norm is not None:
                    length = max_norm * (count if chosen is None else len(chosen))
                    torch.nn.utils.clip_grad_norm_(network.parameters(), length)
                optimizer.step()
                total += value.item()
            losses.append(total / count)
            if not math.isfinite(total):
                raise ConvergenceError(
                    f"fit: expected a finite loss, got {total} in epoch {epoch}. The checkpoint before it is kept; "
                    f"lower the learning rate."
                )
            if epoch % every == 0 or epoch == epochs:
                require_finite(dict(network.named_parameters()), f"fit: epoch {epoch}")
            if checkpoint is not None and (epoch % every == 0 or epoch == epochs):
                about = {"epoch": epoch, "losses": losses, "more": dict(settings), **own}
                write_tensors(checkpoint, pack(network.state_dict(), optimizer), about)
            if progress is not None:
                progress(epoch, losses[-1])
    network.eval()
    return losses


def _batches(count: int, batch: int | None, seed: int, epoch: int) -> Sequence[Tensor | None]:
    if batch is None:
        return [None]
    order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))
    return order.split(batch)


def _require_settings(epochs, learning_rate, seed, batch, final_learning_rate, max_norm, every) -> None:
    require_integer("fit", "epochs", epochs)
    require_integer("fit", "seed", seed, most=MOST_SEED // 1_000_004)
    require_integer("fit", "batch", batch, least=1, optional=True)
    require_integer("fit", "every", every, least=1)
    require_real("fit", "learning_rate", learning_rate, above=0.0)
    require_real("fit", "final_learning_rate", final_learning_rate, least=0.0, optional=True)
    require_real("fit", "max_norm", max_norm, least=0.0, optional=True)


def _restore(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Adam,
    own: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> tuple[int, list[float]]:
    tensors, about = read_tensors(path)
    losses, epoch = about.pop("losses", None), about.pop("epoch", None)
    more = about.pop("more", None)  # older checkpoints do not say
    require_same_settings(path, about, own)
    if more is not None:
        require_same_settings(path, more, settings)
    epoch = require_step(path, epoch, own["epochs"])
    if not isinstance(losses, list) or len(losses) != epoch:
        raise FileFormatError(f"{path}: expected one loss for each epoch. Delete it to train from the start.")
    unpack(path, tensors, network.state_dict(), optimizer)
    return epoch, losses
