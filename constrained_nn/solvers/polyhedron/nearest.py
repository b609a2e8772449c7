"""Euclidean projection onto batched polyhedra: exact on the active set, with a status for each element."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn.linalg import branchless, recording
from constrained_nn.solvers.polyhedron import careful as careful
from constrained_nn.solvers.polyhedron.active_set import ROUNDING
from constrained_nn.solvers.polyhedron.careful import (
    AUDIT_RTOL,
    Limits,
    Result,
    attach,
    beyond_bounds,
    evened,
    in_units,
    roundings,
    rows_hold,
)
from constrained_nn.solvers.polyhedron.guess import fixed_search, reduce, search
from constrained_nn.solvers.polyhedron.implicit import (
    ActiveProjection,
    row_values,
    scatter_rows,
    transpose_times,
)
from constrained_nn.solvers.polyhedron.large import prefer_alone_after_all, prefer_one_by_one, project_each
from constrained_nn.solvers.polyhedron.smoothed import with_smoothed_derivative
from constrained_nn.solvers.polyhedron.splitting_rows import RowFactor, row_factor, times, with_identity
from constrained_nn.solvers.solution import Solution, Status

# While tracing: up to this many rows or columns the sweep alone is shorter than a guess and the sweep.
_SMALL = 4
# Memory that one chunk of a batch may take.
_CHUNK_BYTES = 12 * 2**20


def factor_polyhedron(
    A: Float[Tensor, "m n"], equality: Bool[Tensor, " m"] | None = None, *, box: bool = False
) -> RowFactor:
    """Factor of a shared matrix, for many calls of `project_polyhedron` with it.

    Args:
        equality: Rows that are equalities in every element and every call; they are eliminated.
        box: Whether the calls have bounds on the point itself.
    """
    return row_factor(A.detach().to(torch.float64), equality, box=box)


def project_polyhedron(
    y: Float[Tensor, "*#batch n"],
    A: Float[Tensor, "*#batch m n"],
    lower: Float[Tensor, "*#batch m"],
    upper: Float[Tensor, "*#batch m"],
    *,
    box: tuple[Tensor, Tensor] | None = None,
    warm_start: Solution | None = None,
    max_steps: int | None = None,
    check_every: int = 4,
    factor: RowFactor | None = None,
    smoothing: float | None = None,
) -> Solution:
    """Nearest point of `{x : lower <= A x <= upper, box[0] <= x <= box[1]}`.

    Rows may be equalities (`lower = upper`), dependent, duplicate, opposite or zero, and bounds infinite. The
    result is exact on its active set, which is searched in float64 whatever the dtype. Differentiable in `y`,
    `A`, `lower`, `upper` and `box` through the solve on an independent subset of the active rows; where the
    active set is not unique, that is one element of the generalized Jacobian. Elements that are not `OK` have a
    zero gradient.

    Args:
        box: Bounds `(*batch, n)` on `x` itself.
        warm_start: An earlier solution with the same rows; its duals start the search.
        max_steps: Steps before an element is flagged `MAX_STEPS`; default grows with the number of rows.
        check_every: Steps between looks at who has finished (each look synchronises a GPU).
        factor: Result of `factor_polyhedron` for a shared `A`.
        smoothing: Width, in the unit of `y`, over which rows that are nearly active count by halves in the
            derivatives (see docs/methods/projection.md); the value stays exact. `None`: those of the active set.

    Returns:
        `OK`; `INFEASIBLE` with a checked Farkas certificate and the least-violation point; `MAX_STEPS`;
        `SINGULAR` (rows too nearly dependent for this precision); `NONFINITE_INPUT` (value 0). `duals`
        satisfy `y − value = Aᵀ duals` up to the multipliers of the box.

    Raises:
        ValueError: `smoothing` is not positive.
    """
    if smoothing is not None:
        options = {
            "warm_start": warm_start,
            "max_steps": max_steps,
            "check_every": check_every,
            "factor": factor,
        }
        return _smoothed(y, A, lower, upper, box, smoothing, options)
    wide = torch.float64
    m, n = A.shape[-2:]
    sides = [lower, upper] if box is None else [lower, upper, *box]
    batch = torch.broadcast_shapes(y.shape[:-1], A.shape[:-2], *(t.shape[:-1] for t in sides))
    size = math.prod(batch)

    def flat(t: Tensor, core: int) -> Tensor:
        t = t.to(wide)
        return t.expand(*batch, *t.shape[t.ndim - core :]).reshape(size, *t.shape[t.ndim - core :])

    rows = A.to(wide) if A.ndim == 2 else flat(A, 2)
    point, low, up = flat(y, 1), flat(lower, 1), flat(upper, 1)
    guess = None
    if warm_start is not None and warm_start.duals is not None:
        guess = flat(warm_start.duals.detach(), 1)
    if box is not None:
        low, up = torch.cat([low, flat(box[0], 1)], -1), torch.cat([up, flat(box[1], 1)], -1)
        guess = None if guess is None else torch.cat([guess, torch.zeros_like(point)], -1)
    problem = _Problem(point, rows, low, up, box is not None)
    limits = Limits(max_steps, check_every, branchless(y, A, lower, upper))
    if torch._C._are_functorch_transforms_active() and not recording():
        found = _project_mapped(problem, guess, limits)
    elif limits.fixed:
        found = _careful(problem, guess, None, limits)
    else:
        alone = _alone(size, A, box is not None, factor)
        if A.ndim == 2 and factor is None and size and not alone:
            factor = factor_polyhedron(A, _common_equality(lower, upper), box=box is not None)
        found = _in_chunks(problem, guess, factor, limits._replace(alone=alone))
    largest = torch.finfo(y.dtype).max
    value = found.value if y.dtype == wide else found.value.clamp(-largest, largest).to(y.dtype)
    status = found.status
    if y.dtype != wide or limits.fixed or not math.isfinite(value.detach().sum()):
        # a point beyond the largest number of a narrow dtype is no solution in it
        fits = (found.value.detach().abs() <= largest).all(-1)
        status = torch.where(fits | (status != int(Status.OK)), status, int(Status.MISSED))
    return Solution(
        value.reshape(*batch, n),
        status.to(torch.int8).reshape(batch),
        found.steps.to(torch.int32).reshape(batch),
        found.violation.to(y.dtype).reshape(batch),
        duals=found.multipliers.narrow(-1, 0, m).to(y.dtype).reshape(*batch, m),
    )


def _smoothed(y, A, lower, upper, box, width: float, options: dict[str, Any]) -> Solution:
    """`project_polyhedron` with smoothed derivatives."""
    if not width > 0:
        raise ValueError(
            f"project_polyhedron: expected smoothing > 0, got {width}. It is a width in the unit of y; pass None "
            f"for the derivative of the active set."
        )
    inputs = (y, A, lower, upper, *(box or ()))
    with torch.no_grad():
        plain = [t.detach() for t in inputs]
        sides = (plain[4], plain[5]) if box is not None else None
        solution = project_polyhedron(*plain[:4], box=sides, **options)
    differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    if not (differentiated or branchless(*inputs)) or A.shape[-2] + (box is not None) == 0:
        return solution
    assert solution.duals is not None
    value = with_smoothed_derivative(
        solution.value, solution.duals, solution.ok, y, A, lower, upper, box, width
    )
    return replace(solution, value=value)


class _Problem(NamedTuple):
    """A flat batch in float64: rows `[A; I]` if `box`, else `A`, which may be shared."""

    y: Tensor
    A: Tensor
    lower: Tensor
    upper: Tensor
    box: bool

    @property
    def rows(self) -> Tensor:
        return with_identity(self.A) if self.box else self.A

    def detach(self) -> _Problem:
        y, A, lower, upper = (t.detach() for t in self[:4])
        return _Problem(y, A, lower, upper, self.box)


def _common_equality(lower: Tensor, upper: Tensor) -> Tensor | None:
    """Rows that are equalities in every element, or `None` if there are none."""
    equal = lower == upper
    equal = equal.flatten(0, -2).all(0) if equal.ndim > 1 else equal
    return equal if bool(equal.any()) else None


def _alone(size: int, A: Tensor, box: bool, factor: RowFactor | None) -> bool:
    """Whether all elements are projected one by one, and no factor is needed."""
    m, n = A.shape[-2:]
    options = {"box": box, "factored": factor is not None, "shared": A.ndim == 2}
    return A.device.type == "cpu" and prefer_one_by_one(size, m, n, **options)


def _chunk(m: int, n: int, *, shared: bool) -> int:
    """Number of elements that one pass takes."""
    k = min(m, n)
    numbers = 12 * (m + n) + 3 * k * k + (0 if shared else 3 * m * n + (2 * m * m if m <= n else 0))
    return max(64, _CHUNK_BYTES // (8 * numbers))


def _in_chunks(problem: _Problem, guess: Tensor | None, factor: RowFactor | None, limits: Limits) -> Result:
    """Projection of a batch whose values may be looked at, in parts that fit into the cache."""
    y, A, lower, upper, box = problem
    size, chunk = y.shape[0], _chunk(lower.shape[-1], y.shape[-1], shared=A.ndim == 2)
    if size <= chunk:
        return _project(problem, guess, factor, limits)
    chunk = -(-size // -(-size // chunk))  # equal parts
    pieces = [t.split(chunk) for t in (y, lower, upper)]
    matrices = A.split(chunk) if A.ndim == 3 else [A] * len(pieces[0])
    guesses = guess.split(chunk) if guess is not None else [None] * len(pieces[0])
    parts = [
        _project(_Problem(y, matrix, lower, upper, box), hint, factor, limits)
        for y, lower, upper, matrix, hint in zip(*pieces, matrices, guesses, strict=True)
    ]
    return Result(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _project(problem: _Problem, guess: Tensor | None, factor: RowFactor | None, limits: Limits) -> Result:
    if _plausible(*problem[:4]):
        return _search(problem, guess, factor, limits)
    return _careful(problem, guess, factor, limits)


def _clean(problem: _Problem) -> tuple[_Problem, Tensor]:
    """The problem with harmless numbers in bad elements, and which elements are good."""
    y, A, lower, upper, box = problem
    finite = _finite(y, A, lower, upper)
    each = finite.unsqueeze(-1)
    good = each.unsqueeze(-1) if A.ndim == 3 else A.isfinite()
    free = (torch.where(each, lower, -torch.inf), torch.where(each, upper, torch.inf))
    return _Problem(torch.where(each, y, 0.0), torch.where(good, A, 0.0), *free, box), finite


def _careful(problem: _Problem, guess: Tensor | None, factor: RowFactor | None, limits: Limits) -> Result:
    """Bad elements replaced before any kernel, and flagged."""
    shared = problem.A.ndim == 2
    problem, finite = _clean(problem)
    if limits.fixed:
        if guess is None and limits.max_steps is None and min(problem.rows.shape[-2:]) > _SMALL:
            guess = _fixed_guess(problem.detach())
        found = careful.project(problem.y, problem.rows, problem.lower, problem.upper, guess, limits)
    else:
        if shared and not limits.alone:
            factor = row_factor(problem.A.detach(), None, box=problem.box)
        found = _search(problem, guess, factor, limits)
    return _flagged(found, finite)


def _flagged(found: Result, finite: Tensor) -> Result:
    return found._replace(
        status=torch.where(finite, found.status, int(Status.NONFINITE_INPUT)),
        violation=torch.where(finite, found.violation, torch.inf),
    )


@torch.no_grad()
def _fixed_guess(problem: _Problem) -> Tensor:
    """Signed rows to start the sweep with, found without a look at a value."""
    y, A, lower, upper, box = problem
    equal = lower == upper
    equal = equal.all(0) if A.ndim == 2 else equal
    return fixed_search(reduce(row_factor(A, equal, box=box, eliminate=False), y, lower, upper))


def _project_mapped(problem: _Problem, guess: Tensor | None, limits: Limits) -> Result:
    """Projection under `torch.func`: the search sees plain tensors, and looks at values as it does elsewhere."""
    problem, finite = _clean(problem)
    y, A, lower, upper, box = problem.detach()
    hint = torch.zeros_like(lower) if guess is None else guess
    options = (box, guess is not None, limits.max_steps, limits.check_every)
    found = Result(*_MappedSearch.apply(y, A, lower, upper, hint, *options))  # pyright: ignore
    units = in_units(problem.y, problem.rows, problem.lower, problem.upper)
    value = attach(units, found.value / units.size, found.active != 0, found.active > 0)
    solved = (found.status == int(Status.OK)).unsqueeze(-1)
    return _flagged(found._replace(value=torch.where(solved, value, found.value)), finite)


class _MappedSearch(torch.autograd.Function):
    """`_in_chunks` without derivatives; under `vmap` the mapped elements are more elements of the batch."""

    @staticmethod
    def forward(y, A, lower, upper, guess, box, guessed, max_steps, check_every):
        limits = Limits(max_steps, check_every, branchless(y, A, lower, upper))
        problem, hint = _Problem(y, A, lower, upper, box), guess if guessed else None
        with torch.no_grad():
            if limits.fixed:  # fake tensors
                return tuple(_careful(problem, hint, None, limits))
            factor = None
            if A.ndim == 2 and y.shape[0]:
                factor = row_factor(A, _common_equality(lower, upper), box=box)
            return tuple(_in_chunks(problem, hint, factor, limits))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def vmap(info, in_dims, y, A, lower, upper, guess, *options):
        def lift(t: Tensor, dim: int | None) -> Tensor:
            t = t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            return t.flatten(0, 1)

        size = y.shape[0] if in_dims[0] is None else y.movedim(in_dims[0], 0).shape[1]
        if in_dims[1] is not None:
            A = A.movedim(in_dims[1], 0)
            A = A.unsqueeze(1).expand(-1, size, -1, -1) if A.ndim == 3 else A
            A = A.flatten(0, 1)
        elif A.ndim == 3:
            A = lift(A, None)
        flat = [lift(t, d) for t, d in zip((lower, upper, guess), in_dims[2:5], strict=True)]
        found = _MappedSearch.apply(lift(y, in_dims[0]), A, *flat, *options)
        found = tuple(t.unflatten(0, (info.batch_size, size)) for t in found)  # pyright: ignore
        return found, (0,) * len(found)

    @staticmethod
    def backward(ctx, *_):  # pyright: ignore[reportIncompatibleMethodOverride]
        return (None,) * 9

    @staticmethod
    def jvp(ctx, *_):  # pyright: ignore[reportIncompatibleMethodOverride]
        return (None,) * len(Result._fields)


def _search(problem: _Problem, guess: Tensor | None, factor: RowFactor | None, limits: Limits) -> Result:
    """Splitting and exact solves for all elements; the sweep for those that neither certifies."""
    y, A, lower, upper, box = problem
    m, b = lower.shape[-1], y.shape[0]
    if m == 0 or b == 0:
        zeros = torch.zeros(b, dtype=torch.long, device=y.device)
        return Result(y.clone(), zeros, zeros, y.new_zeros(b), y.new_zeros(b, m), y.new_zeros(b, m))
    if factor is None and not limits.alone:
        equal = lower.detach() == upper.detach()
        factor = row_factor(A.detach(), equal if bool(equal.any()) else None, box=box)
    found, exact = _guess_and_audit(problem.detach(), guess, factor, limits)
    value, status, steps, violation, multiplier, active = found
    empty, known = None, exact
    if not bool(exact.all()):
        active = torch.where(exact.unsqueeze(-1), active, 0.0)
        empty = status == int(Status.INFEASIBLE)
        known = exact | empty
    if torch.is_grad_enabled() and any(t.requires_grad for t in problem[:4]):
        value = ActiveProjection.apply(y, A, lower, upper, box, value, multiplier, active, factor)
        if empty is not None:
            value = torch.where(empty.unsqueeze(-1), value.detach(), value)  # pyright: ignore
    result = Result(value, status, steps, violation, multiplier, active)  # pyright: ignore
    if empty is None or bool(known.all()):
        return result
    some = known.logical_not().nonzero().squeeze(-1)
    few = A if A.ndim == 2 else A[some]
    rows = with_identity(few) if box else few
    hint = torch.where(found.active[some] != 0, multiplier[some], 0.0)
    if limits.max_steps is not None:
        limits = limits._replace(max_steps=max(0, limits.max_steps - int(steps.max())))
    other = careful.project(y[some], rows, lower[some], upper[some], hint, limits)
    other = other._replace(steps=other.steps + steps[some])
    return Result(*(old.index_put((some,), new) for old, new in zip(result, other, strict=True)))


@torch.no_grad()
def _guess_and_audit(
    problem: _Problem, guess: Tensor | None, factor: RowFactor | None, limits: Limits
) -> tuple[Result, Tensor]:
    """The search, and which elements satisfy the optimality conditions in the unit of the result."""
    y, A, low, up, box = problem
    if factor is None:
        every = project_each(y, A, low, up, box=box, guess=guess, max_steps=limits.max_steps)
        value, multiplier, active, steps, exact, empty = every
    else:
        value, multiplier, active, steps, exact = _search_batch(problem, guess, factor, limits)
        empty = torch.zeros_like(exact)
        some = exact.logical_not().nonzero().squeeze(-1)
        if some.numel() and y.device.type == "cpu" and prefer_alone_after_all(some.numel(), low.shape[-1]):
            few = A if A.ndim == 2 else A[some]
            other = project_each(y[some], few, low[some], up[some], box=box, max_steps=limits.max_steps)
            for whole, part in zip((value, multiplier, active, steps, exact, empty), other, strict=True):
                whole[some] = part.to(whole.dtype)
    every = bool(exact.all())
    if box:  # rounding alone: a bound that is next to nothing is met to its last digit
        n = y.shape[-1]
        least, most, side = low[..., -n:], up[..., -n:], active[..., -n:]
        at_bound = torch.where(side > 0, most, torch.where(side < 0, least, value))
        at_bound = torch.clamp(at_bound, least, most)
        value = at_bound if every else torch.where(empty.unsqueeze(-1), value, at_bound)
    reached = row_values(value, A, box)
    excess = torch.maximum(reached - up, low - reached)
    # |A||x| >= |A x|: enough for most rows, and cheap
    off = torch.where(active != 0, excess.abs(), excess)
    within = bool((torch.sub(off, reached.abs(), alpha=AUDIT_RTOL) <= 0).all())
    if every and within and bool((low <= up).all()):
        violation = excess.amax(-1).clamp_min(0.0)
        return Result(value, torch.zeros_like(steps), steps, violation, multiplier, active), exact
    exact = exact & (low <= up).all(-1)
    held = _holds(value, reached, problem, active)
    if not bool((held | exact.logical_not()).all()):
        value, held = _snapped(value, held, problem, active)
        reached = row_values(value, A, box)
        excess = torch.maximum(reached - up, low - reached)
    # a row that holds to rounding of a far point alone shows no empty set
    exact = exact & held & beyond_bounds(excess, low, up, _row_sizes(A, box)).logical_not()
    status = torch.where(exact, int(Status.OK), int(Status.SINGULAR))
    status = torch.where(empty, int(Status.INFEASIBLE), status)
    violation = excess.amax(-1).clamp_min(0.0)
    return Result(value, status, steps, violation, multiplier, active), exact


def _search_batch(
    problem: _Problem, guess: Tensor | None, factor: RowFactor, limits: Limits
) -> tuple[Tensor, ...]:
    """Value, multipliers, signed active rows, steps, and which elements the search by splitting certifies."""
    y, A, low, up, box = problem
    warm = None if guess is None else guess.index_select(-1, factor.inequality)
    budget = math.inf if limits.max_steps is None else limits.max_steps
    multiplier, active, exact, steps = search(reduce(factor, y, low, up), warm, budget)
    value = y - times(multiplier, factor.rows)
    there = factor.norm > 0
    multiplier = torch.where(there, multiplier / torch.where(there, factor.norm, 1.0), 0.0)
    if factor.equality.numel():
        wanted = low.index_select(-1, factor.equality)
        missing = row_values(value, A, box).index_select(-1, factor.equality) - wanted
        value = value - missing @ factor.pinv.mT
        multiplier = scatter_rows(factor, multiplier, y - value, A, box)
        active = torch.zeros_like(multiplier).index_copy_(-1, factor.inequality, active)
        active.index_fill_(-1, factor.equality, 1.0)
        exact = exact & (wanted == up.index_select(-1, factor.equality)).all(-1)
        exact = exact & _stationary(y, value, multiplier, A, box)
    return value, multiplier, active, steps, exact


def _holds(x: Tensor, reached: Tensor, problem: _Problem, active: Tensor) -> Tensor:
    """`rows_hold` at `x`, whose rows have the values `reached`."""
    _, A, low, up, box = problem
    size, even = row_values(x.abs(), A.abs(), box), row_values(evened(x), A.abs(), box)
    return rows_hold(reached, size, roundings(x.shape[-1]) * even, low, up, active)


def _row_sizes(A: Tensor, box: bool) -> Tensor:
    """Largest entry of each row, 1 for a zero row and for bounds."""
    size = A.abs().amax(-1)
    size = torch.where(size > 0, size, 1.0)
    return torch.cat([size, size.new_ones(*size.shape[:-1], A.shape[-1])], -1) if box else size


def _snapped(value: Tensor, held: Tensor, problem: _Problem, active: Tensor) -> tuple[Tensor, Tensor]:
    """Entries that are rounding of `y` set to 0 where only that makes the rows hold."""
    y, A, *_, box = problem
    rounding = ROUNDING * torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    other = torch.where(value.abs() <= rounding, 0.0, value)
    better = held.logical_not() & _holds(other, row_values(other, A, box), problem, active)
    return torch.where(better.unsqueeze(-1), other, value), held | better


def _stationary(y: Tensor, x: Tensor, multiplier: Tensor, A: Tensor, box: bool) -> Tensor:
    """Whether `y − x` is the rows' sum with these weights, to 1e-9 of the points."""
    off = torch.linalg.vector_norm(y - x - transpose_times(multiplier, A, box), dim=-1)
    return off <= AUDIT_RTOL * (torch.linalg.vector_norm(y, dim=-1) + torch.linalg.vector_norm(x, dim=-1))


@torch.no_grad()
def _plausible(y: Tensor, A: Tensor, lower: Tensor, upper: Tensor) -> bool:
    """Cheap sufficient check that all elements are finite: sums carry every NaN and infinity along."""
    total = y.sum() + A.sum()
    if lower.numel():  # a bound may be infinite on its own side
        total = total + lower.amax().clamp_min(0.0) + upper.amin().clamp_max(0.0)
    return math.isfinite(total)


def _finite(y: Tensor, A: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Elements with finite `y` and `A`, no NaN, and no bound at the wrong infinity."""
    bounds = (lower < torch.inf) & (upper > -torch.inf)
    return y.isfinite().all(-1) & A.isfinite().all(-1).all(-1) & bounds.all(-1)
