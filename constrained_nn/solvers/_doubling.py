"""Structure-preserving doubling, the iteration behind both Riccati equations; nothing here has derivatives.

`E ← E M E`, `G ← G + E M G Eᵀ`, `H ← H + Eᵀ H M E` with `M = (I + G H)⁻¹`; `H` tends to the stabilizing solution, and
the error is squared in every step. The discrete equation starts from its own matrices, the continuous one from a Cayley
transform of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from constrained_nn._linalg import branchless

# A change of H below this is squared once more by the step that made it.
_SETTLED = 1e-9
_MAX_STEPS = 40
_FIXED_STEPS = 14
_BALANCING_SWEEPS = 8
# Shift of the Cayley transform in units of the norms: large enough to be far from the eigenvalues.
_SHIFT = 1.5


def doubling(E: Tensor, G: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
    """Limit of `H` `(*batch, n, n)` and the steps it took `(*batch)`, int32; NaN where it has none.

    Elements that have settled leave the batch (which then has one dimension); while tracing, 14 steps for all.
    """
    if branchless(E):
        for _ in range(_FIXED_STEPS):
            E, G, H, _ = _step(E, G, H)
        return H, torch.full(H.shape[:-2], _FIXED_STEPS, dtype=torch.int32, device=H.device)
    limit = torch.full_like(H, torch.nan)
    steps = torch.full(H.shape[:1], _MAX_STEPS, dtype=torch.int32, device=H.device)
    index = torch.arange(len(H), device=H.device)
    for k in range(1, _MAX_STEPS + 1):
        E, G, H, change = _step(E, G, H)
        settled = change <= _SETTLED
        gone = settled | ~(change < torch.inf)
        if bool(gone.any()):
            done = index[settled]
            limit[done] = H[settled]
            steps[index[gone]] = k
            stay = ~gone
            E, G, H, index = E[stay], G[stay], H[stay], index[stay]
            if not len(index):
                break
    return limit, steps


def _step(E: Tensor, G: Tensor, H: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step, with the relative change of `H` (NaN where it is lost)."""
    n = E.shape[-1]
    one = torch.eye(n, dtype=E.dtype, device=E.device)
    ME, MG = torch.linalg.solve_ex(one + G @ H, torch.cat([E, G], -1))[0].split(n, -1)
    change = E.mT @ (H @ ME)
    change = 0.5 * (change + change.mT)
    growth = E @ MG @ E.mT
    E, G, H = E @ ME, G + 0.5 * (growth + growth.mT), H + change
    size = torch.linalg.vector_norm(H, dim=(-2, -1))
    ratio = torch.linalg.vector_norm(change, dim=(-2, -1)) / torch.where(size > 0, size, 1.0)
    return E, G, H, ratio


def cayley_start(A: Tensor, S: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`E, G, H` of the continuous equation `Aᵀ P + P A − P S P + Q = 0`.

    With a shift `γ > 0`, `F = A − γI` and `W = Fᵀ + Q F⁻¹ S`: `E = I + 2γ W⁻ᵀ`, `G = 2γ F⁻¹ S W⁻¹`,
    `H = 2γ W⁻¹ Q F⁻¹`.
    """
    one = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)

    def size(M: Tensor) -> Tensor:
        return torch.linalg.vector_norm(M, dim=(-2, -1))

    shift = torch.maximum(size(A), (size(S) * size(Q)).sqrt())
    shift = _SHIFT * torch.where(shift > 0, shift, 1.0)[..., None, None]
    F = torch.linalg.inv_ex(A - shift * one)[0]
    W = torch.linalg.inv_ex((A - shift * one).mT + Q @ F @ S)[0]
    G, H = F @ S @ W, W @ Q @ F
    return one + 2.0 * shift * W.mT, shift * (G + G.mT), shift * (H + H.mT)


def balancing(A: Tensor, S: Tensor, Q: Tensor) -> Tensor:
    """Powers of two `d` `(*batch, n)` such that with `x = diag(d) z` rows of `[A S]` weigh what columns of `[A; Q]` do.

    Osborne's balancing of the Hamiltonian matrix by a symplectic diagonal, all rows at once with half steps.
    """
    off = A.square() * (1.0 - torch.eye(A.shape[-1], dtype=A.dtype, device=A.device))
    S, Q = S.square(), Q.square()
    log_d = torch.zeros_like(A[..., 0])
    for _ in range(_BALANCING_SWEEPS):
        d2 = torch.exp2(2.0 * log_d)
        inside = off * d2.unsqueeze(-2) / d2.unsqueeze(-1)
        both = d2.unsqueeze(-2) * d2.unsqueeze(-1)
        row, column = (inside + S / both).sum(-1), (inside + Q * both).sum(-2)
        ratio = torch.where((row > 0) & (column > 0), row / column, 1.0)
        log_d = log_d + 0.125 * torch.log2(ratio)
    return torch.exp2(torch.where(log_d.abs() < 100.0, log_d, 0.0).round())
