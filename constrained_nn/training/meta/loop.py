"""Control-oriented meta-learning: features and gains trained through the closed loop on learned models."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from constrained_nn.control import DynamicController
from constrained_nn.settings import require_integer, require_real
from constrained_nn.training.checkpoint import History
from constrained_nn.training.descent import descend
from constrained_nn.training.meta.ensemble import ForceEnsemble
from control_envs.dynamics import Dynamics, Quantity
from control_envs.references import ReferenceTable
from control_envs.simulate import RK4
from control_envs.stateful import closed_loop_step


@dataclass(frozen=True, eq=False)
class LearnedPlant(Dynamics):
    """The prior with the forces of an ensemble: state `(M, R, n)`, model i drives row i.

    A state beyond `limit` stands still, so that one rollout that runs away costs the others nothing.

    Args:
        prior: The plant without the unknown force.
        models: The forces, as accelerations.
        limit: Size of a state above which it counts as run away.
    """

    prior: Any
    models: ForceEnsemble
    limit: float = 1e2

    state: ClassVar[tuple[Quantity, ...]] = ()

    @property
    def state_dim(self) -> int:
        return self.prior.state_dim

    @property
    def input_dim(self) -> int:
        return self.prior.input_dim

    def derivative(self, t, x, u, w=None, *, xp=None):
        d = x.shape[-1] // 2
        rate = self.prior.derivative(t, x, u, xp=torch)
        rate = torch.cat([rate[..., :d], rate[..., d:] + self.models(x)], -1)
        return rate * self.alive(x)

    def alive(self, x: Tensor) -> Tensor:
        """1 where the state is within the limit, else 0, `(M, R, 1)`."""
        return (x.detach().abs().amax(-1, keepdim=True) < self.limit).to(x.dtype)


class _Guarded(DynamicController):
    """A controller whose state stands still where that of the plant has run away."""

    def __init__(self, controller: DynamicController, plant: LearnedPlant) -> None:
        super().__init__()
        self.respond, self.plant = controller.prepared(), plant
        self.state_dim = controller.state_dim

    def forward(self, t, x, reference, z):
        alive = self.plant.alive(x)
        u, rate = self.respond(t, x, reference, z)
        return u * alive, rate * alive


@dataclass(frozen=True)
class MetaConfig:
    """Settings of the training through the closed loop.

    Args:
        steps: Steps of Adam, each on all rollouts.
        duration: Length of a rollout [s].
        dt: Step of the integrator [s]; the controller acts continuously.
        effort: Weight of the squared input in the cost.
        weight_decay: Weight of the squared weights of the features.
        learning_rate: Step size of Adam.
        divergence_cost: What a rollout that runs away costs; it has no gradient.
        segments: Parts of a rollout that are computed twice instead of stored; 1 stores everything.
        compiled: Whether the step of the integrator is compiled (`torch.compile`: a C++ compiler and a minute or two):
            four times as fast afterwards, the same numbers to rounding.

    Raises:
        TypeError: A field is no number.
        ValueError: A number is not finite or out of its range.
    """

    steps: int = 500
    duration: float = 5.0
    dt: float = 0.02
    effort: float = 1e-3
    weight_decay: float = 1e-4
    learning_rate: float = 1e-2
    divergence_cost: float = 1e3
    segments: int = 1
    compiled: bool = False

    def __post_init__(self) -> None:
        require_integer("MetaConfig", "steps", self.steps)
        require_integer("MetaConfig", "segments", self.segments, least=1)
        for name in ("duration", "dt", "learning_rate"):
            require_real("MetaConfig", name, getattr(self, name), above=0.0)
        for name in ("effort", "weight_decay", "divergence_cost"):
            require_real("MetaConfig", name, getattr(self, name), least=0.0)
        if not self.horizon >= 1:
            raise ValueError(
                f"MetaConfig: expected duration >= dt, got {self.duration} and {self.dt}. Give a longer duration."
            )

    @property
    def horizon(self) -> int:
        return round(self.duration / self.dt)


def split_pairs(models: int, references: int) -> tuple[Tensor, Tensor]:
    """Which reference each model meets, and which of these rollouts are for training.

    Three quarters of the models train on three quarters of the references; the others validate on the rest. Returns
    indices `(M, R)` of references and a mask `(M, R)` that is 1 for training, -1 for validation, 0 for a repetition.
    """
    train_models = max(1, int(0.75 * models)) if models > 1 else 1
    train_refs = max(1, int(0.75 * references))
    valid = torch.arange(train_refs, references)
    index = torch.arange(train_refs).repeat(models, 1)
    role = torch.ones(models, train_refs)
    if train_models < models:
        index[train_models:] = valid.repeat(-(-train_refs // len(valid)))[:train_refs]
        role[train_models:] = torch.where(torch.arange(train_refs) < len(valid), -1.0, 0.0)
    return index, role


def meta_train(
    controller: DynamicController,
    prior: Any,
    models: ForceEnsemble,
    references: ReferenceTable,
    target: Callable[[Tensor], tuple[Tensor, Tensor]],
    config: MetaConfig,
    *,
    settings: dict[str, Any],
    checkpoint: Path | None = None,
    progress: Callable[[int, float, float], None] | None = None,
) -> History:
    """Train features and gains on every (reference, model) pair; the best by validation is kept.

    Args:
        controller: Its parameters are changed.
        prior: The plant without the unknown force.
        models: Learned forces.
        references: Table `(2 horizon + 1, R, k, p)` of all references at every half step.
        target: `values -> (state, input)` to be followed; the input is what effort is measured from.
        config: Settings.
        settings: What else determines the numbers, for the checkpoint.
        checkpoint: File to save to, and to go on from.
        progress: Called as `progress(step, loss, score)`.
    """
    count = len(models.W0)
    index, role = split_pairs(count, references.values.shape[1])
    table = ReferenceTable(references.values[:, index], references.step, references.t0)
    goal, goal_input = target(table.values[::2])
    train, valid = role == 1.0, role == -1.0
    if not valid.any():
        valid = train
    plant = LearnedPlant(prior, models)
    features = list(controller.features.parameters())  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    total = config.duration * train.sum()

    def evaluate(step: int) -> tuple[Tensor, Tensor, int]:
        x, u = _simulate(plant, controller, table, goal[0], config)
        error = (x - goal).square().sum(-1)  # (T + 1, M, R)
        tracking = config.dt * (error[1:] + error[:-1]).sum(0) / 2.0
        effort = config.dt * (u - goal_input[:-1]).square().sum(-1).sum(0)
        gone = x[-1].detach().abs().amax(-1) >= plant.limit
        cost = torch.where(
            gone, config.divergence_cost, (tracking + config.effort * effort) / config.duration
        )
        squares = sum(p.square().sum() for p in features)
        loss = cost[train].mean() + config.weight_decay * squares / total
        score = torch.where(gone, config.divergence_cost, tracking.detach() / config.duration)[valid].mean()
        return loss, score, int((gone & (role != 0)).sum())

    about = {**settings, **vars(config), "models": count}
    del about["compiled"]  # the same numbers to rounding
    return descend(
        controller,
        evaluate,
        steps=config.steps,
        learning_rate=config.learning_rate,
        settings=about,
        checkpoint=checkpoint,
        progress=progress,
    )


def _simulate(plant, controller, table, x, config: MetaConfig) -> tuple[Tensor, Tensor]:
    """States `(T + 1, M, R, n)` and inputs `(T, M, R, m)`."""
    guarded = _Guarded(controller, plant)
    n = x.shape[-1]
    start = torch.cat([x, x.new_zeros(*x.shape[:-1], controller.state_dim)], -1)
    training = torch.is_grad_enabled()
    step = _compiled_step() if config.compiled and training else _step

    def run(begin: int, steps: int, both: Tensor) -> tuple[Tensor, Tensor]:
        states, inputs = [], []
        for k in range(begin, begin + steps):
            both, u = step(plant, guarded, both, table.values[2 * k : 2 * k + 3], config.dt)
            states.append(both)
            inputs.append(u)
        return torch.stack(states), torch.stack(inputs)

    size = -(-config.horizon // config.segments)
    parts = []
    both = start.requires_grad_(training)  # as after the first step: one compiled function serves all
    for begin in range(0, config.horizon, size):
        steps = min(size, config.horizon - begin)
        if config.segments == 1:
            parts.append(run(begin, steps, both))
        else:
            parts.append(recompute(run, begin, steps, both, use_reentrant=False))
        both = parts[-1][0][-1]
    states, inputs = (torch.cat(part) for part in zip(*parts, strict=True))
    return torch.cat([x[None], states[..., :n]]), inputs


def _step(plant, guarded: _Guarded, both: Tensor, references: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """One step of all rollouts, and the inputs at its beginning."""
    return closed_loop_step(plant, guarded.forward, both, references, dt, integrator=RK4(), xp=torch)


@functools.cache
def _compiled_step() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(_step, dynamic=False)
