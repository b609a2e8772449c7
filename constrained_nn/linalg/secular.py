"""Projection onto an ellipsoid: the secular equation of its multiplier."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.linalg.basics import branchless, matvec, rmatvec
from constrained_nn.linalg.symmetric import symmetric_eigh

# Newton's method on φ^(-1/2) from below is monotone and quadratic: measured, cond(P) = 1e4 needs at most 8 steps
# and 1e12 at most 15, over distances from 1e-6 to 1e300.
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
    outside = _outside(d, matvec(P, d), level)
    e = _nearest(
        rmatvec(Q, torch.where(outside, d, 0.0)),
        lambda v: matvec(B, v),
        lambda v: values * v,
        lambda nu, v: v / (1.0 + nu.unsqueeze(-1) * values),
        values.amax(-1),
        level,
    )
    return torch.where(outside, matvec(Q, e), d)


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

    largest = w.amax(-1) + F.square().sum((-2, -1))
    outside = _outside(d, apply(w, F, d.detach()), level)
    far = torch.where(outside, d, 0.0)
    e = _nearest(far, lambda v: apply(weights, factor, v), lambda v: apply(w, F, v), solve, largest, level)
    return torch.where(outside, e, d)


def _outside(d: Tensor, Qd: Tensor, level: Tensor) -> Tensor:
    """Where `dᵀ Q d > level`, or is `inf − inf`; as a column.

    Derivatives of the branch that is not taken must stay finite: it is computed from zeros in place of `d`.
    """
    return ~((d * Qd).sum(-1, keepdim=True).detach() <= level.detach().unsqueeze(-1))


def _nearest(d: Tensor, apply: Apply, plain: Apply, solve: Solve, largest: Tensor, level: Tensor) -> Tensor:
    """`e = (I + ν Q)⁻¹ d` with the `ν > 0` that puts `e` on the boundary, for `d` outside.

    `ν` is found without derivative; two Newton steps with fixed derivative on the two equations `(I + ν Q) e = d`,
    `eᵀ Q e = level`, in plain operations, carry the first and second derivatives in `d`, `Q` and `level`. All in a
    unit in which the level is about 1: the point may be as far away as its dtype holds.

    Args:
        d: Point `(*batch, n)`.
        apply: `v -> Q v`, with derivatives in `Q`.
        plain: The same without (the values of `Q` may then be those that `solve` uses).
        solve: `(ν, v) -> (I + ν Q)⁻¹ v`, without derivatives.
        largest: The largest eigenvalue of `Q` or a bound on it `(*batch)`, without derivatives.
        level: `(*batch)`.
    """
    fixed = level.detach()
    positive = torch.where(fixed > 0, fixed, 1.0)
    unit = torch.exp2((0.5 * positive.log2()).round())  # a power of two, which rounds nothing
    d, level = d / unit.unsqueeze(-1), level / unit / unit
    root = nu = _multiplier(d.detach(), plain, solve, largest, level.detach())
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
    return unit.unsqueeze(-1) * e


def _multiplier(d: Tensor, apply: Apply, solve: Solve, largest: Tensor, level: Tensor) -> Tensor:
    """Root `ν >= 0` of `φ(ν) = eᵀ Q e = level`, `e = (I + ν Q)⁻¹ d`.

    From `ν = (√(φ(0) / level) − 1) / largest`, where `φ >= level`, and where nothing overflows that would at `ν = 0`.
    """
    info = torch.finfo(level.dtype)
    peak = d.abs().amax(-1)
    peak = torch.where(peak > 0, peak, 1.0)
    direction = d / peak.unsqueeze(-1)
    size = peak * (direction * apply(direction)).sum(-1).sqrt()  # √φ(0)
    # an ellipsoid of one point: a level of zero keeps the multiplier finite
    goal = torch.where(level > 0, level, (0.01 * info.eps * size).square().clamp(info.tiny, info.max))
    nu = ((size / goal.sqrt() - 1.0) / torch.where(largest > 0, largest, 1.0)).clamp(0.0, info.max)
    may_stop = not branchless(d, level)
    for k in range(_MAX_STEPS):
        e = solve(nu, d)
        a = apply(e)
        phi = (e * a).sum(-1)
        if may_stop and k % 4 == 1 and not bool((phi > goal * (1.0 + 4 * info.eps)).any()):
            break
        slope = (a * solve(nu, a)).sum(-1)  # −φ'/2
        step = phi / torch.where(slope > 0, slope, 1.0) * ((phi / goal).sqrt() - 1.0)
        nu = nu + torch.where((phi > goal) & (slope > 0), step, 0.0)
    return nu
