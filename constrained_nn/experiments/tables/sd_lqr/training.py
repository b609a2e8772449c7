"""How the learned rows of the SD-LQR experiments are trained: regression, joint factors, contraction metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from constrained_nn.control import Controller, Factorization, NeuralFactorization
from constrained_nn.training import StackedAffine, StackedMLP, StackedSamples, descend
from control_envs.tasks import RegulationTask

# Weight of all squared weights in the published recipes.
_DECAY = 1e-6


class Recipe(nn.Module, ABC):
    """Networks for every sample size at once, and the loss that trains them.

    Args:
        model: The models of the plant.
    """

    def __init__(self, model: StackedAffine) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def loss(self, x: Tensor, u: Tensor, velocity: Tensor, near: Tensor, e: Tensor, push: Tensor) -> Tensor:
        """Loss of each model `(k,)` on samples, and on pairs of states `near` and `near − e` with inputs `push`."""

    @abstractmethod
    def penalty(self) -> Tensor:
        """What is added to the loss of each model for its weights `(k,)`."""

    def fit_error(self, x: Tensor, u: Tensor, velocity: Tensor) -> Tensor:
        """`|f(x, u) − ẋ|²` in the units of the model `(k, batch)`."""
        return ((self.model(x, u) - velocity) / self.model.units.unsqueeze(1)).square().sum(-1)


class Regression(Recipe):
    """Drift and input matrix alone."""

    def loss(self, x: Tensor, u: Tensor, velocity: Tensor, near: Tensor, e: Tensor, push: Tensor) -> Tensor:
        return self.fit_error(x, u, velocity).mean(-1)

    def penalty(self) -> Tensor:
        return _DECAY * self.model.net.squares()


class Economical(Recipe):
    """Regression in which a network beside a linear part must earn what it adds.

    `mean |f − ẋ|² + (decay |weights|² + constant mean |B_net|²) / N`: both penalties are priors,
    whose weight against `N` samples falls with `N`. The second one says that an input matrix is
    constant unless the data deny it.

    Args:
        model: The models of the plant.
        trained: Samples of each `(k,)`.
        decay, constant: Weights of the two.
    """

    trained: Tensor

    def __init__(self, model: StackedAffine, trained: Tensor, decay: float, constant: float) -> None:
        super().__init__(model)
        self.register_buffer("trained", trained)
        self.decay, self.constant = decay, constant

    def loss(self, x: Tensor, u: Tensor, velocity: Tensor, near: Tensor, e: Tensor, push: Tensor) -> Tensor:
        n = self.model.state_dim
        states = torch.cat([x, near], 1)
        added, y = self.model.normalized(states)
        d, B = self.model.split(y[:, : x.shape[1]])
        found = d + (B @ (u - self.model.middle).unsqueeze(-1)).squeeze(-1)
        error = ((found - velocity) / self.model.units.unsqueeze(1)).square().sum(-1).mean(-1)
        return error + self.constant / self.trained * added[..., n:].square().sum(-1).mean(-1)

    def penalty(self) -> Tensor:
        return self.decay / self.trained * self.model.net.squares()


class JointFactors(Recipe):
    """Model and factors together, as published.

    `|f + B u − ẋ|² + |(A₀ + Σ ūⱼ Aⱼ) e + B v − (ẋ − ẋ̄)|²` on random pairs of samples, and
    `|A₀ e − (d(x) − d(x̄))|² + Σⱼ |Aⱼ e − (bⱼ(x) − bⱼ(x̄))|²` on pairs without labels.
    """

    def __init__(self, model: StackedAffine, width: int, seed: int) -> None:
        super().__init__(model)
        n, m = model.state_dim, model.input_dim
        self.net = StackedMLP(len(model.units), (2 * n, width, width, (1 + m) * n * n), seed=seed)

    @property
    def factorization(self) -> NeuralFactorization:
        return NeuralFactorization(self.net, self.model)

    def loss(self, x: Tensor, u: Tensor, velocity: Tensor, near: Tensor, e: Tensor, push: Tensor) -> Tensor:
        count, pairs = x.shape[1], near.shape[1]
        d, B = self.model.parts(torch.cat([x, near, near - e], 1))
        fit = d[:, :count] + (B[:, :count] @ u.unsqueeze(-1)).squeeze(-1) - velocity
        other, held, rate = (torch.roll(a, 1, 1) for a in (x, u, velocity))
        deviation = torch.cat([x - other, e], 1)
        A = self.factorization.matrices(torch.cat([other, near - e], 1), deviation)
        moved = (A @ deviation[:, :, None, :, None]).squeeze(-1)  # (k, pairs, 1 + m, n): A_j e
        along = moved[:, :count, 0] + (held.unsqueeze(-1) * moved[:, :count, 1:]).sum(-2)
        change = along + (B[:, :count] @ (u - held).unsqueeze(-1)).squeeze(-1) - (velocity - rate)
        here, there = slice(count, count + pairs), slice(count + pairs, None)
        differences = torch.cat([(d[:, here] - d[:, there]).unsqueeze(-2), (B[:, here] - B[:, there]).mT], -2)
        soft = moved[:, count:] - differences
        return sum_of_squares(fit) + sum_of_squares(change) + sum_of_squares(soft.flatten(-2))

    def penalty(self) -> Tensor:
        return _DECAY * (self.model.net.squares() + self.net.squares())


class Contraction(Recipe):
    """Model, contraction metric and controller together.

    `|f(x, u) − ẋ|² + relu(λ_max(Ṁ + M A + Aᵀ M + 2 r M) + 0.01) + relu(λ_max(M) − 10)` with `M =
    L(x) L(x)ᵀ + 0.1 I`, `u = ū + K(x, x̄) e`, `A = ∂/∂x f(x, u(x))` and `r = 0.5`.

    Args:
        model: The models of the plant.
        widths: Units of the states that the networks see `(n,)`.
        width: Width of the two hidden layers of metric and controller.
        seed: Seed of their weights.
    """

    widths: Tensor

    def __init__(self, model: StackedAffine, widths: Tensor, width: int, seed: int) -> None:
        super().__init__(model)
        k, n, m = len(model.units), model.state_dim, model.input_dim
        self.gains = StackedMLP(k, (2 * n, width, width, m * n), seed=seed)
        self.metric = StackedMLP(k, (n, width, width, n * n), seed=seed + 1)
        self.register_buffer("widths", widths)

    def gain(self, x: Tensor, x_ref: Tensor) -> Tensor:
        """`K(x, x̄)` `(k, *batch, m, n)`."""
        seen = torch.cat([x / self.widths, x_ref / self.widths], -1)
        return self.gains(seen).unflatten(-1, (-1, x.shape[-1]))

    def loss(self, x: Tensor, u: Tensor, velocity: Tensor, near: Tensor, e: Tensor, push: Tensor) -> Tensor:
        condition, M = self.condition(near, e, push)
        hinge = torch.relu(torch.linalg.eigvalsh(condition)[..., -1] + 0.01)
        size = torch.relu(torch.linalg.eigvalsh(M)[..., -1] - 10.0)
        return self.fit_error(x, u, velocity).mean(-1) + (hinge + size).mean(-1)

    def condition(self, x: Tensor, e: Tensor, push: Tensor) -> tuple[Tensor, Tensor]:
        """`Ṁ + M A + Aᵀ M + 2 r M`, negative definite where the closed loop contracts, and `M`."""
        n, m = self.model.state_dim, self.model.input_dim
        d, B, d_slope, B_slope = self.model.slopes(x)
        one = torch.eye(n, dtype=x.dtype, device=x.device)
        ahead = torch.cat(
            [one.expand(*x.shape, n) / self.widths, torch.zeros(*x.shape, n, dtype=x.dtype)], -1
        )
        K, K_slope = self.gains.along(torch.cat([x, x - e], -1) / self.widths.repeat(2), ahead)
        K, K_slope = K.unflatten(-1, (m, n)), K_slope.unflatten(-1, (m, n))
        v = push - self.model.middle + (K @ e.unsqueeze(-1)).squeeze(-1)
        v_slope = K + (K_slope @ e[:, :, None, :, None]).squeeze(-1).mT
        A = (d_slope + (B_slope @ v[:, :, None, :, None]).squeeze(-1)).mT + B @ v_slope
        flow = d + (B @ v.unsqueeze(-1)).squeeze(-1)
        L, L_rate = self.metric.along(x / self.widths, (flow / self.widths).unsqueeze(-2))
        L, L_rate = L.unflatten(-1, (n, n)).tril(), L_rate.squeeze(-2).unflatten(-1, (n, n)).tril()
        M, turned = L @ L.mT + 0.1 * one, L_rate @ L.mT
        MA = M @ A
        return turned + turned.mT + MA + MA.mT + M, M

    def penalty(self) -> Tensor:
        return _DECAY * (self.model.net.squares() + self.gains.squares() + self.metric.squares())


class ContractionController(Controller):
    """`u = ū + K(x, x̄) e`, clipped.

    Args:
        recipe: Holds the gains.
        reference: `t -> (x̄, ū)`.
        lower, upper: Input limits `(m,)`.
    """

    def __init__(self, recipe: Contraction, reference: Callable, lower: Tensor, upper: Tensor) -> None:
        super().__init__()
        self.recipe, self.reference, self.lower, self.upper = recipe, reference, lower, upper

    def forward(self, t: Any, x: Tensor) -> Tensor:
        x_ref, u_ref = self.reference(t)
        x_ref = x_ref.expand(x.shape)
        v = self.recipe.gain(x, x_ref) @ (x - x_ref).unsqueeze(-1)
        return torch.clamp(u_ref + v.squeeze(-1), self.lower, self.upper)


def sum_of_squares(error: Tensor) -> Tensor:
    """Mean over the batch of the squared norm `(k,)`."""
    return error.square().sum(-1).mean(-1)


def train(
    recipe: Recipe,
    samples: StackedSamples,
    task: RegulationTask,
    room: Tensor,
    near: float,
    *,
    steps: int,
    batch: int,
    pairs: int,
    seed: int,
    checkpoint: Path,
    settings: Mapping[str, Any],
) -> list[float]:
    """Adam from 1e-3 to 2e-5 in float32; of each model the weights with the best validation loss are kept.

    Batches and pairs are functions of seed and step, so that an interrupted run continues with
    identical results. Returns the validation loss, mean over the models, of every step (measured
    every 50).
    """
    recipe.float()
    samples = samples.float()
    low, high = (torch.from_numpy(a).float() for a in (task.start_low, task.start_high))
    hold, room = torch.from_numpy(task.goal_input).float(), room.float()

    def draw(generator: torch.Generator, rows: list[Tensor]) -> list[Tensor]:
        shape = len(samples.counts), pairs
        states, e = (torch.rand(*shape, len(low), generator=generator) for _ in range(2))
        push = torch.rand(*shape, len(hold), generator=generator)
        return [*rows, low + (high - low) * states, near * (2.0 * e - 1.0), hold + room * (2.0 * push - 1.0)]

    held_out = draw(torch.Generator().manual_seed(2_000_003 + seed), samples.held_out())
    last = torch.full((len(samples.counts),), torch.inf)

    def evaluate(step: int) -> tuple[Tensor, Tensor, int]:
        nonlocal last
        generator = torch.Generator().manual_seed(1_000_003 * seed + step)
        loss = recipe.loss(*draw(generator, samples.batch(generator, batch)))
        if step % 50 == 0:
            with torch.no_grad():
                last = recipe.loss(*held_out)
        return (loss + recipe.penalty()).sum(), last, 0

    history = descend(
        recipe,
        evaluate,
        steps=steps,
        learning_rate=1e-3,
        final_learning_rate=2e-5,
        settings=settings,
        checkpoint=checkpoint,
        every=500,
    )
    recipe.double().requires_grad_(False)
    return history.score


def law_of(row: str, recipe: Recipe) -> Factorization:
    """The factorization that the row puts into the tracking law."""
    from constrained_nn.control import Linearization, MeanValue

    if row == "sd-lqr-joint":
        assert isinstance(recipe, JointFactors)
        return recipe.factorization
    return MeanValue(recipe.model, 3) if row == "sd-lqr" else Linearization(recipe.model)
