"""Euclidean projection onto batched polyhedra: exact on the active set, with a status for each element."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn._linalg import branchless, matvec
from constrained_nn.solvers._active_set import EMPTY, ROUNDING, RUNNING, SOLVED, sweep
from constrained_nn.solvers._farkas import least_violation, proves_empty
from constrained_nn.solvers._guess import fixed_search, reduce, search
from constrained_nn.solvers._implicit import (
    ActiveProjection,
    on_active_rows,
    row_values,
    scatter_rows,
    transpose_times,
)
from constrained_nn.solvers._one_by_one import prefer_alone_after_all, prefer_one_by_one, project_each
from constrained_nn.solvers._smoothed import with_smoothed_derivative
from constrained_nn.solvers._solution import Solution, Status
from constrained_nn.solvers._splitting_rows import RowFactor, row_factor, times, with_identity

# A row counts as satisfied while it is searched for, relative to ‖x‖ + |bound| of the unit row.
_SEARCH_RTOL = 1e-12
# A row of the returned point is satisfied, relative to |A||x| + |bound|: checked after the fact.
_AUDIT_RTOL = 1e-9
# With a fixed number of steps: up to this many rows or columns the sweep alone is shorter; its steps elsewhere.
_SMALL, _FIXED_SWEEPS = 4, 5
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
    data = [flat(y, 1), *(flat(t, 1) for t in sides)]
    guess = None
    if warm_start is not None and warm_start.duals is not None:
        guess = flat(warm_start.duals.detach(), 1)
    fixed = branchless(y, A, lower, upper)
    alone = not fixed and _alone(size, A, box is not None, factor)
    if not fixed and A.ndim == 2 and factor is None and size and not alone:
        factor = factor_polyhedron(A, _common_equality(lower, upper), box=box is not None)
    limits = _Limits(max_steps, check_every, fixed, alone)

    chunk = size if fixed else _chunk(m if box is None else m + n, n, shared=A.ndim == 2)
    if size <= chunk:
        parts = [_project(data, rows, guess, factor, limits)]
    else:
        chunk = -(-size // -(-size // chunk))  # equal parts
        pieces = [t.split(chunk) for t in data]
        matrices = rows.split(chunk) if rows.ndim == 3 else [rows] * len(pieces[0])
        guesses = guess.split(chunk) if guess is not None else [None] * len(pieces[0])
        parts = [
            _project(list(piece), matrix, g, factor, limits)
            for *piece, matrix, g in zip(*pieces, matrices, guesses, strict=True)
        ]
    value, status, steps, violation, multipliers = (
        column[0] if len(column) == 1 else torch.cat(column) for column in zip(*parts, strict=True)
    )
    return Solution(
        value.to(y.dtype).reshape(*batch, n),
        status.to(torch.int8).reshape(batch),
        steps.to(torch.int32).reshape(batch),
        violation.to(y.dtype).reshape(batch),
        duals=multipliers.to(y.dtype).reshape(*batch, m),
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


class _Limits(NamedTuple):
    max_steps: int | None
    check_every: int
    fixed: bool
    alone: bool


class _Part(NamedTuple):
    """Result for one chunk: `Solution` without its shape."""

    value: Tensor
    status: Tensor
    steps: Tensor
    violation: Tensor
    multipliers: Tensor


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


def _project(
    data: list[Tensor], A: Tensor, guess: Tensor | None, factor: RowFactor | None, limits: _Limits
) -> _Part:
    """Projection of one flat float64 chunk; `data` is `y, lower, upper[, box lower, box upper]`."""
    y, lower, upper, *box = data
    if box:
        lower, upper = torch.cat([lower, box[0]], -1), torch.cat([upper, box[1]], -1)
        guess = None if guess is None else torch.cat([guess, torch.zeros_like(y)], -1)
    if limits.fixed or not bool(_plausible(y, A, lower, upper)):
        return _careful(y, A, lower, upper, bool(box), guess, factor, limits)
    return _search(y, A, lower, upper, bool(box), guess, factor, limits)


def _careful(y, A, lower, upper, box: bool, guess, factor, limits: _Limits) -> _Part:
    """Bad elements replaced before any kernel, and flagged."""
    finite = _finite(y, A, lower, upper)
    each = finite.unsqueeze(-1)
    y = torch.where(each, y, 0.0)
    lower, upper = torch.where(each, lower, -torch.inf), torch.where(each, upper, torch.inf)
    if A.ndim == 3:
        A = torch.where(each.unsqueeze(-1), A, 0.0)
    else:
        A = torch.where(A.isfinite(), A, 0.0)
        factor = None
    if limits.fixed:
        rows = with_identity(A) if box else A
        if guess is None and limits.max_steps is None and min(rows.shape[-2:]) > _SMALL:
            guess = _fixed_guess(y, A, lower, upper, box)
            limits = limits._replace(max_steps=_FIXED_SWEEPS)
        value, status, steps, multipliers = _solve(y, rows, lower, upper, guess, limits)
        violation = _violation(row_values(value.detach(), A.detach(), box), lower.detach(), upper.detach())
        part = _Part(value, status, steps, violation, multipliers.narrow(-1, 0, A.shape[-2]))
    else:
        if A.ndim == 2 and not limits.alone:
            factor = row_factor(A.detach(), None, box=box)
        part = _search(y, A, lower, upper, box, guess, factor, limits)
    return part._replace(
        status=torch.where(finite, part.status, int(Status.NONFINITE_INPUT)),
        violation=torch.where(finite, part.violation, torch.inf),
    )


def _fixed_guess(y: Tensor, A: Tensor, lower: Tensor, upper: Tensor, box: bool) -> Tensor:
    """Signed rows to start the sweep with, found without a look at a value."""
    with torch.no_grad():
        y, A, lower, upper = (t.detach() for t in (y, A, lower, upper))
        equal = lower == upper
        equal = equal.all(0) if A.ndim == 2 else equal
        return fixed_search(reduce(row_factor(A, equal, box=box, eliminate=False), y, lower, upper))


def _search(y, A, lower, upper, box: bool, guess, factor: RowFactor | None, limits: _Limits) -> _Part:
    """Splitting and exact solves for all elements; the sweep for those that neither certifies."""
    m, n = A.shape[-2:]
    b = y.shape[0]
    if lower.shape[-1] == 0 or b == 0:
        zeros = torch.zeros(b, dtype=torch.long, device=y.device)
        return _Part(y.clone(), zeros, zeros, y.new_zeros(b), y.new_zeros(b, m))
    y0, A0, low, up = (t.detach() for t in (y, A, lower, upper))
    with torch.no_grad():
        if limits.alone:
            every = project_each(y0, A0, low, up, box=box, guess=guess, max_steps=limits.max_steps)
            value, multiplier, active, steps, exact, empty = every
        else:
            if factor is None:
                equal = low == up
                factor = row_factor(A0, equal if bool(equal.any()) else None, box=box)
            value, multiplier, active, steps, exact = _batched(y0, A0, low, up, box, guess, factor, limits)
            empty = torch.zeros_like(exact)
        some = exact.logical_not().nonzero().squeeze(-1)
        if some.numel() and not limits.alone and prefer_alone_after_all(some.numel(), lower.shape[-1]):
            few = A0 if A.ndim == 2 else A0[some]
            other = project_each(y0[some], few, low[some], up[some], box=box, max_steps=limits.max_steps)
            for whole, part in zip((value, multiplier, active, steps, exact, empty), other, strict=True):
                whole[some] = part
        reached = row_values(value, A0, box)
        excess = torch.maximum(reached - up, low - reached)
        violation = excess.amax(-1).clamp_min(0.0)
        norm = torch.linalg.vector_norm(A0, dim=-1)
        norm = torch.cat([norm, norm.new_ones(*norm.shape[:-1], n)], -1) if box else norm
        floor = 4 * ROUNDING * norm * torch.linalg.vector_norm(y0, dim=-1, keepdim=True)
        certain = bool((exact & (excess <= floor).all(-1)).all())
        if not certain:
            exact = exact & _audit(reached, value, A0, box, floor, low, up)
            certain = bool((exact | empty).all())
        status = torch.where(exact, int(Status.OK), int(Status.SINGULAR))
        status = torch.where(empty, int(Status.INFEASIBLE), status)
    if not certain:
        active = torch.where(exact.unsqueeze(-1), active, 0.0)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (y, A, lower, upper)):
        value = ActiveProjection.apply(y, A, lower, upper, box, value, multiplier, active, factor)
        value = torch.where(empty.unsqueeze(-1), value.detach(), value)  # pyright: ignore
    if not certain:
        some = (exact | empty).logical_not().nonzero().squeeze(-1)
        few = A if A.ndim == 2 else A[some]
        rows = with_identity(few) if box else few
        hint = torch.where(active[some] != 0, multiplier[some], 0.0)
        if limits.max_steps is not None:
            limits = limits._replace(max_steps=max(0, limits.max_steps - int(steps.max())))
        point, code, more, weights = _solve(y[some], rows, lower[some], upper[some], hint, limits)
        value = value.index_put((some,), point)  # pyright: ignore
        status, steps = status.index_put((some,), code), steps.index_put((some,), steps[some] + more)
        multiplier = multiplier.index_put((some,), weights)
        reached = row_values(point.detach(), few.detach(), box)
        violation = violation.index_put((some,), _violation(reached, low[some], up[some]))
    return _Part(value, status, steps, violation, multiplier.narrow(-1, 0, m))  # pyright: ignore


def _batched(y, A, low, up, box: bool, guess, factor: RowFactor, limits: _Limits) -> tuple[Tensor, ...]:
    """Value, multipliers, signed active rows, steps, and which elements the search certifies."""
    problem = reduce(factor, y, low, up)
    warm = None if guess is None else guess.index_select(-1, factor.inequality)
    budget = math.inf if limits.max_steps is None else limits.max_steps
    multiplier, active, exact, steps = search(problem, warm, budget)
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
        equal = wanted == up.index_select(-1, factor.equality)
        exact = exact & equal.all(-1) & _stationary(y, value, multiplier, A, box)
    return value, multiplier, active, steps, exact


def _violation(reached: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Largest amount by which a row is outside its bounds."""
    if reached.shape[-1] == 0:
        return reached.new_zeros(reached.shape[:-1])
    return torch.maximum(reached - upper, lower - reached).amax(-1).clamp_min(0.0)


def _solve(y: Tensor, A: Tensor, lower: Tensor, upper: Tensor, guess: Tensor | None, limits: _Limits):
    """Value, status, steps and multipliers of finite float64 data by the dual active-set sweep."""
    b, (m, n) = y.shape[0], A.shape[-2:]
    if m == 0 or b == 0:
        zeros = torch.zeros(b, dtype=torch.long, device=y.device)
        return y.clone(), zeros, zeros, y.new_zeros(b, m)
    y0, A0, lower0, upper0 = (t.detach() for t in (y, A, lower, upper))
    norm = torch.linalg.vector_norm(A0, dim=-1)
    scale = torch.where(norm > 0, norm, 1.0)
    rows, low, up = A0 / scale.unsqueeze(-1), lower0 / scale, upper0 / scale
    # A zero row holds everywhere or nowhere: it never enters the search.
    zero_row = norm == 0
    crossed = low > up
    hopeless = (zero_row & ((low > 0) | (up < 0))) | crossed
    skip = zero_row | crossed
    search_low, search_up = torch.where(skip, -torch.inf, low), torch.where(skip, torch.inf, up)
    impossible = hopeless.any(-1)

    fixed = limits.fixed
    limit = (
        limits.max_steps
        if limits.max_steps is not None
        else (2 * min(m, n) + 6 if fixed else 10 * (m + n) + 50)
    )
    options = {"rtol": _SEARCH_RTOL, "max_steps": limit, "check_every": limits.check_every}
    if guess is not None:
        guess = guess * scale
    state = sweep(y0, rows, search_low, search_up, guess=guess, **options)

    size = torch.linalg.vector_norm(y0, dim=-1) + torch.linalg.vector_norm(state.point, dim=-1)
    size = size + torch.where(up.isfinite(), up.abs(), 0.0).amax(-1).minimum(size)
    signed = torch.where(state.upper_side, state.certificate.clamp_min(0), state.certificate.clamp_max(0))
    signed = torch.where(search_low == search_up, state.certificate, signed)
    witness = torch.where((state.outcome == EMPTY).unsqueeze(-1), signed, 0.0)
    empty = proves_empty(witness, rows, search_low, search_up, size) | impossible

    value = on_active_rows(y, A, lower, upper, state.active, state.upper_side)
    x = value.detach()
    floor = 4 * ROUNDING * norm * torch.linalg.vector_norm(y0, dim=-1, keepdim=True)
    satisfied = _audit(matvec(A0, x), x, A0, False, floor, lower0, upper0)
    solved = (state.outcome == SOLVED) & impossible.logical_not()
    status = torch.where(state.outcome == RUNNING, int(Status.MAX_STEPS), int(Status.SINGULAR))
    status = torch.where(solved & satisfied, int(Status.OK), status)
    status = torch.where(empty, int(Status.INFEASIBLE), status)
    multipliers, steps = torch.where(state.active, state.multiplier, 0.0) / scale, state.steps

    failed = status != int(Status.OK)
    # a guess of nearly dependent rows can lead astray: from an empty set once more
    astray = failed & empty.logical_not() & (state.outcome != RUNNING)
    if guess is not None and not fixed and bool(astray.any()):
        some = astray.nonzero().squeeze(-1)
        part = A if A.ndim == 2 else A[some]
        point, code, more, weights = _solve(y[some], part, lower[some], upper[some], None, limits)
        value, status = value.index_put((some,), point), status.index_put((some,), code)
        multipliers, steps = multipliers.index_put((some,), weights), steps.index_add(0, some, more)
        failed = failed & astray.logical_not()
    if fixed:
        value = torch.where(failed.unsqueeze(-1), state.best, value)
    elif bool(failed.any()):
        some = failed.nonzero().squeeze(-1)
        part = rows if rows.ndim == 2 else rows[some]
        point = least_violation(y0[some], part, low[some], up[some], **options)
        value = value.index_put((some,), point)
    return value, status, steps, multipliers


def _stationary(y: Tensor, x: Tensor, multiplier: Tensor, A: Tensor, box: bool) -> Tensor:
    """Whether `y − x` is the rows' sum with these weights, to 1e-9 of the points."""
    off = torch.linalg.vector_norm(y - x - transpose_times(multiplier, A, box), dim=-1)
    return off <= _AUDIT_RTOL * (torch.linalg.vector_norm(y, dim=-1) + torch.linalg.vector_norm(x, dim=-1))


def _audit(reached, x, A, box: bool, floor, lower, upper) -> Tensor:
    """Whether every row holds to `1e-9 (|A||x| + |bound|)` and rounding of `y` (`floor`); NaN does not."""
    size = row_values(x.abs(), A.abs(), box)
    ok = (reached - upper <= _AUDIT_RTOL * (size + upper.abs()) + floor) | (upper == torch.inf)
    ok = ok & ((lower - reached <= _AUDIT_RTOL * (size + lower.abs()) + floor) | (lower == -torch.inf))
    return ok.all(-1)


def _plausible(y: Tensor, A: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Cheap sufficient check that all elements are finite: sums carry every NaN and infinity along."""
    total = y.detach().sum() + A.detach().sum()
    return total.isfinite() & (lower < torch.inf).all() & (upper > -torch.inf).all()


def _finite(y: Tensor, A: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Elements with finite `y` and `A`, no NaN, and no bound at the wrong infinity."""
    bounds = (lower < torch.inf) & (upper > -torch.inf)
    return y.isfinite().all(-1) & A.isfinite().all(-1).all(-1) & bounds.all(-1)
