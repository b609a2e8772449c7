"""Damped Gauss-Newton steps into `{y : lower <= c(y) <= upper}`: the iteration of HardNet++, and a faster one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.solvers.gauss_newton.damped_step import (
    Damping,
    Direction,
    Step,
    direction,
    elastic_direction,
)
from constrained_nn.solvers.gauss_newton.line_search import search
from constrained_nn.solvers.gauss_newton.linearized import Linearized
from constrained_nn.solvers.gauss_newton.row_problem import (
    OFF,
    Problem,
    equality_of,
    into_box,
    plain_residual,
    row_exponents,
    weights,
)
from constrained_nn.solvers.solution import Status

# |Jᵀr| below this share of |J||r| means that no direction leads out to first order.
_STATIONARY = 1e-7
# Later attempts take more steps, lower the damping where the linear model predicts well, and raise it
# where it does not.
_GOOD, _POOR, _LESS, _MORE, _FACTORS = 0.75, 0.25, 0.125, 4.0, (2.0**-40, 2.0**10)
_LONGER = 2
# What another attempt may cure.
_CURABLE = (Status.MAX_STEPS, Status.STAGNATED, Status.STATIONARY, Status.SINGULAR)


@dataclass(frozen=True)
class ConstantDamping:
    """The same damping at every step, as published (0.3)."""

    amount: float = 0.3

    def value(self, norm: Tensor) -> Tensor:
        return torch.full_like(norm, self.amount)

    def slope(self, norm: Tensor) -> Tensor:
        return torch.zeros_like(norm)


@dataclass(frozen=True)
class ResidualDamping:
    """`min(largest, rate |r|)`: safe far away, and quadratic convergence close by."""

    rate: float = 0.01
    largest: float = 0.1

    def value(self, norm: Tensor) -> Tensor:
        return (self.rate * norm).clamp_max(self.largest)

    def slope(self, norm: Tensor) -> Tensor:
        return torch.where(self.rate * norm <= self.largest, self.rate, 0.0).to(norm.dtype)


@dataclass(frozen=True)
class GaussNewton:
    """Settings of the iteration `y ← y − t J_aᵀ (J_a J_aᵀ + δ S²)⁻¹ r_a`.

    Args:
        max_steps: Steps before an attempt is given up.
        atol: Largest violated row of a solution, in row units; `None`: no element stops before `max_steps`.
        damping: `δ`: `ResidualDamping(...)` or `ConstantDamping(...)`.
        all_rows: Keep also the rows that are satisfied: they ask for no first-order change. Default: equalities
            and violated inequalities only, which leaves directions for the others to move in.
        backtracking: Halve a step until the residual falls; without it, `t = 1`.
        largest_step: Longest step, in units of `1 + |y|`.
        normalize: `S` are the lengths of the gradients, so that the units of the rows do not matter; else `S = I`.
        bounded: The members of an intersection that are boxes bound the variables and hold at every step; else they
            are rows like the others.
        second_damping: Tried from the start, with longer steps where they pay, for elements that fail; last, steps on
            all rows at once are. `None`: one attempt.
    """

    max_steps: int = 50
    atol: float | None = 1e-10
    damping: Damping = ResidualDamping()
    all_rows: bool = False
    backtracking: bool = True
    largest_step: float = 10.0
    normalize: bool = True
    bounded: bool = True
    second_damping: Damping | None = ResidualDamping(0.003, 0.03)

    @classmethod
    def published(cls, steps: int = 500, damping: float = 0.3) -> GaussNewton:
        """The iteration of the paper: all rows as written, constant damping, full steps, a fixed number of them."""
        return cls(steps, None, ConstantDamping(damping), True, False, 10.0, False, False, None)

    def selected(self, residual: Tensor, equality: Tensor) -> Tensor:
        """The rows that a step works on."""
        return torch.ones_like(equality) if self.all_rows else (residual != 0) | equality


class Attempt(NamedTuple):
    """How one attempt chooses its steps."""

    damping: Damping
    adapt: bool = False
    elastic: bool = False


class Outcome(NamedTuple):
    """Where the iteration ended, without derivatives, and the way there.

    Args:
        side: Variables that the last step of each element took to a bound, as in `Step`; `None` without bounds.
        settles: Whether elements stop where they hold; else the number of steps is fixed.
    """

    y: Tensor
    status: Tensor
    steps: Tensor
    path: list[Step]
    side: Tensor | None
    settles: bool


@torch.no_grad()
def descend(problem: Problem, y: Float[Tensor, "batch n"], method: GaussNewton, *, keep: bool) -> Outcome:
    """Iterate until every element has converged, failed in every attempt, or spent `max_steps` in each.

    `y` lies within the bounds of the variables.
    """
    best = _attempt(problem, y, method, Attempt(method.damping), keep=keep)
    if method.second_damping is None:
        return best
    for attempt in (
        Attempt(method.second_damping, adapt=True),
        Attempt(method.damping, adapt=True, elastic=True),
    ):
        failed = torch.isin(best.status, torch.tensor([int(s) for s in _CURABLE], device=y.device))
        # a start without direction leads nowhere a second time
        failed &= (best.status != int(Status.STATIONARY)) | (best.steps > 0)
        some = failed.nonzero().squeeze(-1)
        if not len(some):
            break
        again = _attempt(problem.pick(some), y[some], method, attempt, keep=keep)
        best = _better(problem, best, again, some)
    return best


def _better(problem: Problem, best: Outcome, again: Outcome, some: Tensor) -> Outcome:
    """The second outcome for the elements `some` that it solved, and all steps counted."""
    won = (again.status == int(Status.OK)).nonzero().squeeze(-1)
    best.steps[some] += again.steps
    if not len(won):
        return best
    index = some[won]
    best.y[index], best.status[index] = again.y[won], again.status[won]
    if best.side is not None and again.side is not None:
        best.side[index] = again.side[won]
    lost = torch.zeros(len(best.y), dtype=torch.bool, device=index.device)
    lost[index] = True
    adopted = torch.zeros(len(some), dtype=torch.bool, device=index.device)
    adopted[won] = True
    path = [part for step in best.path for part in _without(step, ~lost)]
    for step in again.path:
        for part in _without(step, adopted):
            own = some if part.index is None else some[part.index]
            path.append(part._replace(index=own))
    return best._replace(path=path)


def _without(step: Step, keep: Tensor) -> list[Step]:
    """The step for the elements that are kept, if there are any."""
    own = keep if step.index is None else keep[step.index]
    if bool(own.all()):
        return [step]
    some = own.nonzero().squeeze(-1)
    return [step.pick(some)] if len(some) else []


def _attempt(problem: Problem, y: Tensor, method: GaussNewton, attempt: Attempt, *, keep: bool) -> Outcome:
    """One run from `y`; finished elements drop out."""
    final, path = y.clone(), []
    status = torch.full((len(y),), int(Status.MAX_STEPS), device=y.device)
    steps = torch.zeros(len(y), dtype=torch.int32, device=y.device)
    side = None if problem.box is None else torch.zeros_like(y, dtype=torch.int8)
    index: Tensor | None = None
    value, factor = problem.value(y), torch.ones_like(y[:, 0])
    residual = plain_residual(problem, value)
    open_ = residual.isfinite().all(-1)
    status[~open_] = int(Status.NONFINITE_INPUT)
    limit = method.max_steps * (_LONGER if attempt.adapt else 1)
    for count in range(limit + 1):
        if method.atol is not None:
            within = open_ & (residual.abs() <= method.atol).all(-1)
            _write(status, index, within, int(Status.OK))
            open_ = open_ & ~within
        if not bool(open_.all()):
            kept = open_.nonzero().squeeze(-1)
            index = kept if index is None else index[kept]
            y, value, residual, factor = y[kept], value[kept], residual[kept], factor[kept]
            problem = problem.pick(kept)
        if not len(y) or count == limit:
            break
        step, y_next, value, failure, gain = _advance(problem, y, value, residual, factor, method, attempt)
        residual = plain_residual(problem, value)
        moved = failure < 0
        every = bool(moved.all())
        if keep and (every or bool(moved.any())):
            # where an element failed its derivatives may be NaN, and 0 · NaN is NaN
            part = step if every else step.pick(moved.nonzero().squeeze(-1))
            own = index if part.index is None or index is None else index[part.index]
            path.append(part._replace(index=part.index if index is None else own))
        if not every:
            _write(status, index, ~moved, failure[~moved])
        _write(steps, index, moved, count + 1)
        _write(final, index, moved, y_next[moved])
        if side is not None and step.side is not None:
            _write(side, index, moved, (step.side * (step.length == 1).unsqueeze(-1))[moved])
        y, open_ = y_next, moved
        if attempt.adapt:
            change = torch.where(gain > _GOOD, _LESS, torch.where(gain < _POOR, _MORE, 1.0))
            factor = (factor * change).clamp(*_FACTORS)
    if method.atol is None:
        settled = torch.where(residual.isfinite().all(-1), int(Status.OK), int(Status.NONFINITE_INPUT))
        _write(status, index, torch.ones_like(settled, dtype=torch.bool), settled)
    elif len(y):
        stuck = _is_stationary(problem, problem.linearize(y), y, residual)
        _write(status, index, stuck, int(Status.STATIONARY))
    return Outcome(final, status.to(torch.int8), steps, path, side, method.atol is not None)


def _write(full: Tensor, index: Tensor | None, where: Tensor, value: Any) -> None:
    """`full[index[where]] = value`."""
    full[where if index is None else index[where]] = value


def _is_stationary(problem: Problem, linear: Linearized, y: Tensor, residual: Tensor) -> Tensor:
    """Whether no direction within the bounds lowers the residual to first order."""
    weight = weights(row_exponents(linear, residual, y), y.dtype)
    scaled = residual * weight
    slope = linear.transposed(scaled * weight)
    if problem.box is not None:
        slope = y - into_box(problem, y - slope)
    active = scaled != 0
    size = (linear.squares() * weight.square() * active).sum(-1).sqrt()
    flat = torch.linalg.vector_norm(slope, dim=-1) <= _STATIONARY * size * torch.linalg.vector_norm(
        scaled, dim=-1
    )
    return flat & active.any(-1)


def _advance(
    problem: Problem,
    y: Tensor,
    value: Tensor,
    residual: Tensor,
    factor: Tensor,
    method: GaussNewton,
    attempt: Attempt,
) -> tuple[Step, Tensor, Tensor, Tensor, Tensor]:
    """One step; `failure` is -1 for the elements that moved, else their status; `gain` as in `_gain`."""
    linear = problem.linearize(y)
    units = torch.zeros_like(residual, dtype=torch.int8)
    if method.normalize:
        units = row_exponents(linear, residual, y)
    weight = weights(units, y.dtype)
    delta = factor * attempt.damping.value(torch.linalg.vector_norm(residual * weight, dim=-1))
    if attempt.elastic:
        chosen = elastic_direction(problem, y, value, units, delta)
    else:
        active = method.selected(residual, equality_of(problem, residual))
        rows = torch.where(active, units, OFF)
        chosen = direction(problem, linear, y, residual, rows, delta, torch.where(active, weight, 0.0))
    if not method.backtracking:
        length = chosen.sound.to(y.dtype)
        y_next = y - chosen.p
        found = problem.value(y_next)
        moved = chosen.sound & found.isfinite().all(-1)
        failure = torch.where(moved, -1, int(Status.SINGULAR))
        return _step(y, length, chosen, attempt, factor), y_next, found, failure, length
    fall = linear.times(chosen.p)
    promised = (fall * residual * weight.square()).sum(-1)
    length, y_next, found, moved = search(
        problem,
        y,
        value,
        residual,
        chosen.p,
        weight,
        promised,
        chosen.sound,
        method.largest_step,
        expand=attempt.adapt,
    )
    failure = torch.full_like(moved, -1, dtype=torch.long)
    if not bool(moved.all()):
        stopped = torch.where(chosen.sound, int(Status.STAGNATED), int(Status.SINGULAR))
        failure = torch.where(moved, -1, stopped)
        failure = torch.where(~moved & _within_rounding(problem, y, residual), int(Status.OK), failure)
        stuck = chosen.sound & ~moved & _is_stationary(problem, linear, y, residual)
        failure = torch.where(stuck & (failure != int(Status.OK)), int(Status.STATIONARY), failure)
    gain = _gain(problem, residual, value - fall, found, weight, length) if attempt.adapt else length
    return _step(y, length, chosen, attempt, factor), y_next, found, failure, gain


def _gain(
    problem: Problem, before: Tensor, linear: Tensor, after: Tensor, weight: Tensor, length: Tensor
) -> Tensor:
    """What a step lowered `|r|²` by, as a share of what the linear model of a full step promised."""
    merits = [
        (r * weight).square().sum(-1)
        for r in (before, plain_residual(problem, linear), plain_residual(problem, after))
    ]
    promised = merits[0] - merits[1]
    gain = (merits[0] - merits[2]) / torch.where(promised > 0, promised, 1.0)
    return torch.where((promised > 0) & (length >= 1), gain, 0.0)


def _step(y: Tensor, length: Tensor, chosen: Direction, attempt: Attempt, factor: Tensor) -> Step:
    return Step(None, y, length, chosen.rows, attempt.damping, factor, chosen.side, chosen.toward)


def _within_rounding(problem: Problem, y: Tensor, residual: Tensor) -> Tensor:
    """Whether no row is missed by more than rounding of its terms."""
    return (residual.abs() <= problem.allowance(y)).all(-1)


def reachable(method: GaussNewton, dtype: torch.dtype) -> GaussNewton:
    """The same settings with a tolerance that this precision can reach."""
    least = 64.0 * torch.finfo(dtype).eps
    return method if method.atol is None or method.atol >= least else replace(method, atol=least)
