"""Active-set projection in the unit of its result, whatever the unit of its data and however far the proposal.

Rows and points are divided by powers of two, which rounds nothing. For `x = P(y)` and every `t >= 0`

    P(x + t (y − x)) = x,

so that a proposal so far away that its rounding is larger than the set is drawn near on its own ray; what is left of
rounding is then of the size of the result.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from constrained_nn.linalg import matvec, power_of_two, rmatvec, safe_norm
from constrained_nn.solvers.loops import repeat
from constrained_nn.solvers.polyhedron.active_set import (
    EMPTY,
    ROUNDING,
    RUNNING,
    SOLVED,
    ActiveSet,
    factor_rows,
    start,
    step,
    sweep,
)
from constrained_nn.solvers.polyhedron.farkas import least_violation, proves_empty
from constrained_nn.solvers.polyhedron.implicit import on_active_rows
from constrained_nn.solvers.solution import Status

# A row counts as satisfied while it is searched for, relative to ‖x‖ + |bound| of the unit row.
_SEARCH_RTOL = 1e-12
# A row of the returned point is satisfied, relative to |A||x| + |bound|: checked after the fact.
AUDIT_RTOL = 1e-9
# By how much one round draws a proposal near: its pull stays 1e4 times the rounding of the point.
_NEARER = 2.0**-33
# Rounds until even the largest float is near the smallest.
_ROUNDS = 64


class Limits(NamedTuple):
    """Steps allowed, steps between looks, whether control flow must not depend on values, and whether every element is
    solved alone."""

    max_steps: int | None
    check_every: int
    fixed: bool
    alone: bool = False


class Result(NamedTuple):
    """Projection of a flat batch: `Solution` without its shape, and the signed active rows `(b, m)`."""

    value: Tensor
    status: Tensor
    steps: Tensor
    violation: Tensor
    multipliers: Tensor
    active: Tensor


class Units(NamedTuple):
    """A problem divided by powers of two: rows by `row (*b, m)`, points by `size (b, 1)`."""

    y: Tensor
    rows: Tensor
    lower: Tensor
    upper: Tensor
    row: Tensor
    size: Tensor


def in_units(y: Tensor, A: Tensor, lower: Tensor, upper: Tensor) -> Units:
    """The same problem with rows of about 1 and `y`, or its distance to a row if that is larger, of about 1."""
    row = power_of_two(A.abs().amax(-1))
    rows, lower, upper = A / row.unsqueeze(-1), lower / row, upper / row
    with torch.no_grad():
        value = matvec(rows, y)
        off = torch.maximum(value - upper, lower - value).nan_to_num(0.0, 0.0, 0.0).amax(-1)
        size = power_of_two(torch.maximum(y.abs().amax(-1), off)).unsqueeze(-1)
    return Units(y / size, rows, lower / size, upper / size, row, size)


def attach(units: Units, x: Tensor, active: Tensor, upper_side: Tensor) -> Tensor:
    """`x` (in units) as it is, in the unit of `y` and with the derivative of the projection onto active rows."""
    follow = on_active_rows(units.y, units.rows, units.lower, units.upper, active, upper_side)
    return (x.detach() + (follow - follow.detach())) * units.size


class _Data(NamedTuple):
    """Point to project `(b, n)` and unit rows with their bounds."""

    y: Tensor
    rows: Tensor
    lower: Tensor
    upper: Tensor

    def take(self, some: Tensor) -> _Data:
        rows = self.rows if self.rows.ndim == 2 else self.rows[some]
        return _Data(self.y[some], rows, self.lower[some], self.upper[some])


class _Settled(NamedTuple):
    """Where the sweep ended, the point that it was given last, and whether the rows hold there."""

    state: ActiveSet
    target: Tensor
    point: Tensor
    held: Tensor
    empty: Tensor


def project(
    y: Tensor, A: Tensor, lower: Tensor, upper: Tensor, guess: Tensor | None, limits: Limits
) -> Result:
    """Projection of finite float64 data by the dual active-set sweep, differentiable."""
    b, (m, n) = y.shape[0], A.shape[-2:]
    if m == 0 or b == 0:
        zeros = torch.zeros(b, dtype=torch.long, device=y.device)
        return Result(y.clone(), zeros, zeros, y.new_zeros(b), y.new_zeros(b, m), y.new_zeros(b, m))
    units = in_units(y, A, lower, upper)
    rows = _unit_rows(units, lower.detach(), upper.detach())
    limit = 10 * (m + n) + 50 if limits.max_steps is None else limits.max_steps
    options = {"rtol": _SEARCH_RTOL, "max_steps": limit, "check_every": limits.check_every}
    hint = None if guess is None else torch.sign(guess)
    found = (_settle_traced if limits.fixed else _settle)(rows.data, hint, options)
    state, x = found.state, found.point
    multipliers, stationary = _multipliers(found, rows.data)
    solved = (state.outcome == SOLVED) & found.held & stationary & (rows.hopeless | rows.beyond).logical_not()
    doubtful = solved & _is_thin(x, rows.data)
    empty = found.empty | rows.hopeless
    if not limits.fixed:
        empty = empty | _empty_from_the_origin(doubtful, (y, A, lower, upper), limits)
        doubtful = doubtful & empty
    solved = solved & doubtful.logical_not()
    status = torch.where(state.outcome == RUNNING, int(Status.MAX_STEPS), int(Status.SINGULAR))
    status = torch.where(empty, int(Status.INFEASIBLE), status)
    status = torch.where(solved, int(Status.OK), status)
    x = _least(x, solved.logical_not(), found, rows, None if limits.fixed else options)
    active = state.active & solved.unsqueeze(-1)
    value = attach(units, x, active, state.upper_side)
    reached = matvec(rows.data.rows, x)
    excess = torch.maximum(reached - rows.upper, rows.lower - reached) * (rows.scale * units.row * units.size)
    result = Result(
        torch.where(solved.unsqueeze(-1), value, value.detach()),
        status,
        state.steps,
        excess.amax(-1).clamp_min(0.0),
        multipliers * units.size / (rows.scale * units.row),
        torch.where(active, _signed(state), 0.0),
    )
    return _again(result, (y, A, lower, upper), guess, empty, limits)


class _Rows(NamedTuple):
    """What the sweep is given, and what it is not.

    Args:
        data: The proposal and unit rows; rows that cannot enter the search are free in it.
        lower, upper: All bounds of the unit rows `(b, m)`.
        scale: Norm of the rows in units, 1 for a zero row `(*b, m)`.
        hopeless: Elements with crossed bounds, or with a zero row whose bounds exclude 0 `(b,)`.
        beyond: Elements with a bound beyond the largest float `(b,)`.
    """

    data: _Data
    lower: Tensor
    upper: Tensor
    scale: Tensor
    hopeless: Tensor
    beyond: Tensor


def _unit_rows(units: Units, lower: Tensor, upper: Tensor) -> _Rows:
    y, A, low, up = (t.detach() for t in units[:4])
    norm = torch.linalg.vector_norm(A, dim=-1)
    zero, scale = norm == 0, torch.where(norm > 0, norm, 1.0)
    low, up = low / scale, up / scale
    crossed = lower > upper
    hopeless = (zero & ((lower > 0) | (upper < 0))) | crossed
    beyond = ((low == torch.inf) | (up == -torch.inf)) & zero.logical_not()
    skip = zero | crossed | beyond
    free = (torch.where(skip, -torch.inf, low), torch.where(skip, torch.inf, up))
    data = _Data(y, A / scale.unsqueeze(-1), *free)
    return _Rows(data, low, up, scale, hopeless.any(-1), beyond.any(-1))


def _is_thin(x: Tensor, data: _Data) -> Tensor:
    """Whether a row holds to rounding of `x` alone, which does not show a set that is empty by less than that.

    A set that contains 0 is not empty.
    """
    reached = matvec(data.rows, x)
    excess = torch.maximum(reached - data.upper, data.lower - reached)
    return beyond_bounds(excess, data.lower, data.upper, 1.0)


def beyond_bounds(excess: Tensor, lower: Tensor, upper: Tensor, norm: Tensor | float) -> Tensor:
    """Whether a row is missed by more than rounding of the largest bound of a set that does not contain 0 `(b,)`.

    Args:
        excess: Amounts by which rows are missed `(b, m)`.
        norm: Sizes of the rows `(*b, m)`, which give excess and bounds one unit.
    """
    sides = torch.stack([torch.where(side.isfinite(), side.abs(), 0.0) for side in (lower, upper)]).amax(0)
    largest = (sides / norm).amax(-1, keepdim=True)
    missed = (excess / norm > AUDIT_RTOL * largest).any(-1)
    return missed & ((lower > 0) | (upper < 0)).any(-1)


@torch.no_grad()
def _empty_from_the_origin(doubtful: Tensor, data: tuple[Tensor, ...], limits: Limits) -> Tensor:
    """Which doubtful elements are empty: 0 is projected in their place, in the unit of the bounds."""
    y, A, lower, upper = data
    doubtful = doubtful & (y.detach() != 0).any(-1)
    if not bool(doubtful.any()):
        return torch.zeros_like(doubtful)
    some = doubtful.nonzero().squeeze(-1)
    part = A if A.ndim == 2 else A[some]
    probe = project(torch.zeros_like(y[some]), part, lower[some], upper[some], None, limits)
    return torch.zeros_like(doubtful).index_put((some,), probe.status == int(Status.INFEASIBLE))


def _least(x: Tensor, failed: Tensor, found: _Settled, rows: _Rows, options: dict | None) -> Tensor:
    """The least-violation point in place of what failed; without options, the best point of the sweep."""
    best = found.state.best
    if options is None:
        return torch.where(failed.unsqueeze(-1), best, x)
    if not bool(failed.any()):
        return x
    some = failed.nonzero().squeeze(-1)
    part = rows.data.take(some)
    point = least_violation(found.target[some], part.rows, rows.lower[some], rows.upper[some], **options)
    worse = _worst(point, part) > _worst(best[some], part)
    return x.index_put((some,), torch.where(worse, best[some], point))


def _again(result: Result, data, guess: Tensor | None, empty: Tensor, limits: Limits) -> Result:
    """Once more from an empty active set where a guess of nearly dependent rows led astray."""
    if guess is None or limits.fixed:
        return result
    retry = (result.status == int(Status.SINGULAR)) & empty.logical_not()
    if not bool(retry.any()):
        return result
    some = retry.nonzero().squeeze(-1)
    y, A, lower, upper = data
    part = A if A.ndim == 2 else A[some]
    other = project(y[some], part, lower[some], upper[some], None, limits)
    other = other._replace(steps=other.steps + result.steps[some])
    return Result(*(old.index_put((some,), new) for old, new in zip(result, other, strict=True)))


@torch.no_grad()
def _settle(data: _Data, guess: Tensor | None, options: dict) -> _Settled:
    """Sweep, with the proposal drawn nearer as long as rounding of its size hides what holds at the result."""
    state, target = sweep(*data, guess=guess, **options), data.y.clone()
    for _ in range(_ROUNDS):
        far, nearer = _draw_near(data, state, target)
        some = far.nonzero().squeeze(-1)
        if not some.numel():
            break
        target[some] = nearer[some]
        other = _sweep_in_unit(data.take(some)._replace(y=nearer[some]), _signed(state)[some], options)
        other.steps += state.steps[some]
        state.put(some, other)
    return _judge(data, state, target)


def _sweep_in_unit(data: _Data, guess: Tensor, options: dict) -> ActiveSet:
    """Sweep in the unit of its target, in which squares do not vanish."""
    unit = power_of_two(_norm(data.y))
    state = sweep(data.y / unit, data.rows, data.lower / unit, data.upper / unit, guess=guess, **options)
    state.point, state.multiplier, state.best = (
        t * unit for t in (state.point, state.multiplier, state.best)
    )
    state.least = state.least * unit.squeeze(-1)
    return state


@torch.no_grad()
def _settle_traced(data: _Data, guess: Tensor | None, options: dict) -> _Settled:
    """The same as one loop of steps."""

    def body(target: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        state = step(ActiveSet(*tensors), target, *data[1:], options["rtol"])
        far, nearer = _draw_near(data, state, target)
        again = start(nearer, data.lower.shape[-1], _signed(state))
        again.steps = state.steps
        pairs = zip((nearer, *again.tensors), (target, *state.tensors), strict=True)
        return tuple(torch.where(far.reshape(far.shape + (1,) * (a.ndim - 1)), a, b) for a, b in pairs)

    def running(_: Tensor, *tensors: Tensor) -> Tensor:
        return ActiveSet(*tensors).outcome == RUNNING

    begin = start(data.y, data.lower.shape[-1], guess)
    target, *tensors = repeat(body, (data.y.clone(), *begin.tensors), options["max_steps"], running)
    return _judge(data, ActiveSet(*tensors), target)


def _draw_near(data: _Data, state: ActiveSet, target: Tensor) -> tuple[Tensor, Tensor]:
    """Elements that are done only in the unit of their target, and a nearer target on the ray to the proposal."""
    found = _judge(data, state, target)
    away, pull = data.y - found.point, _NEARER * _norm(target - found.point)
    distance = _norm(away)
    nearer = found.point + pull / torch.where(distance > 0, distance, 1.0) * away
    shorter = (_norm(nearer) <= 0.25 * _norm(target)).squeeze(-1)
    unsure = (state.outcome == EMPTY) & found.empty.logical_not()
    late = (state.outcome == SOLVED) & found.held.logical_not()
    return (unsure | late) & shorter, nearer


def _judge(data: _Data, state: ActiveSet, target: Tensor) -> _Settled:
    point, held = _settle_rows(state, ROUNDING * _norm(target), data)
    empty = (state.outcome == EMPTY) & _proves_empty(state, target, data)
    return _Settled(state, target, point, held, empty)


def _signed(state: ActiveSet) -> Tensor:
    """+1 for an active row at its upper bound, −1 at its lower."""
    sign = torch.where(state.upper_side, 1.0, -1.0).to(state.point.dtype)
    return torch.where(state.active, sign, 0.0)


def _settle_rows(state: ActiveSet, rounding: Tensor, data: _Data) -> tuple[Tensor, Tensor]:
    """The point, entries that are mere rounding set to 0 where only that makes the rows hold; and whether they do."""

    def holds(x: Tensor) -> Tensor:
        reached, size = matvec(data.rows, x), matvec(data.rows.abs(), x.abs())
        rounding = roundings(x.shape[-1]) * matvec(data.rows.abs(), evened(x))
        return rows_hold(reached, size, rounding, data.lower, data.upper, _signed(state))

    x = state.point
    snapped = torch.where(x.abs() <= rounding, 0.0, x)
    held = holds(x)
    better = held.logical_not() & holds(snapped)
    return torch.where(better.unsqueeze(-1), snapped, x), held | better


def roundings(n: int) -> float:
    """Roundings of the largest component that a row of `n` terms may be off by."""
    return (16 + n) * torch.finfo(torch.float64).eps


def evened(x: Tensor) -> Tensor:
    """A point all of whose components are as large as the largest of `x`."""
    return x.abs().amax(-1, keepdim=True).expand_as(x) if x.shape[-1] else x


def rows_hold(
    reached: Tensor, size: Tensor, rounding: Tensor, lower: Tensor, upper: Tensor, active: Tensor
) -> Tensor:
    """Whether every row holds to `1e-9 (|A||x| + |bound|)`, and the active ones with equality; NaN does not.

    Args:
        reached: `A x` `(b, m)`.
        size: `|A||x|` `(b, m)`.
        rounding: What a row may be off by on top, where its own terms are next to nothing `(b, m)`.
        active: +1 for a row that is active at its upper bound, −1 at its lower, else 0 `(b, m)`.
    """
    over, under = reached - upper, lower - reached
    allowed_over = AUDIT_RTOL * (size + upper.abs()) + rounding
    allowed_under = AUDIT_RTOL * (size + lower.abs()) + rounding
    held = ((over <= allowed_over) | (upper == torch.inf)) & (
        (under <= allowed_under) | (lower == -torch.inf)
    )
    held = held & ((over >= -allowed_over) | (active <= 0)) & ((under >= -allowed_under) | (active >= 0))
    return (held & (size < torch.inf)).all(-1)


def _worst(x: Tensor, data: _Data) -> Tensor:
    """Violation of the most violated row, as a column."""
    reached = matvec(data.rows, x)
    return torch.maximum(reached - data.upper, data.lower - reached).amax(-1, keepdim=True)


def _norm(x: Tensor) -> Tensor:
    """`|x|` as a column, also where a point 1e300 near by is looked at in the unit of one far away."""
    return safe_norm(x).unsqueeze(-1)


def _proves_empty(state: ActiveSet, target: Tensor, data: _Data) -> Tensor:
    """Whether the certificate of the sweep excludes every point near the last target."""
    size = (_norm(target) + _norm(state.point)).squeeze(-1)
    size = size + torch.where(data.upper.isfinite(), data.upper.abs(), 0.0).amax(-1).minimum(size)
    signed = torch.where(state.upper_side, state.certificate.clamp_min(0), state.certificate.clamp_max(0))
    signed = torch.where(data.lower == data.upper, state.certificate, signed)
    witness = torch.where((state.outcome == EMPTY).unsqueeze(-1), signed, 0.0)
    return proves_empty(witness, data.rows, data.lower, data.upper, size)


@torch.no_grad()
def _multipliers(found: _Settled, data: _Data) -> tuple[Tensor, Tensor]:
    """Multipliers `y − x = rowsᵀ λ` on the active rows, and whether they explain `y − x` with the right signs."""
    state, away = found.state, data.y - found.point
    basis = factor_rows(data.rows, state.active)
    _, weights = basis.split(away)
    rest = _norm(away - rmatvec(data.rows, weights)).squeeze(-1)
    total = (_norm(data.y) + _norm(found.point)).squeeze(-1)
    sign = torch.where(state.upper_side, 1.0, -1.0)
    wrong = (sign * weights < 0) & (data.lower < data.upper)
    largest = weights.abs().amax(-1, keepdim=True)
    right = (wrong & (weights.abs() > AUDIT_RTOL * largest)).any(-1).logical_not()
    return weights, (rest <= AUDIT_RTOL * total) & right
