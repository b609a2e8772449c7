"""Euclidean projection onto batched polyhedra: exact on the active set, with a status for each element."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn._linalg import ThinQR, branchless, matvec, min_norm_solve
from constrained_nn.solvers._active_set import EMPTY, ROUNDING, RUNNING, SOLVED, factor_rows, sweep, take_rows
from constrained_nn.solvers._farkas import least_violation, proves_empty
from constrained_nn.solvers._solution import Solution, Status

# A row counts as satisfied while it is searched for, relative to ‖x‖ + |bound| of the unit row.
_SEARCH_RTOL = 1e-12
# A row of the returned point is satisfied, relative to |A||x| + |bound|: checked after the fact.
_AUDIT_RTOL = 1e-9


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
    factor: None = None,
) -> Solution:
    """Nearest point of `{x : lower <= A x <= upper, box[0] <= x <= box[1]}`.

    Rows may be equalities (`lower = upper`), dependent, duplicate, opposite or zero, and bounds infinite. The
    result is exact on its active set, which is searched in float64 whatever the dtype. Differentiable in `y`,
    `A`, `lower`, `upper` and `box` through the solve on an independent subset of the active rows; where the
    active set is not unique, that is one element of the generalized Jacobian. Elements that are not `OK` have a
    zero gradient.

    Args:
        box: Bounds `(*batch, n)` on `x` itself.
        warm_start: An earlier solution with the same rows; its multipliers start the search.
        max_steps: Steps before an element is flagged `MAX_STEPS`; default grows with the number of rows.
        check_every: Steps between looks at who has finished (each look synchronises a GPU).

    Returns:
        `OK`; `INFEASIBLE` with a checked Farkas certificate and the least-violation point; `MAX_STEPS`;
        `SINGULAR` (rows too nearly dependent for this precision); `NONFINITE_INPUT` (value 0). `multipliers`
        satisfy `y − value = Aᵀ multipliers` up to the multipliers of the box.
    """
    out_dtype, wide = y.dtype, torch.float64
    m = A.shape[-2]
    shapes = [y.shape[:-1], A.shape[:-2], lower.shape[:-1], upper.shape[:-1]]
    if box is not None:
        shapes += [box[0].shape[:-1], box[1].shape[:-1]]
    batch = torch.broadcast_shapes(*shapes)
    size = math.prod(batch)
    n = y.shape[-1]

    def flat(t: Tensor, core: int) -> Tensor:
        t = t.to(wide)
        return t.expand(*batch, *t.shape[t.ndim - core :]).reshape(size, *t.shape[t.ndim - core :])

    y_flat, lower, upper = flat(y, 1), flat(lower, 1), flat(upper, 1)
    rows = A.to(wide) if A.ndim == 2 else flat(A, 2)
    if box is not None:
        eye = torch.eye(n, dtype=wide, device=y.device)
        rows = torch.cat([rows, eye.expand(*rows.shape[:-2], n, n)], -2)
        lower = torch.cat([lower, flat(box[0], 1)], -1)
        upper = torch.cat([upper, flat(box[1], 1)], -1)

    finite = _finite(y_flat, rows, lower, upper)
    if branchless(y_flat, rows) or not bool(finite.all()):
        y_flat = torch.where(finite.unsqueeze(-1), y_flat, 0.0)
        lower = torch.where(finite.unsqueeze(-1), lower, -torch.inf)
        upper = torch.where(finite.unsqueeze(-1), upper, torch.inf)
        if rows.ndim == 2:
            rows = torch.where(rows.isfinite(), rows, 0.0)
        else:
            rows = torch.where(finite.unsqueeze(-1).unsqueeze(-1), rows, 0.0)

    guess = None
    if warm_start is not None and warm_start.multipliers is not None:
        guess = warm_start.multipliers.detach().to(wide).reshape(size, m)
        if box is not None:
            guess = torch.cat([guess, guess.new_zeros(size, n)], -1)
    value, status, steps, multipliers = _solve(y_flat, rows, lower, upper, guess, max_steps, check_every)

    status = torch.where(finite, status, int(Status.NONFINITE_INPUT))
    value = value.to(out_dtype)
    with torch.no_grad():
        Ax = matvec(rows.detach(), value.detach().to(wide))
        residual = torch.maximum(
            torch.maximum(Ax - upper.detach(), lower.detach() - Ax), torch.zeros_like(Ax)
        )
        violation = residual.amax(-1) if residual.shape[-1] else residual.new_zeros(size)
        violation = torch.where(finite, violation, torch.inf).to(out_dtype)
    return Solution(
        value.reshape(*batch, n),
        status.reshape(batch).to(torch.int8),
        steps.reshape(batch).to(torch.int32),
        violation.reshape(batch),
        multipliers.narrow(-1, 0, m).to(out_dtype).reshape(*batch, m),
    )


def _solve(
    y: Tensor, A: Tensor, lower: Tensor, upper: Tensor, guess, max_steps: int | None, check_every: int
):
    """Value, status, steps and multipliers of finite float64 data."""
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

    fixed = branchless(y, A)
    limit = max_steps if max_steps is not None else (2 * min(m, n) + 6 if fixed else 10 * (m + n) + 50)
    options = {"rtol": _SEARCH_RTOL, "max_steps": limit, "check_every": check_every}
    if guess is not None:
        guess = guess * scale
    state = sweep(y0, rows, search_low, search_up, guess=guess, **options)

    size = torch.linalg.vector_norm(y0, dim=-1) + torch.linalg.vector_norm(state.point, dim=-1)
    size = size + torch.where(up.isfinite(), up.abs(), 0.0).amax(-1).minimum(size)
    signed = torch.where(state.upper_side, state.certificate.clamp_min(0), state.certificate.clamp_max(0))
    signed = torch.where(search_low == search_up, state.certificate, signed)
    witness = torch.where((state.outcome == EMPTY).unsqueeze(-1), signed, 0.0)
    empty = proves_empty(witness, rows, search_low, search_up, size) | impossible

    value = _on_active_rows(y, A, lower, upper, norm, state.active, state.upper_side)
    satisfied = _audit(value.detach(), y0, A0, norm, lower0, upper0)
    solved = (state.outcome == SOLVED) & impossible.logical_not()
    status = torch.where(state.outcome == RUNNING, int(Status.MAX_STEPS), int(Status.SINGULAR))
    status = torch.where(solved & satisfied, int(Status.OK), status)
    status = torch.where(empty, int(Status.INFEASIBLE), status)
    multipliers = torch.where(state.active, state.multiplier, 0.0) / scale

    failed = status != int(Status.OK)
    if fixed:
        value = torch.where(failed.unsqueeze(-1), state.point, value)
    elif bool(failed.any()):
        some = failed.nonzero().squeeze(-1)
        part = rows if rows.ndim == 2 else rows[some]
        point = least_violation(y0[some], part, low[some], up[some], **options)
        value = value.index_put((some,), point)
    return value, status, state.steps, multipliers


def _on_active_rows(
    y: Tensor, A: Tensor, lower: Tensor, upper: Tensor, norm: Tensor, active: Tensor, upper_side: Tensor
) -> Tensor:
    """`y − A_J⁺(A_J y − t_J)` on the active rows `J`: the differentiable part."""
    scale = torch.where(norm > 0, norm, 1.0)
    basis = factor_rows(A.detach() / scale.unsqueeze(-1), active)
    A_J = take_rows(A / scale.unsqueeze(-1), basis.index)
    A_J = torch.where(basis.used.unsqueeze(-1), A_J, 0.0)
    target = torch.where(upper_side, upper, lower) / scale
    t = torch.where(basis.used, target.gather(-1, basis.index), 0.0)
    qr = ThinQR(basis.Q, basis.R, basis.used)
    x = y - min_norm_solve(A_J, matvec(A_J, y) - t, qr)
    with torch.no_grad():  # one refinement; its derivative is zero
        correction = min_norm_solve(A_J.detach(), matvec(A_J.detach(), x.detach()) - t.detach(), qr)
    return x - correction


def _audit(x: Tensor, y: Tensor, A: Tensor, norm: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Whether every row holds to `1e-9 (|A||x| + |bound|)` and rounding of `y`; NaN does not."""
    Ax = matvec(A, x)
    size = matvec(A.abs(), x.abs())
    floor = 4 * ROUNDING * norm * torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    ok = (Ax - upper <= _AUDIT_RTOL * (size + upper.abs()) + floor) | (upper == torch.inf)
    ok = ok & ((lower - Ax <= _AUDIT_RTOL * (size + lower.abs()) + floor) | (lower == -torch.inf))
    return ok.all(-1)


def _finite(y: Tensor, A: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Elements with finite `y` and `A`, no NaN, and no bound at the wrong infinity."""
    bounds = (lower < torch.inf) & (upper > -torch.inf)
    return y.isfinite().all(-1) & A.isfinite().all(-1).all(-1) & bounds.all(-1)
