"""The condition on the inputs of a task, built from its named constraints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from constrained_nn.certificates import (
    MOST_CORNERS,
    ControlBarrier,
    DegreeError,
    Judgement,
    Requirement,
    SafeInputs,
    SampledBarrier,
    judge,
)
from constrained_nn.protocols import BarrierFunction, ControlAffine
from constrained_nn.sets import IntervalSet
from constrained_nn.training.safety.gains import choose_pace
from constrained_nn.training.safety.starts import draw_region, draw_starts
from control_envs.tasks import Task

STATES = 2000  # in which a constraint is judged


@dataclass(frozen=True)
class Kept:
    """How one constraint is kept.

    Args:
        name: Name of the constraint.
        unit: Its unit.
        degree: Relative degree; None where it is part of a barrier that the task brings.
        gains: Decay rates [1/s].
        remark: What to know about it, or nothing.
    """

    name: str
    unit: str
    degree: int | None = None
    gains: tuple[float, ...] = ()
    remark: str = ""


@dataclass(frozen=True)
class Safety:
    """The safe inputs of a task, and what taking them guarantees.

    Args:
        condition: The set of safe inputs, a function `(t, x)`.
        inputs: The object behind it when it was built from the constraints, else None.
        kept: The constraints, in their order.
        built: In one line, what was built.
        guarantee: In one line, what holds while the set is not empty.
        between_samples: Whether it holds between samples as well.
    """

    condition: Callable[[Any, Tensor], IntervalSet]
    inputs: SafeInputs | None
    kept: tuple[Kept, ...]
    built: str
    guarantee: str
    between_samples: bool = False


def safety_of(task: Task, gains: Mapping[str, tuple[float, ...]] | None = None) -> Safety:
    """The condition of a task: its own barrier, its clearances, or rows from its constraints.

    Args:
        task: The task.
        gains: Decay rates [1/s] by constraint; default: chosen by simulation (see `choose_pace`).

    Raises:
        DegreeError: A constraint cannot be kept by rows in the input, or is violated at every start;
            the message names it and the remedy.
        ValueError: The task has a constraint of its own, and `gains` name another.
    """
    if isinstance(getattr(task, "barrier", None), BarrierFunction) and isinstance(task.plant, ControlAffine):
        return _from_barrier(task)
    if getattr(task, "clearances", ()) and task.clearance_hold == task.dt:  # pyright: ignore
        return _from_clearances(task)
    return _from_constraints(task, gains)


def barrier_of(task: Any) -> ControlBarrier:
    """The barrier that a task brings.

    Raises:
        TypeError: It brings none.
    """
    if not has_barrier(task):
        raise TypeError(
            f"training: expected a task with a barrier and a control-affine plant, got '{task.name}'. "
            f"`safety_of(task)` builds a condition from the constraints of any task."
        )
    return ControlBarrier(task.barrier, task.plant, rate=task.alpha)


def has_barrier(task: Any) -> bool:
    """Whether a task brings a barrier of its own."""
    barrier = getattr(task, "barrier", None)
    return isinstance(barrier, BarrierFunction) and isinstance(task.plant, ControlAffine)


def _from_barrier(task: Any) -> Safety:
    barrier = barrier_of(task)
    return Safety(
        barrier.condition,
        None,
        tuple(Kept(c.name, c.unit) for c in task.constraints),
        f"the barrier of the task, h' + {task.alpha:g} h >= 0",
        "in continuous time h >= 0 stays true; the input is held, so that samples are checked, not proved",
    )


def _from_clearances(task: Any) -> Safety:
    low, high = torch.tensor(task.input_low), torch.tensor(task.input_high)
    barrier = SampledBarrier(task.clearances, task.plant, hold=task.dt, low=low, high=high)
    return Safety(
        barrier.condition,
        None,
        tuple(Kept(c.name, c.unit, len(c.gains), c.gains) for c in task.clearances),
        "barriers for a held input, with a proved bound of their curvature, and the input limits",
        "every constraint holds at and between samples, without disturbance",
        between_samples=True,
    )


def _from_constraints(task: Task, gains: Mapping[str, tuple[float, ...]] | None) -> Safety:
    judgements = judge_constraints(task)
    for name in gains or {}:
        if name not in judgements:
            raise ValueError(
                f"gains: expected constraints of '{task.name}', got '{name}'. It has "
                f"{', '.join(judgements) or 'none'}."
            )

    def build(pace: float) -> SafeInputs:
        """All constraints at one pace, apart from those whose gains are given."""
        requirements = [
            Requirement(c.name, c.g, (gains or {}).get(c.name, _at_pace(judgements[c.name], pace, task.dt)))
            for c in task.constraints
        ]
        low, high = (torch.tensor(v, dtype=torch.float64) for v in (task.input_low, task.input_high))
        return SafeInputs(requirements, advance_of(task), dt=task.dt, low=low, high=high)

    missing = [name for name, j in judgements.items() if j.degree and name not in (gains or {})]
    inputs = build(choose_pace(task, build) if missing else 1.0)
    kept = tuple(
        Kept(r.name, c.unit, r.degree, r.gains, _remark(judgements[r.name]))
        for r, c in zip(inputs.requirements, task.constraints, strict=True)
    )
    return Safety(
        inputs.condition,
        inputs,
        kept,
        "rows at the next samples, by the integrator of the task, and the input limits"
        if kept
        else "the input limits: the task has no constraints",
        "every constraint holds at the samples, without disturbance" if kept else "the limits hold",
    )


def judge_constraints(task: Task) -> dict[str, Judgement]:
    """Relative degree of every constraint.

    Raises:
        DegreeError: As in `safety_of`.
    """
    starts = torch.from_numpy(np.asarray(draw_starts(task, "gains", 200)))
    states = torch.cat([starts, torch.from_numpy(draw_region(task, STATES))])
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (task.input_low, task.input_high))
    center = 0.5 * (low + high)

    def derivative(t: Any, x: Tensor, u: Tensor) -> Tensor:
        return task.plant.derivative(t, x, u, None, xp=torch)

    found = {}
    for constraint in task.constraints:
        judgement = judge(constraint.name, constraint.g, derivative, states, low, high)
        at_starts = constraint.g(0.0, starts, center.expand(len(starts), -1))
        if judgement.degree and not bool((at_starts <= 0).any()):
            raise DegreeError(
                f"constraint '{constraint.name}': expected start states that satisfy it, got none of "
                f"{len(starts)} (the best has g = {float(at_starts.min()):.3g}). Move the start box, "
                f"or the constraint."
            )
        found[constraint.name] = judgement
    return found


def count_trials(task: Task) -> int:
    """Steps of the plant that the rows of a task cost at each sample; 0 for a task without rows."""
    if not task.constraints or has_barrier(task):
        return 0
    inputs = task.plant.input_dim
    trials = 2**inputs + 1 if inputs <= MOST_CORNERS else 2 * inputs + 1
    degrees = [judgement.degree for judgement in judge_constraints(task).values()]
    return trials ** max(degrees) if max(degrees) else 0


def advance_of(task: Task) -> Callable[[Any, Tensor, Tensor], Tensor]:
    """One sample of the plant by the integrator of the task, the input held."""

    def advance(t: Any, x: Tensor, u: Tensor) -> Tensor:
        return task.integrator.step(task.plant, t, x, u, None, task.dt, torch)

    return advance


def _at_pace(judgement: Judgement, pace: float, dt: float) -> tuple[float, ...]:
    """Gains from a pace in shares of what is left that go in one sample."""
    kappa, alpha = pace / dt, min(2.0 * pace, 0.5) / dt
    return {0: (), 1: (alpha,), 2: (kappa, alpha)}[judgement.degree]


def _remark(judgement: Judgement) -> str:
    if judgement.fades > 0:
        return f"the inputs do next to nothing about it on {judgement.fades:.1%} of its boundary"
    return "" if judgement.boundary or not judgement.degree else "never violated in the region of states"
