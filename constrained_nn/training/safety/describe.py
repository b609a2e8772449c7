"""What a task is, and what can be guaranteed about it, in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from constrained_nn.training.safety.condition import Safety, safety_of
from control_envs.dynamics import ControlAffine
from control_envs.tasks import Task


def describe(task: Task, safety: Safety | None = None) -> str:
    """Plant, units, limits, constraints with their relative degree, and what is guaranteed."""
    return "\n".join(_lines(task, safety or safety_of(task)))


def _lines(task: Task, safety: Safety) -> Iterator[str]:
    plant = task.plant
    yield f"{task.name}: {task.summary}"
    affine = "affine in its input" if isinstance(plant, ControlAffine) else "not affine in its input"
    yield f"plant       {type(plant).__name__}, {affine}"
    yield f"sampling    {task.dt:g} s, {task.horizon} samples, {type(task.integrator).__name__}"
    yield "states"
    for q, low, high in zip(plant.state, task.state_low, task.state_high, strict=True):
        yield f"  {q.name:12s} [{q.unit}]{' angle' if q.angle else ''}{_range(low, high)}"
    yield "inputs"
    for q, low, high in zip(plant.input, task.input_low, task.input_high, strict=True):
        yield f"  {q.name:12s} [{q.unit}]{_range(low, high)}"
    if task.disturbance is not None:
        yield f"disturbance {type(task.disturbance).__name__}, not covered by any guarantee"
    yield "constraints" if safety.kept else "constraints none"
    for kept in safety.kept:
        degree = "" if kept.degree is None else f", relative degree {kept.degree}"
        gains = ", gains " + ", ".join(f"{g:.4g}" for g in kept.gains) + " 1/s" if kept.gains else ""
        yield f"  {kept.name:12s} [{kept.unit}]{degree}{gains}"
        if kept.remark:
            yield f"  {'':12s} {kept.remark}"
    yield f"built       {safety.built}"
    yield f"guaranteed  {safety.guarantee}"
    between = "between samples as well" if safety.between_samples else "nothing between samples"
    yield f"            {between}"
    if safety.inputs is not None and safety.kept:
        order = " > ".join(["input limits", *(k.name for k in safety.kept)])
        yield f"conflicts   the set can be empty; then the order is {order}"


def _range(low: float, high: float) -> str:
    if not np.isfinite(low) and not np.isfinite(high):
        return ""
    return f" {low:g} to {high:g}"
