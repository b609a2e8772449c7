"""The constraint set of a closed loop, made from its task."""

from __future__ import annotations

from typing import Any

from constrained_nn.certificates import ControlBarrier
from constrained_nn.protocols import BarrierFunction, ControlAffine


def barrier_of(task: Any) -> ControlBarrier:
    """The barrier certificate of a task.

    Raises:
        TypeError: The task has no barrier.
    """
    if not isinstance(getattr(task, "barrier", None), BarrierFunction) or not isinstance(
        task.plant, ControlAffine
    ):
        raise TypeError(
            f"training: expected a task with a barrier and a control-affine plant, got '{task.name}'. "
            f"Safe methods need one; 'unicycle-obstacles' has it."
        )
    return ControlBarrier(task.barrier, task.plant, rate=task.alpha)
