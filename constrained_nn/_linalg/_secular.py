"""Projection onto an ellipsoid: the secular equation of its multiplier."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn._linalg._basics import branchless, matvec, rmatvec
from constrained_nn._linalg._symmetric import symmetric_eigh

# Newton's method on φ^(-1/2) from below is monotone and quadratic: measured, cond(P) = 1e4 needs at most 10 steps
# and 1e12 at most 15, over distances from 1e-1 to 1e6.
_MAX_STEPS = 20

Apply = Callable[[Tensor], Tensor]
Solve = Callable[[Tensor, Tensor], Tensor]


def project_ellipsoid(
    d: Float[Tensor, "*#batch n"], P: Float[Tensor, "*#batch n n"], level: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch n"]:
    """Nearest point of `{e : eᵀ P e <= level}` to `d`, for `P` positive semidefinite and `level >= 0`.

    In the eigenbasis of `P`, without a derivative of the basis.
    """
    P = 0.5 * (P + P.transpose(-2, -1))
    values, Q = symmetric_eigh(P)
    values = values.clamp_min(0.0)
    B = Q.transpose(-2, -1) @ P @ Q
    e = _nearest(
        rmatvec(Q, d),
        lambda v: matvec(B, v),
        lambda v: values * v,
        lambda nu, v: v / (1.0 + nu.unsqueeze(-1) * values),
        level,
    )
    outside = (d * matvec(P, d)).sum(-1).detach() > level.detach()
    # derivatives of the branch that is not taken must stay finite, so it is computed from harmless numbers
    return torch.where(outside.unsqueeze(-1), matvec(Q, e), d)


def project_weighted(
    d: Float[Tensor, "*#batch n"],
    weights: Float[Tensor, "*#batch n"],
    factor: Float[Tensor, "*#batch n r"],
    level: Float[Tensor, "*#batch"],
) -> Float[Tensor, "*batch n"]:
    """Nearest point of `{e : eᵀ Q e <= level}` to `d`, `Q = diag(weights) + factor factorᵀ`, never built.

    `(I + ν Q)⁻¹` by `H = 1/(1 + ν weights)` and a Cholesky factor of `I + ν factorᵀ H factor`.
    """
    rank = factor.shape[-1]
    w, F = weights.detach(), factor.detach()
    eye = torch.eye(rank, dtype=d.dtype, device=d.device)

    def apply(weights: Tensor, factor: Tensor, v: Tensor) -> Tensor:
        Qv = weights * v
        return Qv + matvec(factor, rmatvec(factor, v)) if rank else Qv

    def solve(nu: Tensor, v: Tensor) -> Tensor:
        nu = nu.unsqueeze(-1)
        h = 1.0 / (1.0 + nu * w)
        x = h * v
        if rank == 0:
            return x
        HF = h.unsqueeze(-1) * F
        small = torch.linalg.cholesky_ex(eye + nu.unsqueeze(-1) * (F.mT @ HF)).L
        inner = torch.cholesky_solve(rmatvec(F, x).unsqueeze(-1), small)
        return x - nu * matvec(HF, inner.squeeze(-1))

    e = _nearest(d, lambda v: apply(weights, factor, v), lambda v: apply(w, F, v), solve, level)
    plain = d.detach()
    outside = (plain * apply(w, F, plain)).sum(-1) > level.detach()
    return torch.where(outside.unsqueeze(-1), e, d)


def _nearest(d: Tensor, apply: Apply, plain: Apply, solve: Solve, level: Tensor) -> Tensor:
    """`e = (I + ν Q)⁻¹ d` with the `ν > 0` that puts `e` on the boundary, for `d` outside.

    `ν` is found without derivative; two Newton steps with fixed derivative on the two equations `(I + ν Q) e = d`,
    `eᵀ Q e = level`, in plain operations, carry the first and second derivatives in `d`, `Q` and `level`.

    Args:
        d: Point `(*batch, n)`.
        apply: `v -> Q v`, with derivatives in `Q`.
        plain: The same without (the values of `Q` may then be those that `solve` uses).
        solve: `(ν, v) -> (I + ν Q)⁻¹ v`, without derivatives.
        level: `(*batch)`.
    """
    root = nu = _multiplier(d.detach(), plain, solve, level.detach())
    e = solve(root, d.detach())
    a = plain(e)
    Ha = solve(root, a)
    curvature = (a * Ha).sum(-1)
    curvature = torch.where(curvature > 0, curvature, 1.0)
    for _ in range(2):
        Qe = apply(e)
        off = d - e - nu.unsqueeze(-1) * Qe
        gap = 0.5 * (level - (e * Qe).sum(-1))
        step = ((Ha * off).sum(-1) - gap) / curvature
        e = e + solve(root, off - a * step.unsqueeze(-1))
        nu = nu + step
    return e


def _multiplier(d: Tensor, apply: Apply, solve: Solve, level: Tensor) -> Tensor:
    """Root `ν >= 0` of `φ(ν) = eᵀ Q e = level`, `e = (I + ν Q)⁻¹ d`."""
    rounding = 4 * torch.finfo(level.dtype).eps
    start = (d * apply(d)).sum(-1)
    # an ellipsoid of one point: a level that is zero to rounding keeps the multiplier finite
    goal = torch.maximum(level, (0.01 * torch.finfo(level.dtype).eps) ** 2 * start)
    goal = torch.where(goal > 0, goal, 1.0)
    nu = torch.zeros_like(start + goal)
    may_stop = not branchless(d, level)
    for k in range(_MAX_STEPS):
        e = solve(nu, d)
        a = apply(e)
        phi = (e * a).sum(-1)
        if may_stop and k % 4 == 1 and not bool((phi > goal * (1.0 + rounding)).any()):
            break
        slope = (a * solve(nu, a)).sum(-1)  # −φ'/2
        step = phi / torch.where(slope > 0, slope, 1.0) * ((phi / goal).sqrt() - 1.0)
        nu = nu + torch.where((phi > goal) & (slope > 0), step, 0.0)
    return nu
