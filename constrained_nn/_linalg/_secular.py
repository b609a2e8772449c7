"""Projection onto an ellipsoid: the secular equation in the eigenbasis of its matrix."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn._linalg._basics import branchless, matvec, rmatvec
from constrained_nn._linalg._symmetric import symmetric_eigh

# Newton's method on φ^(-1/2) from below is monotone and quadratic: measured, cond(P) = 1e4 needs at most 10 steps
# and 1e12 at most 15, over distances from 1e-1 to 1e6.
_MAX_STEPS = 20


def project_ellipsoid(
    d: Float[Tensor, "*#batch n"], P: Float[Tensor, "*#batch n n"], level: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch n"]:
    """Nearest point of `{e : eᵀ P e <= level}` to `d`, for `P` positive semidefinite and `level >= 0`.

    Outside, `e = (I + ν P)⁻¹ d` with the multiplier `ν > 0` that puts `e` on the boundary. `ν` is found in the
    eigenbasis of `P`; two Newton steps with fixed derivative on the two equations `(I + ν P) e = d`,
    `eᵀ P e = level`, in plain operations, carry the first and second derivatives in `d`, `P` and `level`.
    """
    batch = torch.broadcast_shapes(d.shape[:-1], P.shape[:-2], level.shape)
    P = 0.5 * (P + P.transpose(-2, -1))
    values, Q = symmetric_eigh(P)
    values = values.clamp_min(0.0)
    d_hat = rmatvec(Q, d)
    found = d_hat.detach()
    outside = (values * found.square()).sum(-1) > level.detach()
    nu = _multiplier(found, values, level.detach())
    h = 1.0 / (1.0 + nu.unsqueeze(-1) * values)
    e = h * found
    a = values * e
    curvature = (a * h * a).sum(-1)
    curvature = torch.where(curvature > 0, curvature, 1.0)
    B = Q.transpose(-2, -1) @ P @ Q
    for _ in range(2):
        Be = matvec(B, e)
        off = d_hat - e - nu.unsqueeze(-1) * Be
        gap = 0.5 * (level - (e * Be).sum(-1))
        step = ((a * h * off).sum(-1) - gap) / curvature
        e = e + h * (off - a * step.unsqueeze(-1))
        nu = nu + step
    # derivatives of the branch that is not taken must stay finite, so it is computed from harmless numbers
    return torch.where(outside.expand(batch).unsqueeze(-1), matvec(Q, e), d)


def _multiplier(d: Tensor, values: Tensor, level: Tensor) -> Tensor:
    """Root `ν >= 0` of `φ(ν) = Σ λᵢ dᵢ² / (1 + ν λᵢ)² = level`, without derivative."""
    rounding = 4 * torch.finfo(level.dtype).eps
    weight = values * d.square()
    # an ellipsoid of one point: a level that is zero to rounding keeps the multiplier finite
    goal = torch.maximum(level, (0.01 * torch.finfo(level.dtype).eps) ** 2 * weight.sum(-1))
    goal = torch.where(goal > 0, goal, 1.0)
    nu = torch.zeros_like(weight[..., 0] + goal)
    may_stop = not branchless(d, values, level)
    for k in range(_MAX_STEPS):
        h = 1.0 / (1.0 + nu.unsqueeze(-1) * values)
        phi = (weight * h * h).sum(-1)
        if may_stop and k % 4 == 1 and not bool((phi > goal * (1.0 + rounding)).any()):
            break
        slope = (weight * values * h * h * h).sum(-1)  # −φ'/2
        step = phi / torch.where(slope > 0, slope, 1.0) * ((phi / goal).sqrt() - 1.0)
        nu = nu + torch.where((phi > goal) & (slope > 0), step, 0.0)
    return nu
