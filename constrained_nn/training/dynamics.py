"""Learning a model of a plant from samples of its velocity, together with a controller and a Lyapunov function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.models import CoILS, DiscreteCoILS
from constrained_nn.settings import require_integer, require_real
from constrained_nn.training.supervised import Loss, fit
from control_envs.dynamics import Dynamics


class Samples(NamedTuple):
    """States, inputs and velocities (or next states) of a plant, one row a sample."""

    x: Float[Tensor, "count n"]
    u: Float[Tensor, "count m"]
    velocity: Float[Tensor, "count n"]


def sample_dynamics(
    plant: Dynamics,
    state_box: tuple[np.ndarray, np.ndarray],
    input_box: tuple[np.ndarray, np.ndarray],
    *,
    count: int,
    seed: int,
) -> Samples:
    """Uniform states and inputs in boxes `(low, high)`, and the velocity of the plant there; float64."""
    rng = np.random.default_rng(seed)
    x, u = (
        rng.uniform(*state_box, (count, plant.state_dim)),
        rng.uniform(*input_box, (count, plant.input_dim)),
    )
    return Samples(*(torch.from_numpy(a) for a in (x, u, plant.derivative(0.0, x, u))))


@dataclass(frozen=True)
class WorstStates:
    """Fresh states of a box at which the correction is largest; they need no sample of the plant.

    A correction that is confined to a thin strip is hardly ever seen on samples, and yet the plant may have to pass
    through it. `pool` states are drawn uniformly, and the `count` with the largest correction are kept for `every`
    steps, at most to the end of the epoch.

    Args:
        box: Lower and upper ends of the states `(n,)`.
        count: States that are kept.
        pool: States that are drawn.
        every: Steps between draws.
    """

    box: tuple[np.ndarray, np.ndarray]
    count: int = 50
    pool: int = 1000
    every: int = 5

    def __post_init__(self) -> None:
        require_integer("WorstStates", "count", self.count, least=1)
        require_integer("WorstStates", "pool", self.pool, least=self.count)
        require_integer("WorstStates", "every", self.every, least=1)

    def draw(self, model: CoILS | DiscreteCoILS, scale: Float[Tensor, " n"]) -> Float[Tensor, "count n"]:
        """The states, from torch's own generator."""
        low, high = (torch.as_tensor(end).to(scale) for end in self.box)
        x = low + (high - low) * torch.rand(self.pool, len(low), dtype=scale.dtype, device=scale.device)
        with torch.no_grad():
            size = (model.correction(x) / scale).square().sum(-1)
        return x[size.topk(self.count).indices]


def dynamics_loss(
    model: CoILS | DiscreteCoILS,
    scale: Float[Tensor, " n"],
    penalty: float,
    worst: WorstStates | None = None,
) -> Loss:
    """Sum over the batch of `|f(x, u) − ẋ|² / n + penalty mean |correction|² / n`, in units of `scale`.

    The penalty acts on the correction itself, because the fit alone does not mind a model that is stable only by
    means of it; the mean is over the batch and the `worst` states. It moves policy and certificate, and leaves `f̂`
    to the samples: a model that bends to please its certificate fits the plant the less.
    """
    kept: dict[str, Any] = {"epoch": None, "step": 0, "states": None}

    def penalized(epoch: int, x: Tensor) -> Tensor:
        if worst is None:
            return x
        again = epoch != kept["epoch"]
        if again or kept["step"] % worst.every == 0:
            kept.update(step=0, states=worst.draw(model, scale))
        kept.update(epoch=epoch, step=kept["step"] + 1)
        return torch.cat([x, kept["states"]])

    def loss(epoch: int, x: Tensor, u: Tensor, velocity: Tensor) -> Tensor:
        error = (model(x, u) - velocity) / scale
        total = error.square().mean(-1).sum()
        if not penalty:
            return total
        states = penalized(epoch, x)
        with _held(model.model):
            shift = model.correction(states)
        return total + penalty * len(x) * (shift / scale).square().mean()

    return loss


@contextlib.contextmanager
def _held(module: nn.Module) -> Iterator[None]:
    """The weights of a module as constants of what is computed meanwhile."""
    free = [p for p in module.parameters() if p.requires_grad]
    try:
        for parameter in free:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in free:
            parameter.requires_grad_(True)


def fit_dynamics(
    model: CoILS | DiscreteCoILS,
    samples: Samples,
    *,
    penalty: float,
    epochs: int,
    worst: WorstStates | None = None,
    learning_rate: float = 3e-3,
    final_learning_rate: float | None = None,
    seed: int = 0,
    batch: int | None = None,
    checkpoint: Path | None = None,
    every: int = 100,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train model, policy and certificate together on samples; returns the mean loss of every epoch.

    An interrupted run with a `checkpoint` goes on with identical results. In training mode a row that cannot be
    enforced keeps its least violation and is counted in `model.layer.counts`.

    Args:
        model: What is trained; its weights are changed.
        samples: The data.
        penalty: Weight of the squared correction; 0 lets the model lean on it.
        epochs: Passes over the data.
        worst: Where else the correction is penalized; default: on the samples alone.
        learning_rate: Step size of Adam.
        final_learning_rate: Its last value, reached along a cosine; default: constant.
        seed: Seed of the order.
        batch: Samples a step; all of them if `None`.
        checkpoint: File to save to, and to go on from if it exists.
        every: Epochs between checkpoints.
        progress: Called as `progress(epoch, loss)`.

    Raises:
        ConvergenceError: The loss is not finite; the last checkpoint is kept.
        FileFormatError: The checkpoint is damaged or belongs to other settings.
    """
    require_real("fit_dynamics", "penalty", penalty, least=0.0)
    scale = samples.velocity.std(0).clamp_min(1e-12)
    loss = dynamics_loss(model, scale, penalty, worst)
    network: nn.Module = model
    return fit(
        network,
        list(samples),
        loss,
        epochs=epochs,
        learning_rate=learning_rate,
        final_learning_rate=final_learning_rate,
        seed=seed,
        batch=batch,
        checkpoint=checkpoint,
        every=every,
        settings={
            "penalty": penalty,
            "worst": None if worst is None else [worst.count, worst.pool, worst.every],
        },
        progress=progress,
    )
