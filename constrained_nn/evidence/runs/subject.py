"""What a certificate is about: a controller in the loop with a task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from constrained_nn.certificates import ControlBarrier
from constrained_nn.errors import SetTypeError
from constrained_nn.layers import LeastViolation, ProjectionLayer
from constrained_nn.sets import IntervalSet, Polyhedron
from control_envs.simulate import SubStep, rollout
from control_envs.tasks import Task

CHUNK = 1000  # runs that are simulated together


@dataclass(frozen=True)
class Subject:
    """A controller on its task, and where its parameters came from.

    Args:
        task: The task; with a `barrier` its rows are those of the barrier condition.
        controller: Function `(t, x) -> u`.
        dtype: Precision in which the controller runs.
        method: Its name.
        weights: Name of the file with its parameters.
        sha256: Digest of that file.
    """

    task: Task
    controller: Callable[[Any, Tensor], Tensor]
    dtype: torch.dtype = torch.float64
    method: str = ""
    weights: str = ""
    sha256: str = ""

    @property
    def condition(self) -> Callable[[Any, Tensor], IntervalSet]:
        """Admissible inputs `(t, x) -> set`: the task's own condition, else that of the controller.

        Raises:
            SetTypeError: There is neither.
        """
        barrier, rate = getattr(self.task, "barrier", None), getattr(self.task, "alpha", None)
        if barrier is not None and rate is not None:
            return ControlBarrier(barrier, self.task.plant, rate=rate).condition  # pyright: ignore[reportArgumentType]
        condition = getattr(self.controller, "condition", None)
        if condition is None:
            raise SetTypeError(
                f"certify: expected a task with a barrier or a controller with a condition, got task "
                f"'{self.task.name}' and {type(self.controller).__name__}. There are no rows to certify."
            )
        return condition

    def rows(self, t: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`A (k, m, n)`, `lower (k, m)`, `upper (k, m)` at the states `x (k, d)`."""
        set = self.condition(t, x)
        rows = Polyhedron.of(set)
        m, n = rows.A.shape[-2:]
        count = len(x)
        return rows.A.expand(count, m, n), rows.lower.expand(count, m), rows.upper.expand(count, m)


def simulate(
    subject: Subject, starts: np.ndarray, observer: Callable[[SubStep], None], **options: Any
) -> Any:
    """One batch of closed-loop runs from `starts`, without gradient; infeasible elements do not stop it."""
    task = subject.task
    x0 = torch.as_tensor(starts).to(subject.dtype)
    with torch.no_grad(), allow_least_violation(subject.controller):
        return rollout(
            task.plant,
            subject.controller,
            x0,
            dt=task.dt,
            horizon=task.horizon,
            integrator=task.integrator,
            substeps=task.substeps,
            observers=[observer],
            **options,
        )


@contextlib.contextmanager
def allow_least_violation(controller: Any) -> Iterator[None]:
    """Infeasible elements go on with their least-violation point, where the rows show it, instead of raising."""
    modules = controller.modules() if isinstance(controller, nn.Module) else ()
    layers = [(m, m.on_failure) for m in modules if isinstance(m, ProjectionLayer)]
    try:
        for layer, _ in layers:
            layer.on_failure = LeastViolation()
        yield
    finally:
        for layer, before in layers:
            layer.on_failure = before


def relative_excess(A: Tensor, lower: Tensor, upper: Tensor, u: Tensor) -> Tensor:
    """Largest `(A u − upper) / (|A||u| + |upper|)`, likewise for `lower`, in float64 `(k,)`."""
    A, lower, upper, u = (v.double() for v in (A, lower, upper, u))
    value = (A @ u.unsqueeze(-1)).squeeze(-1)
    size = (A.abs() @ u.abs().unsqueeze(-1)).squeeze(-1)
    worst = []
    for excess, bound in ((value - upper, upper), (lower - value, lower)):
        scale = (size + bound.abs()).clamp_min(torch.finfo(torch.float64).tiny)
        worst.append(torch.where(bound.isinf(), -torch.inf, excess / scale))
    return torch.maximum(*worst).amax(-1)
