"""Structure-preserving doubling, the iteration behind both Riccati equations; nothing here has derivatives.

`E ← E M E`, `G ← G + E M G Eᵀ`, `H ← H + Eᵀ H M E` with `M = (I + G H)⁻¹`; `H` tends to the stabilizing solution, and
the error is squared in every step. The discrete equation starts from its own matrices, the continuous one from a Cayley
transform of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from constrained_nn.solvers.equations.matrices import (
    Array,
    identity,
    is_traced,
    namespace,
    norm,
    solve,
    symmetric,
)

# A change of H below this is squared once more by the step that made it.
_SETTLED = 1e-9
_MAX_STEPS = 40
_FIXED_STEPS = 14
_BALANCING_SWEEPS = 8
# Shift of the Cayley transform in units of the norms: large enough to be far from the eigenvalues.
_SHIFT = 1.5


def doubling(E: Array, G: Array, H: Array) -> tuple[Array, Array]:
    """Limit of `H` `(batch, n, n)` and the steps it took `(batch)`, int32; NaN where it has none.

    Elements that have settled leave the batch; while tracing, 14 steps for all.
    """
    if is_traced(E):
        for _ in range(_FIXED_STEPS):
            E, G, H, _ = _step(E, G, H)
        return H, torch.full(H.shape[:-2], _FIXED_STEPS, dtype=torch.int32, device=H.device)
    xp = namespace(H)
    limit = xp.full_like(H, np.nan)
    steps = xp.full_like(H[:, 0, 0], _MAX_STEPS, dtype=xp.int32)
    index = torch.arange(len(H), device=H.device) if isinstance(H, Tensor) else np.arange(len(H))
    for k in range(1, _MAX_STEPS + 1):
        E, G, H, change = _step(E, G, H)
        settled = change <= _SETTLED
        gone = settled | ~(change < np.inf)
        if bool(gone.any()):
            limit[index[settled]] = H[settled]
            steps[index[gone]] = k
            stay = ~gone
            E, G, H, index = E[stay], G[stay], H[stay], index[stay]
            if not len(index):
                break
    return limit, steps


def _step(E: Array, G: Array, H: Array) -> tuple[Array, Array, Array, Array]:
    """One step, with the relative change of `H` (NaN where it is lost)."""
    xp, n = namespace(E), E.shape[-1]
    both = solve(identity(n, E) + G @ H, xp.concatenate([E, G], -1))
    ME, MG = both[..., :n], both[..., n:]
    change = symmetric(E.mT @ (H @ ME))
    G = G + symmetric(E @ MG @ E.mT)
    E, H = E @ ME, H + change
    size = norm(H)
    return E, G, H, norm(change) / xp.where(size > 0, size, 1.0)


def cayley_start(A: Array, S: Array, Q: Array) -> tuple[Array, Array, Array]:
    """`E, G, H` of the continuous equation `Aᵀ P + P A − P S P + Q = 0`.

    With a shift `γ > 0`, `F = A − γI` and `W = Fᵀ + Q F⁻¹ S`: `E = I + 2γ W⁻ᵀ`, `G = 2γ F⁻¹ S W⁻¹`,
    `H = 2γ W⁻¹ Q F⁻¹`.
    """
    xp, one = namespace(A), identity(A.shape[-1], A)
    shift = xp.maximum(norm(A), (norm(S) * norm(Q)) ** 0.5)
    shift = _SHIFT * xp.where(shift > 0, shift, 1.0)[..., None, None]
    every = one + 0.0 * A
    F = solve(A - shift * one, every)
    W = solve((A - shift * one).mT + Q @ F @ S, every)
    return one + 2.0 * shift * W.mT, 2.0 * shift * symmetric(F @ S @ W), 2.0 * shift * symmetric(W @ Q @ F)


def balancing(A: Array, S: Array, Q: Array) -> Array:
    """Powers of two `d` `(*batch, n)` such that with `x = diag(d) z` rows of `[A S]` weigh what columns of `[A; Q]` do.

    Osborne's balancing of the Hamiltonian matrix by a symplectic diagonal, all rows at once with half steps, from a
    common factor that gives `S` the size of `Q`.
    """
    xp = namespace(A)
    off = abs(A) * (1.0 - identity(A.shape[-1], A))
    S, Q = abs(S), abs(Q)
    s, q = xp.amax(S, (-2, -1)), xp.amax(Q, (-2, -1))
    common = (s > 0) & (q > 0)
    log_d = 0.25 * (xp.log2(xp.where(common, s, 1.0)) - xp.log2(xp.where(common, q, 1.0)))
    log_d = log_d[..., None] + xp.zeros_like(A[..., 0])
    for _ in range(_BALANCING_SWEEPS):
        d = xp.exp2(log_d)
        inside = off * d[..., None, :] / d[..., :, None]
        both = d[..., None, :] * d[..., :, None]
        row, column = (inside + S / both).sum(-1), (inside + Q * both).sum(-2)
        ratio = xp.where((row > 0) & (column > 0), row / column, 1.0)
        log_d = log_d + 0.25 * xp.log2(ratio)
    return xp.exp2(xp.round(xp.where(abs(log_d) < 200.0, log_d, 0.0)))
