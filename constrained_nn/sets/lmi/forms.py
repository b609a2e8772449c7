"""The inequalities of control in factored form: each is `constant + left V right + (left V right)ᵀ + scalars`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.linalg import MatrixMap
from constrained_nn.sets.lmi.shapes import check_shapes, check_symmetric


def dense(F0: Float[Tensor, "*#batch n n"], F: Float[Tensor, "*#batch m n n"]) -> MatrixMap:
    """`F0 + Σ zⱼ Fⱼ`."""
    check_shapes("dense", F0=(F0, "n n"), F=(F, "m n n"))
    check_symmetric("LMI.dense", F0=F0, F=F)
    n = F0.shape[-1]
    return MatrixMap(F0, F0.new_zeros(n, 0), F0.new_zeros(0, n), F)


def floor(right: Tensor, value: float | Tensor, *, rows: int, scalars: int) -> MatrixMap:
    """`S − value I` on the variables of a block with this `right`, `rows` rows of `Y` and `scalars`."""
    p = right.shape[-2]
    eye = torch.eye(p, dtype=right.dtype, device=right.device)
    left = torch.cat([0.5 * eye, right.new_zeros(p, rows)], -1)
    return MatrixMap(-_column(value, eye) * eye, left, eye, right.new_zeros(scalars, p, p))


def lyapunov(A: Float[Tensor, "*#batch n n"], rate: float | Tensor) -> MatrixMap:
    """`−(Aᵀ P + P A + 2 rate P)`."""
    check_shapes("lyapunov", A=(A, "n n"))
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return _plain(torch.zeros_like(A), -eye, A + _column(rate, A) * eye)


def invariant(
    A: Float[Tensor, "*#batch n n"], B: Float[Tensor, "*#batch n k"], multiplier: float | Tensor
) -> MatrixMap:
    """`−[[Aᵀ P + P A + α P, P B], [Bᵀ P, −α I]]`, from `−[I; 0] P [A + α/2 I, B]` and its transpose."""
    check_shapes("invariant_ellipsoid", A=(A, "n n"), B=(B, "n k"))
    n, k = B.shape[-2:]
    alpha = _column(multiplier, A)
    eye = torch.eye(n, dtype=A.dtype, device=A.device)
    corner = torch.block_diag(A.new_zeros(n, n), torch.eye(k, dtype=A.dtype, device=A.device))
    return _plain(alpha * corner, -_lifted(eye, k), _beside(A + 0.5 * alpha * eye, B))


def bounded_real(A: Tensor, B: Tensor, C: Tensor, D: Tensor, gain: float | None) -> MatrixMap:
    """`−[[Aᵀ P + P A + Cᵀ C, P B + Cᵀ D], [·, Dᵀ D − γ² I]]`; `γ²` is a scalar variable where `gain` is None."""
    check_shapes("bounded_real", A=(A, "n n"), B=(B, "n k"), C=(C, "l n"), D=(D, "l k"))
    n, k = B.shape[-2:]
    eye = torch.eye(n, dtype=A.dtype, device=A.device)
    corner = torch.block_diag(A.new_zeros(n, n), torch.eye(k, dtype=A.dtype, device=A.device))
    output = _beside(C, D)
    constant = -(output.transpose(-2, -1) @ output)
    slopes = A.new_zeros(0, n + k, n + k) if gain is not None else corner.unsqueeze(-3)
    constant = constant if gain is None else constant + gain**2 * corner
    return MatrixMap(constant, -_lifted(eye, k), _beside(A, B), slopes)


def passivity(A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> MatrixMap:
    """`−[[Aᵀ P + P A, P B − Cᵀ], [·, −(D + Dᵀ)]]`."""
    check_shapes("passivity", A=(A, "n n"), B=(B, "n k"), C=(C, "k n"), D=(D, "k k"))
    n, k = B.shape[-2:]
    eye = torch.eye(n, dtype=A.dtype, device=A.device)
    top = _beside(torch.zeros_like(A), C.transpose(-2, -1))
    bottom = _beside(C, D + D.transpose(-2, -1))
    batch = torch.broadcast_shapes(top.shape[:-2], bottom.shape[:-2])
    constant = torch.cat([t.expand(*batch, *t.shape[-2:]) for t in (top, bottom)], -2)
    return _plain(constant, -_lifted(eye, k), _beside(A, B))


def state_feedback(A: Tensor, B: Tensor, rate: float | Tensor, disturbance: Tensor | None) -> MatrixMap:
    """`−[[A Q + Q Aᵀ + B Y + Yᵀ Bᵀ + α Q, G], [Gᵀ, −α I]]`, from `−[A + α/2 I, B; 0] [Q; Y] [I, 0]`."""
    shapes = {"A": (A, "n n"), "B": (B, "n k")}
    check_shapes(
        "state_feedback", **shapes | ({} if disturbance is None else {"disturbance": (disturbance, "n l")})
    )
    n = A.shape[-1]
    alpha = _column(rate, A)
    eye = torch.eye(n, dtype=A.dtype, device=A.device)
    system = _beside(A + 0.5 * alpha * eye, B)
    if disturbance is None:
        return _plain(A.new_zeros(n, n), -system, eye)
    k = disturbance.shape[-1]
    corner = torch.block_diag(A.new_zeros(n, n), torch.eye(k, dtype=A.dtype, device=A.device))
    pad = torch.nn.functional.pad
    coupling = pad(disturbance, (n, 0, 0, k))
    constant = alpha * corner - coupling - coupling.transpose(-2, -1)
    return _plain(constant, -pad(system, (0, 0, 0, k)), _lifted(eye, k).transpose(-2, -1))


def _plain(constant: Tensor, left: Tensor, right: Tensor) -> MatrixMap:
    n = constant.shape[-1]
    return MatrixMap(constant, left, right, constant.new_zeros(0, n, n))


def _column(value: float | Tensor, like: Tensor) -> Tensor:
    """A number for each element, ready to multiply matrices."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)[..., None, None]


def _lifted(eye: Tensor, k: int) -> Tensor:
    """`[I; 0]` with `k` rows of zeros."""
    return torch.nn.functional.pad(eye, (0, 0, 0, k))


def _beside(first: Tensor, second: Tensor) -> Tensor:
    """`[first, second]`, batches broadcast."""
    batch = torch.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    return torch.cat([t.expand(*batch, *t.shape[-2:]) for t in (first, second)], -1)
