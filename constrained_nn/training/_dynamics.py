"""Learning a model of a plant from samples of its velocity, together with a controller and a Lyapunov function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.control import CoILS, DiscreteCoILS
from constrained_nn.training._supervised import Loss, fit
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


def dynamics_loss(model: CoILS | DiscreteCoILS, scale: Float[Tensor, " n"], penalty: float) -> Loss:
    """Sum over the batch of `|f(x, u) − ẋ|² / n + penalty |correction|² / n`, in units of `scale`.

    The penalty acts on the correction itself: the fit alone does not mind a model that is stable only because of it.
    """

    def loss(epoch: int, x: Tensor, u: Tensor, velocity: Tensor) -> Tensor:
        shift = model.correction(x)
        error = (model.model(x, u) + shift - velocity) / scale
        total = error.square().mean(-1).sum()
        return total + penalty * (shift / scale).square().mean(-1).sum() if penalty else total

    return loss


def fit_dynamics(
    model: CoILS | DiscreteCoILS,
    samples: Samples,
    *,
    penalty: float,
    epochs: int,
    learning_rate: float = 3e-3,
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
        learning_rate: Step size of Adam.
        seed: Seed of the order.
        batch: Samples a step; all of them if `None`.
        checkpoint: File to save to, and to go on from if it exists.
        every: Epochs between checkpoints.
        progress: Called as `progress(epoch, loss)`.

    Raises:
        ConvergenceError: The loss is not finite; the last checkpoint is kept.
        FileFormatError: The checkpoint is damaged or belongs to other settings.
    """
    scale = samples.velocity.std(0).clamp_min(1e-12)
    loss = dynamics_loss(model, scale, penalty)
    network: nn.Module = model
    return fit(
        network,
        list(samples),
        loss,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        batch=batch,
        checkpoint=checkpoint,
        every=every,
        progress=progress,
    )
