"""Derivatives of a projection from its active rows.

With active rows `M x = t`, `x = y − Mᵀλ` and `g = ḡ + Mᵀω` where `M ḡ = 0`:
`dL/dy = ḡ`, `dL/dt = ω`, `dL/dM = −λ ḡᵀ − ω xᵀ`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from constrained_nn.linalg import ThinQR, matvec, min_norm_solve, outer_sum_to, rmatvec
from constrained_nn.solvers.polyhedron.active_set import factor_rows, take_rows
from constrained_nn.solvers.polyhedron.splitting_rows import (
    SHIFT,
    RowFactor,
    active_block,
    gram_times,
    times,
    with_identity,
)

# Sine of the angle to the other active rows under which a row counts as dependent on them.
_DEPENDENT = 1e-6


def on_active_rows(
    y: Tensor,
    rows: Tensor,
    lower: Tensor,
    upper: Tensor,
    active: Tensor,
    upper_side: Tensor,
    *,
    box: bool = False,
    most: int | None = None,
) -> Tensor:
    """`y − A_J⁺(A_J y − t_J)` on independent active rows `J`, by operations with derivatives of every order.

    Args:
        box: Whether the last `n` rows are those of the identity; where they are active, they are eliminated.
        most: At most so many other rows are active.
    """
    target = torch.where(upper_side, upper, lower)
    free = None
    if box:
        m, n = rows.shape[-2] - y.shape[-1], y.shape[-1]
        held = active.narrow(-1, m, n)
        y = torch.where(held, target.narrow(-1, m, n), y)
        rows, target, active = rows.narrow(-2, 0, m), target.narrow(-1, 0, m), active.narrow(-1, 0, m)
        free = held.logical_not()
    norm = torch.linalg.vector_norm(rows.detach(), dim=-1)
    scale = torch.where(norm > 0, norm, 1.0)
    unit = rows / scale.unsqueeze(-1)
    basis = factor_rows(unit.detach(), active, free, most)
    A_J = torch.where(basis.used.unsqueeze(-1), take_rows(unit, basis.index), 0.0)
    t = torch.where(basis.used, (target / scale).gather(-1, basis.index), 0.0)
    tangent = A_J if free is None else torch.where(free.unsqueeze(-2), A_J, 0.0)
    qr = ThinQR(basis.Q, basis.R, basis.used)
    x = y - min_norm_solve(tangent, matvec(A_J, y) - t, qr)
    with torch.no_grad():  # one refinement; its derivative is zero
        correction = min_norm_solve(tangent.detach(), matvec(A_J.detach(), x.detach()) - t.detach(), qr)
    return x - correction


class ActiveProjection(torch.autograd.Function):
    """A projection that is known already, with the derivative that its active rows give it.

    First derivatives reuse the Gram matrix of the active rows; where a graph of the derivative is asked for,
    it is built from `on_active_rows`.
    """

    @staticmethod
    def forward(ctx, y, rows, lower, upper, box, value, multiplier, active, factor):
        ctx.save_for_backward(y, rows, lower, upper, value, multiplier, active)
        ctx.box, ctx.factor = box, factor
        return value.clone()

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        y, rows, lower, upper, value, multiplier, active = ctx.saved_tensors
        if torch.is_grad_enabled():
            needed = [t for t, n in zip((y, rows, lower, upper), ctx.needs_input_grad, strict=False) if n]
            full = with_identity(rows) if ctx.box else rows
            kept = independent(rows, ctx.box, active)
            most = int(kept.narrow(-1, 0, rows.shape[-2]).sum(-1).max())
            x = on_active_rows(y, full, lower, upper, kept, active > 0, box=ctx.box, most=most)
            found = iter(torch.autograd.grad(x, needed, grad, create_graph=True, allow_unused=True))
            return (*(next(found) if n else None for n in ctx.needs_input_grad[:4]), *([None] * 5))
        if ctx.factor is None:
            weight = _adjoint_alone(rows, ctx.box, active, grad)
        else:
            weight = _adjoint(ctx.factor, rows, ctx.box, active, grad)
        grad_y = grad - transpose_times(weight, rows, ctx.box)
        grad_rows = grad_lower = grad_upper = None
        if ctx.needs_input_grad[1]:
            m = rows.shape[-2]
            w, lam = weight.narrow(-1, 0, m), multiplier.narrow(-1, 0, m)
            grad_rows = -outer_sum_to(lam, grad_y, rows.shape) - outer_sum_to(w, value, rows.shape)
        if ctx.needs_input_grad[2]:
            grad_lower = torch.where(active < 0, weight, 0.0)
        if ctx.needs_input_grad[3]:
            grad_upper = torch.where(active > 0, weight, 0.0)
        return grad_y, grad_rows, grad_lower, grad_upper, None, None, None, None, None


def transpose_times(weight: Tensor, rows: Tensor, box: bool) -> Tensor:
    """`[A; I]ᵀ weight`, or `Aᵀ weight` without a box."""
    if not box:
        return times(weight, rows)
    m = rows.shape[-2]
    return times(weight.narrow(-1, 0, m), rows) + weight.narrow(-1, m, rows.shape[-1])


def row_values(x: Tensor, rows: Tensor, box: bool) -> Tensor:
    """`[A; I] x`, or `A x` without a box."""
    value = times(x, rows.mT)
    return torch.cat([value, x], -1) if box else value


class _FreeRows(NamedTuple):
    """Active rows, in their order, along the components that are not held at bounds of their own.

    Args:
        index: Which rows of `A` they are `(b, k)`.
        unit: The rows, of norm one; those that depend on the rows before them are zero `(b, k, n)`.
        scale: Their norm before that `(b, k)`.
        L: Cholesky factor of `unit unitᵀ`, one on the diagonal for the zero rows `(b, k, k)`.
        used: Which are not zero `(b, k)`.
    """

    index: Tensor
    unit: Tensor
    scale: Tensor
    L: Tensor
    used: Tensor


def _free_rows(rows: Tensor, box: bool, active: Tensor) -> _FreeRows:
    m, n = rows.shape[-2:]
    own = active.narrow(-1, 0, m) != 0
    k = min(int(own.sum(-1).max()), m)
    index = own.to(torch.int8).sort(dim=-1, descending=True, stable=True).indices.narrow(-1, 0, k)
    used = own.gather(-1, index)
    chosen = take_rows(rows, index)
    whole = torch.linalg.vector_norm(chosen, dim=-1)
    if box:
        chosen = torch.where((active.narrow(-1, m, n) == 0).unsqueeze(-2), chosen, 0.0)
    scale = torch.linalg.vector_norm(chosen, dim=-1)
    used = used & (scale > _DEPENDENT * whole)
    scale = torch.where(used, scale, 1.0)
    unit = torch.where(used.unsqueeze(-1), chosen / scale.unsqueeze(-1), 0.0)
    # a pivot is the squared sine of the angle to the rows before
    pivot = _cholesky(unit, used).diagonal(dim1=-2, dim2=-1)
    used = used & (pivot > _DEPENDENT)
    unit = torch.where(used.unsqueeze(-1), unit, 0.0)
    return _FreeRows(index, unit, scale, _cholesky(unit, used), used)


def _cholesky(unit: Tensor, used: Tensor) -> Tensor:
    block = unit @ unit.mT
    block.diagonal(dim1=-2, dim2=-1).add_(torch.where(used, SHIFT, 1.0))
    return torch.linalg.cholesky_ex(block)[0]


@torch.no_grad()
def independent(rows: Tensor, box: bool, active: Tensor) -> Tensor:
    """The active rows and bounds without those that depend on the bounds and on the rows before them."""
    found = _free_rows(rows.detach(), box, active)
    kept = torch.zeros_like(active.narrow(-1, 0, rows.shape[-2]), dtype=torch.bool)
    kept = kept.scatter(-1, found.index, found.used)
    return torch.cat([kept, active.narrow(-1, rows.shape[-2], rows.shape[-1]) != 0], -1) if box else kept


def _adjoint_alone(rows: Tensor, box: bool, active: Tensor, grad: Tensor) -> Tensor:
    """`_adjoint` without a factor: components at their bounds are eliminated, so that only rows cost."""
    m, n = rows.shape[-2:]
    found = _free_rows(rows, box, active)
    weight = torch.zeros_like(found.scale)
    for _ in range(2):
        left = matvec(found.unit, grad - rmatvec(found.unit, weight))
        weight = weight + torch.cholesky_solve(left.unsqueeze(-1), found.L).squeeze(-1)
    full = torch.zeros_like(active.narrow(-1, 0, m)).scatter(-1, found.index, weight / found.scale)
    if not box:
        return full
    held = active.narrow(-1, m, n) != 0
    return torch.cat([full, torch.where(held, grad - times(full, rows), 0.0)], -1)


def _adjoint(factor: RowFactor, rows: Tensor, box: bool, active: Tensor, grad: Tensor) -> Tensor:
    """`ω`: least-squares weights `(b, m)` of the active rows with `[A; I]ᵀ ω ≈ grad`."""
    reduced = active
    if factor.equality.numel():
        reduced = active.index_select(-1, factor.inequality)
    reduced = torch.where(factor.norm > 0, reduced, 0.0)
    k = min(int((reduced != 0).sum(-1).max()), *factor.rows.shape[-2:])
    if k == 0:
        weight = torch.zeros_like(reduced)
    else:
        block = active_block(factor, reduced.abs(), k)
        r = times(grad, factor.rows.mT)
        p = r.shape[-1]
        picked = r.gather(-1, block.index)
        weight = block.solve(picked)
        left = gram_times(factor, block.scatter(weight, p)).gather(-1, block.index)
        weight = block.scatter(weight + block.solve(picked - left), p)
    weight = torch.where(factor.norm > 0, weight / torch.where(factor.norm > 0, factor.norm, 1.0), 0.0)
    if not factor.equality.numel():
        return weight
    return scatter_rows(factor, weight, grad, rows, box)


def scatter_rows(factor: RowFactor, weight: Tensor, point: Tensor, rows: Tensor, box: bool) -> Tensor:
    """Weights of all rows from those of the kept rows: the eliminated ones explain the rest of `point`."""
    total = factor.equality.numel() + factor.inequality.numel()
    full = weight.new_zeros(weight.shape[0], total).index_copy_(-1, factor.inequality, weight)
    rest = point - transpose_times(full, rows, box)
    return full.index_copy_(-1, factor.equality, rest @ factor.pinv)
