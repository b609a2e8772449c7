"""Closed-loop evaluation of a controller, with the paper's metrics and our own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from constrained_nn.control import ConflictRule, Controller, SafetyFilter
from constrained_nn.sets import IntervalSet
from constrained_nn.training.safety import safety_of
from control_envs.simulate import SubStep, Trajectory, rollout
from control_envs.tasks import Task

PUBLISHED_TOLERANCE = 1e-4  # a time-integrated violation counts above this in the paper's tables
ROW_RTOL = 1e-9  # a row counts as violated above this times |A||u| + |b|


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A simulated batch and its metrics.

    Args:
        metrics: Numbers by name; see `evaluate`.
        trajectory: The states and inputs.
        conflicts: How often each constraint gave way because the set of safe inputs was empty, in
            runs and samples; a constraint that never did is left out.
    """

    metrics: dict[str, float]
    trajectory: Trajectory
    conflicts: dict[str, int] = field(default_factory=dict)


def simulate(
    task: Task,
    controller: Callable[[Any, Any], Any],
    starts: Tensor,
    *,
    horizon: int | None = None,
    **options: Any,
) -> Trajectory:
    """`rollout` with the task's plant, step, horizon, integrator and sub-steps."""
    return rollout(
        task.plant,
        controller,
        starts,
        dt=task.dt,
        horizon=task.horizon if horizon is None else horizon,
        integrator=task.integrator,
        substeps=task.substeps,
        **options,
    )


@torch.no_grad()
def measure(
    task: Task,
    controller: Controller,
    starts: Tensor,
    *,
    condition: Callable[[Any, Tensor], IntervalSet] | None = None,
) -> tuple[dict[str, Tensor], Trajectory]:
    """Simulate in eval mode and measure every run `(runs,)`, by the rows of `condition`.

    `cost`; `max_violation`, `mean_violation`, `violated` (time integrals of `relu(A u − b)` per barrier: largest
    and mean over barriers, number above 1e-4: the paper's columns); `worst_row` (largest
    `(A u − b) / (|A||u| + |b|)` of any held input); `margin` (smallest `−g` at any sub-step or the end);
    `incomplete` (1 where the run diverged).
    """
    was_training = controller.training
    controller.eval()
    judged = _Latest(condition or safety_of(task).condition)
    rows = judged(0.0, starts).upper.shape[-1]
    worst_row = torch.full_like(starts[..., 0], -torch.inf)
    rules = _conflict_rules(controller)
    for rule in rules:
        rule.reset()

    def excess(j: int):
        return lambda t, x, u: judged(t, x).residual(u)[..., j]

    def watch(sub: SubStep) -> None:  # of held inputs only: the input at the end is never held
        index = slice(None) if sub.index is None else sub.index
        found = _relative_excess(judged(sub.t, sub.x), sub.u)
        worst_row[index] = torch.maximum(worst_row[index], found)

    trajectory = simulate(
        task,
        controller,
        starts,
        running={"cost": task.stage_cost, **{f"violation-{j}": excess(j) for j in range(rows)}},
        extremes={c.name: c.g for c in task.constraints},
        observers=[watch],
    )
    controller.train(was_training)
    violations = torch.stack([trajectory.integrals[f"violation-{j}"] for j in range(rows)], -1)
    worst_g = torch.full_like(starts[..., 0], -torch.inf)
    for constraint in task.constraints:
        worst_g = torch.maximum(worst_g, trajectory.worst[constraint.name])
    metrics = {
        "cost": trajectory.integrals["cost"],
        "max_violation": violations.amax(-1),
        "mean_violation": violations.mean(-1),
        "violated": (violations > PUBLISHED_TOLERANCE).sum(-1).to(starts.dtype),
        "worst_row": worst_row,
        "margin": -worst_g,
        "incomplete": (~trajectory.complete).to(starts.dtype),
    }
    return metrics, trajectory


@torch.no_grad()
def evaluate(
    task: Task,
    controller: Controller,
    starts: np.ndarray | Tensor,
    *,
    condition: Callable[[Any, Tensor], IntervalSet] | None = None,
) -> Evaluation:
    """Simulate and measure, in the dtype of `starts` (NumPy: float64).

    Metrics: means over runs of `cost`, `max_violation`, `mean_violation`, `violated` (see `measure`);
    `worst_row` (largest of all), `rows_violated` (runs where it exceeds 1e-9); `collisions` (runs with a
    constraint `g > 0` at any sub-step or the end), `margin` (smallest `−g` of all); `incomplete` (runs that
    diverged); `policy_ms` (one evaluation on the start states).
    """
    x0 = torch.as_tensor(starts)
    runs, trajectory = measure(task, controller, x0, condition=condition)
    conflicts: dict[str, int] = {}
    for rule in _conflict_rules(controller):
        conflicts |= rule.counts
    was_training = controller.training
    controller.eval()
    metrics = {
        **{name: runs[name].mean() for name in ("cost", "max_violation", "mean_violation", "violated")},
        "worst_row": runs["worst_row"].max(),
        "rows_violated": (~(runs["worst_row"] <= ROW_RTOL)).sum(),
        "collisions": (~(runs["margin"] >= 0)).sum(),
        "margin": runs["margin"].min(),
        "incomplete": runs["incomplete"].sum(),
        "runs": len(x0),
        "policy_ms": _policy_ms(controller, x0),
    }
    controller.train(was_training)
    numbers = {name: float(value) for name, value in metrics.items()}
    return Evaluation(numbers, trajectory, conflicts)


class _Latest:
    """A condition that keeps its last set: several functions ask for that of the same states."""

    def __init__(self, condition: Callable[[Any, Tensor], Any]) -> None:
        self.condition = condition
        self.last: tuple[Any, Any, Any] = (None, None, None)

    def __call__(self, t: Any, x: Tensor) -> Any:
        if self.last[1] is not x or self.last[0] is not t:
            self.last = (t, x, self.condition(t, x))
        return self.last[2]


def _conflict_rules(controller: Controller) -> list[ConflictRule]:
    filters = [m for m in controller.modules() if isinstance(m, SafetyFilter)]
    return [f.on_conflict for f in filters if f.on_conflict is not None]


def _relative_excess(set: Any, u: Tensor) -> Tensor:
    excess = set.residual(u) / set.scale(u).clamp_min(torch.finfo(u.dtype).tiny)
    return excess.amax(-1)


def _policy_ms(controller: Controller, x: Tensor, repeats: int = 5) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        controller(0.0, x)
        best = min(best, time.perf_counter() - start)
    return 1e3 * best
