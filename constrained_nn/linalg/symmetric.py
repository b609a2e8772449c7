"""Symmetric matrices over a batch: eigenvalues, projection onto the semidefinite cone, svec coordinates."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def _guarded(S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Symmetric part scaled to entries of at most 1, its scale, and which elements are finite (others become 0).

    LAPACK raises for the whole batch when one element is not finite.
    """
    S = 0.5 * (S + S.transpose(-2, -1))
    size = S.detach().abs().amax((-2, -1), keepdim=True)
    healthy = size < torch.inf  # False for NaN
    scale = torch.where(healthy & (size > 0), size, 1.0)
    return torch.where(healthy, S, 0.0) / scale, scale.squeeze(-1), healthy.squeeze(-1)


def symmetric_eigh(
    S: Float[Tensor, "*batch n n"],
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n n"]]:
    """Eigenvalues (ascending) and eigenvectors, without derivative; elements that are not finite give NaN, I.

    Closed form for `n <= 2`; the closed form's eigenvectors are as accurate as LAPACK's.
    """
    unit, scale, healthy = _guarded(S.detach())
    n = S.shape[-1]
    if n == 1:
        values, vectors = unit[..., 0], torch.ones_like(unit)
    elif n == 2:
        a, b, d = unit[..., 0, 0], unit[..., 0, 1], unit[..., 1, 1]
        mean, half, radius = 0.5 * (a + d), 0.5 * (a - d), torch.hypot(0.5 * (a - d), b)
        angle = 0.5 * torch.atan2(b, half)  # of the eigenvector of the larger eigenvalue
        cos, sin = angle.cos(), angle.sin()
        values = torch.stack([mean - radius, mean + radius], -1)
        vectors = torch.stack([torch.stack([-sin, cos], -1), torch.stack([cos, sin], -1)], -1)
    else:
        values, vectors = torch.linalg.eigh(unit)
    return torch.where(healthy, values * scale, torch.nan), vectors


def symmetric_eigenvalues(S: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n"]:
    """Eigenvalues (ascending) with derivative `uᵢᵀ dS uᵢ`; at a repeated one, that of the vectors found."""
    values, U = symmetric_eigh(S)
    change = 0.5 * (S + S.transpose(-2, -1))
    change = (U * ((change - change.detach()).nan_to_num(0.0, 0.0, 0.0) @ U)).sum(-2)
    return values + change


def psd_project(S: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Nearest positive semidefinite matrix in the Frobenius norm.

    The answer `X` solves `X² = (X S + S X) / 2` on the eigenvectors of `S`, where the derivative of that equation
    is diagonal: entry `ij` is `(|sᵢ| + |sⱼ|) / 2`. Two Newton steps with that fixed derivative, in plain operations
    from the exact solution, carry its first and second derivatives (each step adds one order), in any
    transform and at repeated eigenvalues. Where two eigenvalues vanish together the derivative is that of the
    outside (0). An element that is not finite becomes NaN.
    """
    unit, scale, healthy = _guarded(S)
    s, U = symmetric_eigh(unit)
    X = torch.diag_embed(s.clamp_min(0.0))
    B = U.transpose(-2, -1) @ unit @ U
    pair = s.abs().unsqueeze(-1) + s.abs().unsqueeze(-2)
    floor = s.shape[-1] * torch.finfo(s.dtype).eps * s.abs().amax(-1)[..., None, None]
    inverse = torch.where(pair > floor, 2.0 / torch.where(pair > floor, pair, 1.0), 0.0)
    for _ in range(2):
        XB = X @ B
        X = X - inverse * (X @ X - 0.5 * (XB + XB.transpose(-2, -1)))
    X = U @ X @ U.transpose(-2, -1)
    X = 0.5 * (X + X.transpose(-2, -1)) * scale.unsqueeze(-1)
    return torch.where(healthy.unsqueeze(-1), X, torch.nan)


def svec(S: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch k"]:
    """Upper triangle by rows, off-diagonal entries times √2, so that `⟨svec S, svec T⟩ = tr(S T)`."""
    n = S.shape[-1]
    i, j = torch.triu_indices(n, n, device=S.device)
    scale = torch.full((i.shape[0],), math.sqrt(2.0), dtype=S.dtype, device=S.device)
    return S[..., i, j] * torch.where(i == j, 1.0, scale)


def smat(v: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch n n"]:
    """Symmetric matrix of an `svec` vector of length `k = n (n + 1) / 2`."""
    n = (math.isqrt(8 * v.shape[-1] + 1) - 1) // 2
    order = torch.arange(n, device=v.device)
    i, j = torch.minimum(order, order[:, None]), torch.maximum(order, order[:, None])
    scale = torch.full((n, n), math.sqrt(0.5), dtype=v.dtype, device=v.device)
    entries = v.index_select(-1, (i * n - i * (i + 1) // 2 + j).flatten()).unflatten(-1, (n, n))
    return entries * torch.where(i == j, 1.0, scale)
