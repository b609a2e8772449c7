"""Thin QR and minimum-norm solve, batched, with proved derivatives.

Every function takes `(*batch, ...)`, synchronises nothing, and raises nothing for a singular element:
a row that depends on the rows above it is left out of the factor and reported in `independent`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn.linalg.basics import branchless, matvec, outer_sum_to, recording, rmatvec, safe_norm

# Matrices up to this size are factored by plain arithmetic on components: in a graph, on a GPU, and for more than so
# many of them. LAPACK goes through them one by one: two rows of four take it 6 µs for one element, 65 for 256 and 250
# for 1,000, where arithmetic on components takes 135, 160 and 200.
_UNROLLED_ROWS = 3
_UNROLLED_COLUMNS = 4
_FEW = 256


def default_rank_rtol(dtype: torch.dtype) -> float:
    """Sine of the angle to the span of the rows above, under which a row counts as dependent."""
    return 1e3 * torch.finfo(dtype).eps


class ThinQR(NamedTuple):
    """`Aᵀ = Q R` with dependent rows left out (their column of `Q` is 0, their diagonal of `R` is 1)."""

    Q: Float[Tensor, "*batch n m"]
    R: Float[Tensor, "*batch m m"]
    independent: Bool[Tensor, "*batch m"]


def thin_qr(A: Float[Tensor, "*batch m n"], *, rank_rtol: float | None = None) -> ThinQR:
    """QR of `Aᵀ` for `m` rows in `n` dimensions.

    QR of `Aᵀ` and not Cholesky of `A Aᵀ`: the latter squares the condition number and loses half the digits.
    Row `j` is dependent when its distance to the span of rows `0..j-1` is at most `rank_rtol` times its norm. With
    dependent rows among more than three, only rows above the first one are sure to be judged right while tracing
    (compile, `torch.func`); elsewhere all are.
    """
    m, n = A.shape[-2:]
    rtol = default_rank_rtol(A.dtype) if rank_rtol is None else rank_rtol
    by_components = m == 1 or _is_small(A)
    if by_components and not _are_few(math.prod(A.shape[:-2]), A):
        return _by_components(A, rtol)
    # With m > n the trailing rows are dependent by counting; pad with zero columns to keep one shape.
    At = A.mT if m <= n else torch.cat([A.mT, A.new_zeros(*A.shape[:-2], m - n, m)], dim=-2)
    Q, R = torch.linalg.qr(At)
    diagonal = R.diagonal(dim1=-2, dim2=-1).abs()
    # of a single row no length is computed, whose square may overflow
    independent = diagonal > (rtol * torch.linalg.vector_norm(A, dim=-1) if m > 1 else 0.0)
    if not branchless(A):
        if bool(independent.all()):
            return ThinQR(Q[..., :n, :], R, independent)
        # Householder fills a dependent row's column at will, and misjudges later rows
        return _by_components(A, rtol) if by_components else _row_by_row(A, rtol)
    keep = independent.unsqueeze(-2)
    R = torch.where(keep & keep.mT, R, torch.eye(m, dtype=A.dtype, device=A.device))
    return ThinQR(torch.where(keep, Q[..., :n, :], 0.0), R, independent)


def _is_small(A: Tensor) -> bool:
    return A.shape[-2] <= _UNROLLED_ROWS and A.shape[-1] <= _UNROLLED_COLUMNS


def _is_ordinary(norm: Tensor) -> bool:
    """Whether no length is 0, NaN, or so far from 1 that squares overflow or vanish."""
    if not norm.numel():
        return False
    info = torch.finfo(norm.dtype)
    least, largest = (float(t) for t in norm.aminmax())
    return info.tiny**0.5 / info.eps < least and largest < 0.5 * info.max**0.5


def _are_few(count: int, t: Tensor) -> bool:
    """Whether LAPACK, which takes one matrix after another, is done with so many of them sooner than arithmetic."""
    return count <= _FEW and t.device.type == "cpu" and not branchless(t)


def _by_components(A: Tensor, rtol: float) -> ThinQR:
    return _one_row(A) if A.shape[-2] == 1 else _gram_schmidt(A, rtol)


def _one_row(A: Tensor) -> ThinQR:
    norm = torch.linalg.vector_norm(A, dim=-1, keepdim=True)
    if branchless(A) or not _is_ordinary(norm):
        norm = safe_norm(A).unsqueeze(-1)
    ok = norm > 0
    R = torch.where(ok, norm, 1.0)
    return ThinQR((A / R * ok).mT, R, ok.squeeze(-1))


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    total = a[0] * b[0]
    for p, q in zip(a[1:], b[1:], strict=True):
        total = total + p * q
    return total


def _gram_schmidt(A: Tensor, rtol: float) -> ThinQR:
    """Classical Gram-Schmidt by components, applied twice ("twice is enough" for orthogonality)."""
    m = A.shape[-2]
    columns: list[list[Tensor]] = []
    R: list[list[Tensor]] = []
    independent: list[Tensor] = []
    zero, one = A.new_zeros(A.shape[:-2]), A.new_ones(())
    for row in A.unbind(-2):
        v = row.unbind(-1)
        j = len(columns)
        entries = [zero] * m
        for _ in range(2 if j else 0):
            projections = [_dot(q, v) for q in columns]
            for i, (q, c) in enumerate(zip(columns, projections, strict=True)):
                v = [vk - c * qk for vk, qk in zip(v, q, strict=True)]
                entries[i] = entries[i] + c
        norm = _dot(v, v).sqrt()
        # |a|² = |v|² + Σ entries², so for a small rtol this is norm > rtol |a|
        ok = norm > (sum((e.abs() for e in entries[1:j]), entries[0].abs()) * rtol if j else 0.0)
        entries[j] = torch.where(ok, norm, one)
        columns.append([vk * (ok / entries[j]) for vk in v] if j else [vk / entries[j] for vk in v])
        R.append(entries)
        independent.append(ok)
    return ThinQR(_stack_columns(columns), _stack_columns(R), torch.stack(independent, -1))


def _row_by_row(A: Tensor, rtol: float) -> ThinQR:
    """Gram-Schmidt, applied twice, for any number of rows: one batched product a row."""
    m, n = A.shape[-2:]
    Q = A.new_zeros(*A.shape[:-2], n, m)
    R = torch.eye(m, dtype=A.dtype, device=A.device).expand(*A.shape[:-2], m, m).clone()
    independent = torch.zeros(A.shape[:-1], dtype=torch.bool, device=A.device)
    for j in range(m):
        v = A[..., j, :]
        above = Q[..., :j].clone()
        for _ in range(2 if j else 0):
            c = rmatvec(above, v)
            v = v - matvec(above, c)
            R[..., :j, j] += c
        norm = torch.linalg.vector_norm(v, dim=-1)
        ok = norm > rtol * torch.linalg.vector_norm(A[..., j, :], dim=-1)
        safe = torch.where(ok, norm, 1.0)
        Q[..., j] = v * (ok / safe).unsqueeze(-1)
        R[..., j, j] = safe
        independent[..., j] = ok
    return ThinQR(Q, R, independent)


def _stack_columns(columns: list[list[Tensor]]) -> Tensor:
    k = len(columns[0])
    flat = torch.stack([column[i] for i in range(k) for column in columns], -1)
    return flat.unflatten(-1, (k, len(columns)))


def product(A: Tensor, x: Tensor) -> Tensor:
    """`A x` like `matvec`; in a graph and on a GPU by components when `A` is small."""
    if A.ndim == 2 or A.shape[-1] > _UNROLLED_COLUMNS or A.shape[-2] > _UNROLLED_COLUMNS:
        return matvec(A, x)
    if A.device.type == "cpu" and not branchless(A, x):
        if A.ndim == 3 and x.shape[:-1] == A.shape[:1]:  # half the time of `A @ x`, which broadcasts
            return torch.bmm(A, x.unsqueeze(-1)).squeeze(-1)
        return matvec(A, x)
    parts = x.unbind(-1)
    return torch.stack([_dot(row.unbind(-1), parts) for row in A.unbind(-2)], -1)


def _solve_triangular(R: Tensor, r: Tensor, *, transposed: bool) -> Tensor:
    """`R⁻ᵀ r` (transposed) or `R⁻¹ r`, batched, with an unrolled substitution for few rows."""
    m = R.shape[-1]
    if m == 1:
        return r / R[..., 0, :]
    count = 1 if R.ndim == 2 else r.numel() // m
    if m <= _UNROLLED_ROWS and not _are_few(count, r):
        z = list(r.unbind(-1))
        for j in range(m) if transposed else reversed(range(m)):
            for i in range(j) if transposed else range(j + 1, m):
                z[j] = z[j] - (R[..., i, j] if transposed else R[..., j, i]) * z[i]
            z[j] = z[j] / R[..., j, j]
        return torch.stack(z, -1)
    if R.ndim == 2 and r.ndim > 1:  # zᵀ R = rᵀ, or zᵀ Rᵀ = rᵀ
        return torch.linalg.solve_triangular(R if transposed else R.mT, r, upper=transposed, left=False)
    T = R.mT if transposed else R
    return torch.linalg.solve_triangular(T, r.unsqueeze(-1), upper=not transposed).squeeze(-1)


def pinv_apply(qr: ThinQR, r: Tensor) -> Tensor:
    """`A⁺ r = Q R⁻ᵀ r`."""
    return product(qr.Q, _solve_triangular(qr.R, r * qr.independent, transposed=True))


def pinv_transpose_apply(qr: ThinQR, g: Tensor) -> Tensor:
    """`A⁺ᵀ g = R⁻¹ Qᵀ g`."""
    return _solve_triangular(qr.R, product(qr.Q.mT, g), transposed=False) * qr.independent


class _MinNormSolve(torch.autograd.Function):
    """`x = A⁺ r` with `dx = A⁺(dr − dA x) + (I − A⁺A) dAᵀ λ`, `λ = A⁺ᵀ x` (A of full row rank)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, r: Tensor, Q: Tensor, R: Tensor, independent: Tensor) -> Tensor:
        return pinv_apply(ThinQR(Q, R, independent), r)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        A, r, Q, R, independent, x = ctx.saved_tensors
        factor = ThinQR(Q, R, independent)
        w = min_norm_adjoint(A, grad, factor)
        grad_A = None
        if ctx.needs_input_grad[0]:
            multiplier = min_norm_adjoint(A, x, factor)
            grad_A = outer_sum_to(-w, x, A.shape) + outer_sum_to(multiplier, grad - rmatvec(A, w), A.shape)
        return grad_A, w.sum_to_size(r.shape) if ctx.needs_input_grad[1] else None, None, None, None

    @staticmethod
    def jvp(ctx, dA, dr, *_):  # pyright: ignore[reportIncompatibleMethodOverride]
        A, r, Q, R, independent, x = ctx.saved_tensors
        factor = ThinQR(Q, R, independent)
        inner = torch.zeros_like(r) if dr is None else dr
        if dA is None:
            return min_norm_solve(A, inner, factor)
        step = rmatvec(dA, min_norm_adjoint(A, x, factor))
        return min_norm_solve(A, inner - matvec(dA, x) - matvec(A, step), factor) + step


class _MinNormAdjoint(torch.autograd.Function):
    """`w = A⁺ᵀ g` with `dw = A⁺ᵀ(dg − dAᵀ w) + A⁺ᵀA⁺ dA (g − Aᵀ w)` (A of full row rank)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, g: Tensor, Q: Tensor, R: Tensor, independent: Tensor) -> Tensor:
        return pinv_transpose_apply(ThinQR(Q, R, independent), g)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        A, g, Q, R, independent, w = ctx.saved_tensors
        factor = ThinQR(Q, R, independent)
        s = min_norm_solve(A, grad, factor)
        grad_A = None
        if ctx.needs_input_grad[0]:
            t = min_norm_adjoint(A, s, factor)
            grad_A = outer_sum_to(-w, s, A.shape) + outer_sum_to(t, g - rmatvec(A, w), A.shape)
        return grad_A, s.sum_to_size(g.shape) if ctx.needs_input_grad[1] else None, None, None, None

    @staticmethod
    def jvp(ctx, dA, dg, *_):  # pyright: ignore[reportIncompatibleMethodOverride]
        A, g, Q, R, independent, w = ctx.saved_tensors
        factor = ThinQR(Q, R, independent)
        inner = torch.zeros_like(g) if dg is None else dg
        if dA is None:
            return min_norm_adjoint(A, inner, factor)
        tangent = min_norm_adjoint(A, inner - rmatvec(dA, w), factor)
        s = min_norm_solve(A, matvec(dA, g - rmatvec(A, w)), factor)
        return tangent + min_norm_adjoint(A, s, factor)


def _is_constant(A: Tensor) -> bool:
    """Whether nothing is differentiated by `A`; a transform of `torch.func` tells that of its own level only."""
    return not (A.requires_grad or torch._C._are_functorch_transforms_active())


def min_norm_solve(
    A: Float[Tensor, "*#batch m n"], r: Float[Tensor, "*#batch m"], factor: ThinQR | None = None
) -> Float[Tensor, "*batch n"]:
    """Minimum-norm solution `x = A⁺ r` of `A x = r`, exact for rows of full rank.

    Differentiable in `A` and `r` to any order; in a recorded graph once, by plain operations. Dependent rows
    are left out (see `ThinQR.independent`), as if they were not there. `factor` is that of `A`, without gradient.
    """
    factor = thin_qr(A.detach()) if factor is None else factor
    if recording():
        if _is_constant(A):
            return pinv_apply(factor, r)
        change = A - A.detach()  # zero, with the derivative of A
        x = pinv_apply(factor, r.detach())
        tilt = rmatvec(change, pinv_transpose_apply(factor, x))
        return pinv_apply(factor, r - matvec(change, x) - matvec(A.detach(), tilt)) + tilt
    return _MinNormSolve.apply(A, r, *factor)  # pyright: ignore[reportReturnType]


def min_norm_adjoint(
    A: Float[Tensor, "*#batch m n"], g: Float[Tensor, "*#batch n"], factor: ThinQR | None = None
) -> Float[Tensor, "*batch m"]:
    """`w = A⁺ᵀ g`, the least-squares solution of `Aᵀ w = g`; differentiable like `min_norm_solve`."""
    factor = thin_qr(A.detach()) if factor is None else factor
    if recording():
        if _is_constant(A):
            return pinv_transpose_apply(factor, g)
        change = A - A.detach()
        w = pinv_transpose_apply(factor, g.detach())
        tilt = pinv_apply(factor, matvec(change, (g - rmatvec(A, w)).detach()))
        return pinv_transpose_apply(factor, g - rmatvec(change, w) + tilt)
    if not torch.is_grad_enabled():
        return pinv_transpose_apply(factor, g)
    return _MinNormAdjoint.apply(A, g, *factor)  # pyright: ignore[reportReturnType]
