"""Closed-loop evaluation of a controller, with the paper's metrics and our own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from constrained_nn.certificates import ControlBarrier
from constrained_nn.control import Controller
from constrained_nn.training.closed_loop.condition import barrier_of
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
    """

    metrics: dict[str, float]
    trajectory: Trajectory


def simulate(task: Task, controller: Callable[[Any, Any], Any], starts: Tensor, **options: Any) -> Trajectory:
    """`rollout` with the task's plant, step, horizon, integrator and sub-steps."""
    return rollout(
        task.plant,
        controller,
        starts,
        dt=task.dt,
        horizon=task.horizon,
        integrator=task.integrator,
        substeps=task.substeps,
        **options,
    )


@torch.no_grad()
def measure(task: Task, controller: Controller, starts: Tensor) -> tuple[dict[str, Tensor], Trajectory]:
    """Simulate in eval mode and measure every run `(runs,)`.

    `cost`; `max_violation`, `mean_violation`, `violated` (time integrals of `relu(A u − b)` per barrier: largest
    and mean over barriers, number above 1e-4: the paper's columns); `worst_row` (largest
    `(A u − b) / (|A||u| + |b|)` of any held input); `margin` (smallest `−g` at any sub-step or the end);
    `incomplete` (1 where the run diverged).
    """
    was_training = controller.training
    controller.eval()
    barrier = barrier_of(task)
    rows = barrier.condition(0.0, starts).upper.shape[-1]
    worst_row = torch.full_like(starts[..., 0], -torch.inf)

    def excess(j: int):
        return lambda t, x, u: barrier.condition(t, x).residual(u)[..., j]

    def watch(sub: SubStep) -> None:  # of held inputs only: the input at the end is never held
        index = slice(None) if sub.index is None else sub.index
        worst_row[index] = torch.maximum(worst_row[index], _relative_excess(barrier, sub.t, sub.x, sub.u))

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
    worst_g = torch.stack([trajectory.worst[c.name] for c in task.constraints], -1).amax(-1)
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
def evaluate(task: Task, controller: Controller, starts: np.ndarray | Tensor) -> Evaluation:
    """Simulate and measure, in the dtype of `starts` (NumPy: float64).

    Metrics: means over runs of `cost`, `max_violation`, `mean_violation`, `violated` (see `measure`);
    `worst_row` (largest of all), `rows_violated` (runs where it exceeds 1e-9); `collisions` (runs with a
    constraint `g > 0` at any sub-step or the end), `margin` (smallest `−g` of all); `incomplete` (runs that
    diverged); `policy_ms` (one evaluation on the start states).
    """
    x0 = torch.as_tensor(starts)
    runs, trajectory = measure(task, controller, x0)
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
    return Evaluation({name: float(value) for name, value in metrics.items()}, trajectory)


def _relative_excess(barrier: ControlBarrier, t: Any, x: Tensor, u: Tensor) -> Tensor:
    rows = barrier.condition(t, x)
    return (rows.residual(u) / rows.scale(u).clamp_min(torch.finfo(u.dtype).tiny)).amax(-1)


def _policy_ms(controller: Controller, x: Tensor, repeats: int = 5) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        controller(0.0, x)
        best = min(best, time.perf_counter() - start)
    return 1e3 * best
