"""Models of an unknown force, one for each recorded trajectory, trained together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.settings import require_integer, require_real
from constrained_nn.training.checkpoint import History
from constrained_nn.training.descent import descend


@dataclass(frozen=True, eq=False)
class ForceData:
    """Samples of an unknown force along recorded trajectories.

    Args:
        x: States `(M, N, n)`.
        acceleration: What the prior does not explain of the acceleration `(M, N, d)` [m/s^2 or rad/s^2].
    """

    x: Tensor
    acceleration: Tensor

    def split(self, seed: int, share: float = 0.75) -> tuple[ForceData, ForceData]:
        """Training and validation samples, shuffled in time, the same for every trajectory."""
        count = self.x.shape[1]
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        cut = int(share * count)
        return self._take(order[:cut]), self._take(order[cut:])

    def _take(self, index: Tensor) -> ForceData:
        return ForceData(self.x[:, index], self.acceleration[:, index])


def force_data(prior: Any, x: Tensor, u: Tensor, dt: float, *, held: bool) -> ForceData:
    """Midpoints of recorded steps, and the acceleration there beyond that of the prior.

    Differences over a step are second-order accurate at its middle. `x` `(M, T+1, n)`, `u` `(M, T, m)`; `held` tells
    whether the input was held over a step or is a sample of a continuous one.
    """
    d = x.shape[-1] // 2
    middle = 0.5 * (x[:, 1:] + x[:, :-1])
    measured = (x[:, 1:, d:] - x[:, :-1, d:]) / dt
    if not held:
        middle, measured, u = middle[:, :-1], measured[:, :-1], 0.5 * (u[:, 1:] + u[:, :-1])
    return ForceData(middle, measured - prior.derivative(0.0, middle, u)[..., d:])


class ForceEnsemble(nn.Module):
    """`M` networks `W_2 tanh(W_1 tanh(W_0 x + b_0) + b_1)`, evaluated together on `(M, batch, n)`.

    Args:
        count: Number of models `M`.
        inputs: Size of the state.
        outputs: Size of the force.
        width: Width of both hidden layers.
        seed: Seed of the weights, normal of standard deviation 0.1.
    """

    def __init__(self, count: int, inputs: int, outputs: int, *, width: int = 32, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weights(*shape: int) -> nn.Parameter:
            return nn.Parameter(0.1 * torch.randn(count, *shape, generator=generator, dtype=torch.float64))

        self.W0, self.b0 = weights(inputs, width), weights(1, width)
        self.W1, self.b1 = weights(width, width), weights(1, width)
        self.W2 = weights(width, outputs)

    def forward(self, x: Float[Tensor, "m batch n"]) -> Float[Tensor, "m batch d"]:
        hidden = torch.tanh(torch.baddbmm(self.b0, x, self.W0))
        hidden = torch.tanh(torch.baddbmm(self.b1, hidden, self.W1))
        return torch.bmm(hidden, self.W2)


def fit_ensemble(
    data: ForceData,
    *,
    seed: int,
    epochs: int = 300,
    batches: int = 4,
    learning_rate: float = 1e-2,
    weight_decay: float = 1e-4,
    checkpoint: Path | None = None,
    progress: Callable[[int, float, float], None] | None = None,
) -> tuple[ForceEnsemble, History]:
    """Models of minimal squared error in acceleration; of each the weights with the best validation error are kept.

    Args:
        data: Samples, trajectory by trajectory.
        seed: Seed of weights, split and batches.
        epochs, batches: Passes over the data, and steps in each.
        learning_rate: Step size of Adam.
        weight_decay: Weight of the squared weights, over the number of samples of a batch.
        checkpoint: File to save to, and to go on from.
        progress: Called as `progress(step, loss, score)`.

    Raises:
        ValueError: A setting is not finite or out of range; `TypeError` for one that is no number.
    """
    require_integer("fit_ensemble", "seed", seed, most=2**40)
    require_integer("fit_ensemble", "epochs", epochs)
    require_integer("fit_ensemble", "batches", batches, least=1)
    require_real("fit_ensemble", "weight_decay", weight_decay, least=0.0)
    count, _, inputs = data.x.shape
    model = ForceEnsemble(count, inputs, data.acceleration.shape[-1], seed=seed)
    train, valid = data.split(seed)
    samples = train.x.shape[1]
    size = samples // batches

    def evaluate(step: int) -> tuple[Tensor, Tensor, int]:
        epoch, place = divmod(step, batches)
        order = torch.randperm(samples, generator=torch.Generator().manual_seed(1_000_003 * seed + epoch))
        part = train._take(order[place * size : (place + 1) * size])
        errors = (model(part.x) - part.acceleration).square().sum(-1).mean(-1)
        squares = sum(p.square().sum() for p in model.parameters())
        loss = errors.sum() + (weight_decay / size) * squares
        with torch.no_grad():
            score = (model(valid.x) - valid.acceleration).square().sum(-1).mean(-1)
        return loss, score, 0

    settings = {"seed": seed, "batches": batches, "weight_decay": weight_decay, "count": count}
    history = descend(
        model,
        evaluate,
        steps=epochs * batches,
        learning_rate=learning_rate,
        settings=settings,
        checkpoint=checkpoint,
        every=100,
        progress=progress,
    )
    return model.requires_grad_(False), history
