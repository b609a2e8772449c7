"""Looks for the worst state before any proof is tried: batched projected gradient steps from many starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from constrained_nn.certificates import SampledBarrier
from constrained_nn.errors import ConvergenceError
from constrained_nn.evidence.runs import Subject, allow_least_violation, fresh_starts, relative_excess
from constrained_nn.layers import HardNetAffine, Nan
from control_envs.simulate import RK4, SubStep, rollout

STEPS = 12  # gradient steps
_REACH = 0.5  # of the box, that a point may travel in all its steps


class Counterexample(ConvergenceError):
    """What was to be proved is false.

    Args:
        words: Where, and by how much.
        start: The numbers of `constrained-nn simulate FOLDER --start` that repeat it.
    """

    def __init__(self, words: str, start: list[float]) -> None:
        super().__init__(words)
        self.start = start


@dataclass(frozen=True, eq=False)
class Worst:
    """The state with the smallest margin that a search saw.

    Args:
        state: The state `(n,)`, in float64.
        margin: Its margin; negative is a counterexample.
        tried: Number of states that were evaluated.
    """

    state: np.ndarray
    margin: float
    tried: int

    @property
    def is_counterexample(self) -> bool:
        return self.margin < 0


def falsify(
    margin: Callable[[Tensor], Tensor],
    lower: np.ndarray,
    upper: np.ndarray,
    points: np.ndarray,
    *,
    steps: int = STEPS,
) -> Worst:
    """The smallest margin found from `points` by projected gradient steps `x ← P(x − η_k w sign(∂ margin/∂x))`.

    `w` is the width of the box and `η_k` falls; the sign makes the steps independent of units. An element that leaves
    the states that count goes back and halves its step, so that it ends at their boundary; one whose gradient is not
    finite stays where it is, and hurts nobody else.

    Args:
        margin: Differentiable function `(k, n) -> (k,)`; infinite where a state does not count, NaN is the worst.
        lower: Lower ends of the box `(n,)`.
        upper: Upper ends.
        points: Where to begin `(k, n)`.
        steps: Gradient steps.

    Returns:
        The worst state of all that were evaluated.
    """
    low, high = (torch.as_tensor(v, dtype=torch.float64) for v in (lower, upper))
    x = torch.as_tensor(points, dtype=torch.float64).clamp(low, high)
    worst, state, tried = torch.inf, x[0], 0
    before, direction = x, torch.zeros_like(x)
    length = torch.full_like(x[:, :1], 2.0 * _REACH / (steps + 1))
    for k in range(steps + 1):
        x = x.detach().requires_grad_(k < steps)
        with torch.enable_grad():
            values = margin(x)
        found = torch.where(values.isnan(), -torch.inf, values.detach())
        tried += len(x)
        if found.amin() < worst:
            worst, state = float(found.amin()), x.detach()[found.argmin()]
        if k == steps or worst == -torch.inf:
            break
        usable = torch.where(values.isfinite(), values, 0.0)
        (slope,) = torch.autograd.grad(usable.sum(), x, allow_unused=True)
        slope = torch.zeros_like(x) if slope is None else torch.nan_to_num(slope, 0.0, 0.0, 0.0)
        # an element that left the states that count goes back, and tries half the step
        left = (found == torch.inf).unsqueeze(-1)
        before = torch.where(left, before, x.detach())
        direction = torch.where(left, direction, slope.sign())
        length = length * torch.where(left, 0.5, 1.0 - 1.0 / (steps + 1))
        x = (before - length * (high - low) * direction).clamp(low, high)
    return Worst(state.numpy(), worst, tried)


def by_differences(
    function: Callable[[np.ndarray], np.ndarray], step: np.ndarray
) -> Callable[[Tensor], Tensor]:
    """A function of NumPy `(k, n) -> (k,)` as a margin for `falsify`, with central differences for its gradient.

    Args:
        function: Infinite where a state does not count; a difference with such a neighbour counts as 0.
        step: Of the differences `(n,)`.
    """

    class Margin(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return torch.from_numpy(function(x.detach().numpy()))

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            x = ctx.saved_tensors[0].numpy()
            shifts = np.diag(step)
            above, below = (function((x[:, None] + s * shifts).reshape(-1, x.shape[-1])) for s in (1, -1))
            with np.errstate(invalid="ignore"):
                slopes = (above - below).reshape(x.shape) / (2.0 * step)
            return grads[0].unsqueeze(-1) * torch.nan_to_num(torch.from_numpy(slopes), 0.0, 0.0, 0.0)

    return lambda x: Margin.apply(x)  # pyright: ignore[reportReturnType]


def worst_of(
    function: Callable[[np.ndarray], np.ndarray],
    lower: np.ndarray,
    upper: np.ndarray,
    points: np.ndarray,
    *,
    first: int = 64,
) -> Worst:
    """The smallest value at `points` `(k, n)` and on the way of gradient steps from the `first` of the smallest."""
    values = function(points)
    order = np.argsort(np.where(np.isnan(values), -np.inf, values))[:first]
    margin = by_differences(function, 1e-6 * (upper - lower))
    found = falsify(margin, lower, upper, points[order])
    return Worst(found.state, found.margin, len(points) + found.tried)


def falsify_closed_loop(subject: Subject, *, count: int, seed: int, steps: int = STEPS) -> Worst | None:
    """The start state of the task's box whose run comes nearest to, or farthest into, what is forbidden.

    The margin of a run is its smallest `−g` over all constraints and sub-steps; None for a task without start box or
    constraints.
    """
    task: Any = subject.task
    if not task.constraints or not hasattr(task, "start_low"):
        return None
    points = fresh_starts(task, count, seed)
    return falsify(
        lambda x: closed_loop_margin(subject, x), task.start_low, task.start_high, points, steps=steps
    )


def falsify_rows(subject: Subject, *, count: int, seed: int, steps: int = STEPS) -> Worst | None:
    """The state of the task's region whose input violates a row by most; the margin is `rtol` minus the excess."""
    task = subject.task
    low, high = np.asarray(task.state_low, float), np.asarray(task.state_high, float)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    rtol = 1e-9 if subject.dtype == torch.float64 else 1e-4
    points = np.random.default_rng(seed).uniform(low, high, (count, len(low)))

    def margin(x: Tensor) -> Tensor:
        state = x.to(subject.dtype)
        with allow_least_violation(subject.controller):
            u = subject.controller(0.0, state)
        return torch.where(_counts(task, x), rtol - relative_excess(*subject.rows(0.0, state), u), torch.inf)

    return falsify(margin, low, high, points, steps=steps)


def falsify_barrier(task: Any, *, count: int, seed: int, steps: int = STEPS) -> Worst:
    """The state and the proposal that bring a clearance or barrier of `SampledBarrier` lowest while it is held."""
    margin, lower, upper = barrier_margin(task)
    points = np.random.default_rng(seed).uniform(lower, upper, (count, len(lower)))
    return falsify(margin, lower, upper, points, steps=steps)


def barrier_margin(task: Any) -> tuple[Callable[[Tensor], Tensor], np.ndarray, np.ndarray]:
    """The lowest barrier of a hold as a function of `(x, raw input)`, and the ends of the box that is searched.

    The layer makes the input safe, the plant moves for its hold in eight steps
    of RK4, and the margin is the smallest `h` or `e` on the way, from states with `h >= 0` and `e >= 0`; −inf where no
    input exists.
    """
    low, high = (torch.as_tensor(v, dtype=torch.float64) for v in (task.input_low, task.input_high))
    barrier = SampledBarrier(task.clearances, task.plant, hold=task.clearance_hold, low=low, high=high)
    layer, n = HardNetAffine(on_failure=Nan()), task.plant.state_dim
    lower, upper = (np.asarray(v, float) for v in task.clearance_box)
    wide = task.input_high - task.input_low
    box = (np.r_[lower, task.input_low - wide], np.r_[upper, task.input_high + wide])

    def smallest(x: Tensor) -> Tensor:
        return torch.minimum(barrier.value(x).amin(-1), barrier.clearance(x).amin(-1))

    def margin(z: Tensor) -> Tensor:
        x = z[..., :n]
        counts = smallest(x.detach()) >= 0
        u = layer(z[..., n:], barrier.condition(0.0, x))
        lost, found = u.isnan().any(-1), torch.full_like(x[..., 0], torch.inf)
        u = torch.where(lost.unsqueeze(-1), 0.0, u)
        for _ in range(8):
            x = RK4().step(task.plant, 0.0, x, u, None, task.clearance_hold / 8, torch)
            found = torch.minimum(found, smallest(x))
        # what is lost to rounding is no counterexample: the proof allows it as well
        found = torch.where(lost, -torch.inf, found + barrier.floor)
        return torch.where(counts, found, torch.inf)

    return margin, *box


def closed_loop_margin(subject: Subject, x: Tensor) -> Tensor:
    """Smallest `−g` of the runs from `x` `(k, n)` over all constraints and sub-steps `(k,)`, differentiable."""
    task = subject.task
    worst = [torch.full_like(x[..., 0], torch.inf)]

    def watch(sub: SubStep) -> None:
        here = _smallest(task, sub.t, sub.x, sub.u)
        if sub.index is None:
            worst[0] = torch.minimum(worst[0], here)
        else:
            worst[0] = worst[0].index_copy(0, sub.index, torch.minimum(worst[0][sub.index], here))

    with allow_least_violation(subject.controller):
        path = rollout(
            task.plant,
            subject.controller,
            x.to(subject.dtype),
            dt=task.dt,
            horizon=task.horizon,
            integrator=task.integrator,
            substeps=task.substeps,
            observers=[watch],
        )
    end = task.horizon * task.dt
    found = torch.minimum(worst[0], _smallest(task, end, path.x[..., -1, :], path.u[..., -1, :]))
    found = torch.where(torch.as_tensor(path.complete), found, torch.nan)
    return torch.where(_counts(task, x), found, torch.inf)


def _smallest(task: Any, t: Any, x: Tensor, u: Tensor) -> Tensor:
    return -torch.stack([c.g(t, x.double(), u.double()) for c in task.constraints], -1).amax(-1)


def _counts(task: Any, x: Tensor) -> Tensor:
    """States that are start states, where not every state of the box is one."""
    admissible = getattr(task, "admissible", None)
    if admissible is None:
        return torch.ones_like(x[..., 0], dtype=torch.bool)
    return admissible(x.detach())
