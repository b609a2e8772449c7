"""Smoothed derivatives of a projection onto a polyhedron; its value stays exact.

With unit rows `a`, `x = y − Aᵀλ` and `v = A x + λ`, the optimality conditions say `λ = (v − upper)₊ − (lower − v)₊`.
The smoothed derivatives are those of the solution of

    λ = s(v − upper) − s(lower − v) + r,    s(t) = (t + √(t² + 4 width²)) / 2,

where the constant `r` makes it hold at the exact solution. The derivative in `y` is `(I + AᵀWA)⁻¹` with
`W = (1 − θ) / θ`, `θ = 1 − s'(v − upper) − s'(lower − v)`.

References:
    Chen and Mangasarian, A class of smoothing functions for nonlinear and mixed complementarity problems (1996);
    Gabriel and Moré, Smoothing of mixed complementarity problems (1997), for two-sided rows.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn.linalg import matvec, rmatvec, safe_norm
from constrained_nn.solvers.polyhedron.splitting_rows import with_identity

# Least share of an active row that stays free: keeps the system of dependent rows regular.
_FREE = 1e-12


def with_smoothed_derivative(
    value: Float[Tensor, "*batch n"],
    multiplier: Float[Tensor, "*batch m"],
    ok: Bool[Tensor, "*batch"],
    y: Float[Tensor, "*#batch n"],
    A: Float[Tensor, "*#batch m n"],
    lower: Float[Tensor, "*#batch m"],
    upper: Float[Tensor, "*#batch m"],
    box: tuple[Tensor, Tensor] | None,
    width: float,
) -> Float[Tensor, "*batch n"]:
    """The projection `value` bit for bit, with smoothed derivatives in float64; zero where not `ok`.

    Two Newton steps with a fixed matrix from the solution carry its derivatives up to the second.
    """
    wide = torch.float64
    batch, n = value.shape[:-1], value.shape[-1]
    each = ok.unsqueeze(-1)
    y = torch.where(each, y.to(wide), 0.0)
    A = A.to(wide)
    A = torch.where(A.isfinite() if A.ndim == 2 else each.unsqueeze(-1), A, 0.0)
    multiplier = torch.where(each, multiplier.to(wide), 0.0)
    if box is not None:
        lower, upper = (
            torch.cat([rows.expand(*batch, -1), sides.expand(*batch, n)], -1)
            for rows, sides in ((lower, box[0]), (upper, box[1]))
        )
        rest = y.detach() - torch.where(each, value.to(wide), 0.0) - rmatvec(A.detach(), multiplier)
        multiplier = torch.cat([multiplier, rest], -1)
        A = with_identity(A)
    norm = safe_norm(A)
    there = norm > 0
    norm = torch.where(there, norm, 1.0)
    rows = A / norm.unsqueeze(-1)
    has_lower, has_upper = (each & there & side.isfinite() for side in (lower, upper))
    lower = torch.where(has_lower, lower.to(wide), 0.0) / norm
    upper = torch.where(has_upper, upper.to(wide), 0.0) / norm

    def residual(multiplier: Tensor) -> Tensor:
        v = matvec(rows, y - rmatvec(rows, multiplier)) + multiplier
        above = torch.where(has_upper, _soft(v - upper, width), 0.0)
        below = torch.where(has_lower, _soft(lower - v, width), 0.0)
        return above - below - multiplier

    multiplier = (multiplier * norm).detach()
    with torch.no_grad():
        fixed = rows.detach()
        v = matvec(fixed, y.detach() - rmatvec(fixed, multiplier)) + multiplier
        above = torch.where(has_upper, _share(v - upper.detach(), width), 0.0)
        below = torch.where(has_lower, _share(lower.detach() - v, width), 0.0)
        held = (above + below).clamp_max(1.0)
        root = held.sqrt()
        inverse_root = torch.where(held > 0, 1.0 / torch.where(held > 0, root, 1.0), 0.0)
        system = root.unsqueeze(-1) * (fixed @ fixed.mT) * root.unsqueeze(-2)
        system = system + torch.diag_embed((1.0 - held).clamp_min(_FREE))
        factor, _ = torch.linalg.cholesky_ex(system)
    constant = residual(multiplier).detach()
    for _ in range(2):
        right = inverse_root * (residual(multiplier) - constant)
        step = torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)
        multiplier = multiplier + root * step
    x = y - rmatvec(rows, multiplier)
    return value.detach() + (x - x.detach()).to(value.dtype)


def _soft(t: Tensor, width: float) -> Tensor:
    """`s(t)`, to rounding for negative `t` too."""
    root = (t * t + 4.0 * width**2).sqrt()
    return torch.where(t > 0, 0.5 * (t + root), 2.0 * width**2 / (root - torch.where(t > 0, 0.0, t)))


def _share(t: Tensor, width: float) -> Tensor:
    """`s'(t)`, between 0 and 1."""
    return _soft(t, width) / (t * t + 4.0 * width**2).sqrt()
