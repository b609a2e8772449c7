"""Start states by purpose and seed: no two purposes share a draw."""

from __future__ import annotations

import numpy as np

from control_envs.tasks import Task

# Each purpose draws from a stream of its own, so that no test state was trained on.
STREAMS = {"train": 0, "validation": 1, "test": 2, "fresh": 3, "gains": 4, "region": 5}


def draw_starts(task: Task, purpose: str, count: int, *, seed: int = 0) -> np.ndarray:
    """`count` start states `(count, n)`; those of the paper where the task has published ones.

    Args:
        task: The task.
        purpose: `train`, `validation`, `test`, `fresh` (further tests) or `gains` (choice of gains).
        count: How many; published splits are returned whole.
        seed: Seed of the draw.
    """
    published = getattr(task, "published_starts", None)
    if published is not None and purpose in ("train", "validation", "test"):
        return published()[purpose]
    return task.sample_starts(np.random.default_rng([seed, STREAMS[purpose]]), count)


def draw_region(task: Task, count: int, *, seed: int = 0) -> np.ndarray:
    """States all over the region of the task `(count, n)`; where it is endless, as far as starts lie.

    An angle without bounds is drawn over a full turn.
    """
    starts = task.sample_starts(np.random.default_rng([seed, STREAMS["region"]]), 200)
    spread = starts.max(0) - starts.min(0)
    angle = np.array([q.angle for q in task.plant.state])
    low = np.where(angle, -np.pi, starts.min(0) - 3.0 * spread)
    high = np.where(angle, np.pi, starts.max(0) + 3.0 * spread)
    low = np.where(np.isfinite(task.state_low), task.state_low, low)
    high = np.where(np.isfinite(task.state_high), task.state_high, high)
    rng = np.random.default_rng([seed, STREAMS["region"], 1])
    return low + (high - low) * rng.random((count, len(low)))
