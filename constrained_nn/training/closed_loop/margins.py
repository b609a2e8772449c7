"""What became of each constraint in a batch of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from control_envs.simulate import Trajectory
from control_envs.tasks import Task

CONFIDENCE = 0.95


@dataclass(frozen=True)
class ConstraintReport:
    """One constraint over all runs and samples.

    Args:
        name: Name of the constraint.
        unit: Unit of the margin.
        worst_margin: Smallest `−g` at any sample.
        violated_runs: Runs with `g > 0`, or a NaN, at some sample.
        runs: Number of runs.
        bound: Upper end of the exact one-sided 95 % confidence interval (Clopper and Pearson) of the
            probability that a run from a fresh start violates it.
        share: Share of all samples with `g > 0`.
        first: Earliest time of a violation [s], or None.
        conflicts: How often it gave way because no input could meet it.
    """

    name: str
    unit: str
    worst_margin: float
    violated_runs: int
    runs: int
    bound: float
    share: float
    first: float | None
    conflicts: int = 0


def report_constraints(
    task: Task, trajectory: Trajectory, conflicts: Mapping[str, int] | None = None
) -> list[ConstraintReport]:
    """A report on each constraint of the task, judged in float64 at the samples.

    Args:
        task: The task.
        trajectory: States `(runs, T+1, n)` and inputs `(runs, T, m)`.
        conflicts: Counts by name, as `Evaluation.conflicts`.
    """
    from scipy.stats import binomtest

    t, x, u = np.asarray(trajectory.t), _numbers(trajectory.x), _numbers(trajectory.u)
    u = np.concatenate([u, u[:, -1:]], 1)  # the last input is held on
    found = []
    for constraint in task.constraints:
        values = [constraint.g(t[k], x[:, k], u[:, k]) for k in range(len(t))]
        g = np.stack([np.broadcast_to(v, len(x)) for v in values], -1)
        bad = ~(g <= 0)
        count = int(bad.any(-1).sum())
        test = binomtest(count, len(x), alternative="less")
        when = np.flatnonzero(bad.any(0))
        found.append(
            ConstraintReport(
                constraint.name,
                constraint.unit,
                float(-g.max()),
                count,
                len(x),
                float(test.proportion_ci(CONFIDENCE, method="exact").high),
                float(bad.mean()),
                float(t[when[0]]) if len(when) else None,
                (conflicts or {}).get(constraint.name, 0),
            )
        )
    return found


def _numbers(values: Any) -> np.ndarray:
    values = values.detach().cpu().numpy() if hasattr(values, "detach") else values
    return np.asarray(values, dtype=np.float64)
