"""How long and how fast to train where the user says nothing, by task."""

from __future__ import annotations

from typing import Any

from constrained_nn.training.safety import count_trials, has_barrier
from control_envs.tasks import Task

HORIZON = 100  # samples of a training run
BATCH = 32
# Steps times samples, in units of a plain rollout; some two minutes of one core.
WORK = 8000.0
FEWEST, MOST = 10, 100


def default_settings(task: Task) -> dict[str, Any]:
    """Settings of `TrainConfig` for a task: those of the paper where it has published starts.

    Others start at the nominal controller. Rows at the next samples cost as many steps of the plant
    as inputs are tried; the more of them, the fewer the gradient steps. The budget is a count and no
    time, so that a run is the same on every machine.
    """
    if has_barrier(task) and hasattr(task, "published_starts"):
        return {
            "steps": 600,
            "batch": 100,
            "learning_rate": 1e-3,
            "max_gradient_norm": 300.0,
            "max_adjoint_norm": 1000.0,
            "eval_every": 90,
        }
    horizon = min(task.horizon, HORIZON)
    steps = round(WORK / (horizon * (1.0 + count_trials(task) / 12.0)))
    steps = min(max(steps, FEWEST), MOST)
    return {
        "steps": steps,
        "batch": BATCH,
        "learning_rate": 3e-4,
        "final_learning_rate": 1e-5,
        "max_gradient_norm": 30.0,
        "max_adjoint_norm": 100.0,
        "eval_every": max(1, steps // 4),
        "hidden": (64, 64),
        "horizon": horizon,
        "from_nominal": True,
    }
