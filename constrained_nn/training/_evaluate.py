"""Closed-loop evaluation of a controller, with the paper's metrics and our own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from constrained_nn.certificates import ControlBarrier
from constrained_nn.control import Controller
from constrained_nn.training._methods import barrier_of
from control_envs.simulate import Trajectory, rollout
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


def simulate(task: Task, controller: Controller, starts: Tensor, **options: Any) -> Trajectory:
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
def evaluate(task: Task, controller: Controller, starts: np.ndarray | Tensor) -> Evaluation:
    """Simulate and measure, in the dtype of `starts` (NumPy: float64).

    Metrics: `cost` (mean over runs); `max_violation`, `mean_violation`, `violated` (time integrals of
    `relu(A u − b)` per barrier: largest and mean over barriers, number above 1e-4, each averaged over runs: the
    paper's columns); `worst_row` (largest `(A u − b) / (|A||u| + |b|)` at any sub-step), `rows_violated` (runs
    where it exceeds 1e-9); `collisions` (runs with a constraint `g > 0` at any sub-step or the end), `margin`
    (smallest `−g`); `incomplete` (runs that diverged); `policy_ms` (one evaluation on the start states).
    """
    x0 = torch.as_tensor(starts)
    was_training = controller.training
    controller.eval()
    barrier = barrier_of(task)
    rows = barrier.condition(0.0, x0).upper.shape[-1]

    def excess(j: int):
        return lambda t, x, u: barrier.condition(t, x).residual(u)[..., j]

    trajectory = simulate(
        task,
        controller,
        x0,
        running={"cost": task.stage_cost, **{f"violation-{j}": excess(j) for j in range(rows)}},
        extremes={
            "row": lambda t, x, u: _relative_excess(barrier, t, x, u),
            **{c.name: c.g for c in task.constraints},
        },
    )
    violations = torch.stack([trajectory.integrals[f"violation-{j}"] for j in range(rows)], -1)
    worst_g = torch.stack([trajectory.worst[c.name] for c in task.constraints], -1).amax(-1)
    row = trajectory.worst["row"]
    metrics = {
        "cost": trajectory.integrals["cost"].mean(),
        "max_violation": violations.amax(-1).mean(),
        "mean_violation": violations.mean(),
        "violated": (violations > PUBLISHED_TOLERANCE).sum(-1).to(row.dtype).mean(),
        "worst_row": row.max(),
        "rows_violated": (~(row <= ROW_RTOL)).sum(),
        "collisions": (~(worst_g <= 0)).sum(),
        "margin": -worst_g.max(),
        "incomplete": (~trajectory.complete).sum(),
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
