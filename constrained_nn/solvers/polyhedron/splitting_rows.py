"""Active sets by a few splitting steps in row space, confirmed by one exact solve on them.

The iterates live in row space: a step is one product with an `m x m` operator and a clamp. Rows that are
equalities for every element of a shared matrix are eliminated first, so that neither they nor the bounds on
the point cost more than an entry of that operator.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Penalty of the splitting for unit rows, and its over-relaxation: measured, see docs/benchmarks/projection.md.
PENALTY = 2.0
RELAXATION = 1.6
# Equality rows of matrices that differ between elements are not eliminated; their penalty is larger.
_EQUALITY_FACTOR = 1e3
# Added to the diagonal of the Gram matrix of the active rows; refinement takes its effect out again.
SHIFT = 1e-13
_DEPENDENT = 1e-7


class RowFactor(NamedTuple):
    """Everything about the rows that does not depend on `y` and the bounds (the result of `factor_polyhedron`).

    Args:
        equality: Index of the eliminated rows among the rows `[A; I]` `(q,)`.
        inequality: Index of the others `(p,)`.
        rows: The others, projected along the eliminated ones and of unit norm `(*batch, p, n)`.
        norm: Their norm before that; 0 for rows that depend on the eliminated ones `(*batch, p)`.
        gram: `rows rowsᵀ`, or `None` where two products with `rows` are cheaper.
        step: `αR W − I`, the operator of a splitting step, transposed `(*batch, p, p)`; or `None`.
        half: `αR W = half halfᵀ` up to `weight`, where two products are cheaper `(*batch, p, n)`; or `None`.
        back: `halfᵀ`, laid out for products `(*batch, n, p)`; or `None`.
        weight: Ratio of `αR` to its share in `half` `(*batch, p)`, or `None` where that is 1.
        pinv: Pseudoinverse of the eliminated rows `(n, q)`.
        shift: How the values of the other rows move with the right-hand side of the eliminated `(q, p)`.
    """

    equality: Int[Tensor, " q"]
    inequality: Int[Tensor, " p"]
    rows: Float[Tensor, "*batch p n"]
    norm: Float[Tensor, "*batch p"]
    gram: Float[Tensor, "*batch p p"] | None
    step: Float[Tensor, "*batch p p"] | None
    half: Float[Tensor, "*batch p n"] | None
    back: Float[Tensor, "*batch n p"] | None
    weight: Float[Tensor, "*batch p"] | None
    pinv: Float[Tensor, "n q"]
    shift: Float[Tensor, "q p"]


def row_factor(
    A: Tensor, equality: Tensor | None, *, box: bool, eliminate: bool = True, penalty: float = PENALTY
) -> RowFactor:
    """Factor of the rows `A (*batch, m, n)`, with the rows of the identity below them for bounds on the point.

    Args:
        equality: Rows `(m,)` of a shared `A` to eliminate, or rows `(*batch, m)` of larger penalty.
        box: Whether the point itself has bounds.
        eliminate: False to keep the equalities of a shared `A` among the rows (no shape depends on a value).
    """
    if box:
        A = with_identity(A)
        if equality is not None and equality.shape[-1] < A.shape[-2]:
            none = equality.new_zeros(*equality.shape[:-1], A.shape[-2] - equality.shape[-1])
            equality = torch.cat([equality, none], -1)
    m = A.shape[-2]
    every = torch.arange(m, device=A.device)
    eliminated, others = every.narrow(0, 0, 0), every
    pinv, shift = A.new_zeros(A.shape[-1], 0), A.new_zeros(0, m)
    rows, own = A, None
    eliminate = eliminate and A.ndim == 2 and equality is not None
    if eliminate and equality is not None:
        eliminated, others = equality.nonzero().squeeze(-1), equality.logical_not().nonzero().squeeze(-1)
        own = torch.linalg.vector_norm(A[eliminated], dim=-1)
        own = torch.where(own > 0, own, 1.0)
        # of unit rows, and with a rank that leaves the rows below room for rounding under `_DEPENDENT`
        pinv = torch.linalg.pinv(A[eliminated] / own.unsqueeze(-1), rtol=0.1 * _DEPENDENT) / own
        rows = A[others]
        own = torch.linalg.vector_norm(rows, dim=-1)
        shift = pinv.mT @ rows.mT
        rows = rows - (rows @ pinv) @ A[eliminated]
    norm = torch.linalg.vector_norm(rows, dim=-1)
    if own is not None:
        norm = torch.where(norm > _DEPENDENT * own, norm, 0.0)
    rows = rows * torch.where(norm > 0, 1 / norm, 0.0).unsqueeze(-1)
    weight = torch.full_like(norm, penalty)
    uniform = eliminate or equality is None
    if equality is not None and not eliminate:
        weight = torch.where(equality, _EQUALITY_FACTOR * penalty, penalty).to(A.dtype)
    step, half = _operators(rows, weight, penalty, uniform=uniform)
    back = None if half is None else half.mT.contiguous()
    gram = None if rows.ndim == 3 and half is not None else rows @ rows.mT
    weight = None if uniform or half is None else weight.float() / penalty
    return RowFactor(eliminated, others, rows, norm, gram, step, half, back, weight, pinv, shift)


def with_identity(rows: Tensor) -> Tensor:
    """`[A; I]`."""
    n = rows.shape[-1]
    eye = torch.eye(n, dtype=rows.dtype, device=rows.device)
    return torch.cat([rows, eye.expand(*rows.shape[:-2], n, n)], -2)


def _operators(rows: Tensor, weight: Tensor, penalty: float, *, uniform: bool) -> tuple[Tensor | None, ...]:
    """`step` and `half` of a `RowFactor`, with `W = rows (I + rowsᵀ R rows)⁻¹ rowsᵀ`.

    The smaller of its two Cholesky factors is taken. For one matrix for each element with fewer columns than
    rows neither product is formed: two products with thin matrices move less memory.
    """
    m, n = rows.shape[-2:]
    if rows.ndim == 3:  # it only guesses, and half the memory is half the time
        rows, weight = rows.float(), weight.float()
    if n < m:
        # (I + rowsᵀ R rows) / αρ, whose factor L gives half = rows L⁻ᵀ without a scaling
        eye = torch.eye(n, dtype=rows.dtype, device=rows.device) / (RELAXATION * penalty)
        weighted = rows if uniform else (weight / penalty).unsqueeze(-1) * rows
        if rows.ndim == 3:
            inner = torch.baddbmm(eye, rows.mT, weighted, alpha=1.0 / RELAXATION)
        else:
            inner = torch.addmm(eye, rows.mT, weighted, alpha=1.0 / RELAXATION)
        lower = torch.linalg.cholesky_ex(inner)[0]
        half = torch.linalg.solve_triangular(lower.mT, rows, upper=True, left=False)
        if rows.ndim == 3:
            return None, half
        step = (weight / penalty).unsqueeze(-1) * (half @ half.mT)
    else:
        root = weight.sqrt()
        gram = rows @ rows.mT
        scaled = root.unsqueeze(-1) * gram
        inner = scaled * root.unsqueeze(-2)
        inner.diagonal(dim1=-2, dim2=-1).add_(1.0)
        half = torch.linalg.solve_triangular(torch.linalg.cholesky_ex(inner)[0], scaled, upper=False)
        step = RELAXATION * weight.unsqueeze(-1) * (gram - half.mT @ half)
    return step - torch.eye(m, dtype=rows.dtype, device=rows.device), None


def times(v: Tensor, M: Tensor) -> Tensor:
    """`v M` for a shared matrix or one for each element."""
    if M.ndim == 2:
        return v @ M
    return torch.bmm(v.unsqueeze(1), M).squeeze(1)


def gram_times(factor: RowFactor, multiplier: Tensor) -> Tensor:
    """`gram multiplier`."""
    if factor.gram is None:
        return times(times(multiplier, factor.rows), factor.rows.mT)
    return times(multiplier, factor.gram)


def split(factor: RowFactor, value: Tensor, v: Tensor, lower: Tensor, upper: Tensor, steps: int) -> Tensor:
    """`steps` over-relaxed splitting steps; the rows whose entry is outside its bounds are the guess.

    With `inside = clamp(v)` and `mirror = 2 inside − v`, a step is
    `α value + (2 − α) inside − mirror + (mirror − value) αR W`.
    """
    if factor.rows.ndim == 3:  # one-row matrices, so that a product needs no other shape
        value, v, lower, upper = (t.float().unsqueeze(1) for t in (value, v, lower, upper))
    start = _reflect(factor, value, torch.zeros_like(value))  # −value + value αR W
    constant = (RELAXATION - 1.0) * value - start
    for _ in range(steps):
        inside = torch.clamp(v, lower, upper)
        v = _reflect(factor, torch.lerp(v, inside, 2.0), constant).add_(inside, alpha=2.0 - RELAXATION)
    return v.squeeze(1).to(torch.float64) if factor.rows.ndim == 3 else v


def _reflect(factor: RowFactor, mirror: Tensor, constant: Tensor) -> Tensor:
    """`constant − mirror + mirror αR W`."""
    if factor.half is not None and factor.back is not None:
        weighted = mirror if factor.weight is None else mirror * factor.weight.unsqueeze(1)
        return torch.baddbmm(constant, torch.bmm(weighted, factor.half), factor.back).sub_(mirror)
    assert factor.step is not None
    if factor.step.ndim == 3:
        return torch.baddbmm(constant, mirror, factor.step)
    return torch.addmm(constant, mirror, factor.step)


class Block(NamedTuple):
    """Cholesky factor of the Gram matrix of the active rows, at most `k` of them; `used (b, k)` is 1 or 0."""

    index: Int[Tensor, "b k"]
    used: Float[Tensor, "b k"]
    L: Float[Tensor, "b k k"]

    def solve(self, r: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """`G_JJ⁻¹ r_J`, zero where a column is not used."""
        return torch.cholesky_solve((r * self.used).unsqueeze(-1), self.L).squeeze(-1) * self.used

    def scatter(self, weights: Float[Tensor, "b k"], p: int) -> Float[Tensor, "b p"]:
        """Weights of all rows."""
        return weights.new_zeros(weights.shape[0], p).scatter(-1, self.index, weights)


def active_block(factor: RowFactor, excess: Tensor, k: int) -> Block:
    """Factor of the `k` rows of largest `excess (b, p)`, those with zero excess left out."""
    largest, index = excess.topk(k, dim=-1, sorted=False)
    used = (largest > 0).to(excess.dtype)
    p = factor.rows.shape[-2]
    if factor.gram is None:
        first = torch.arange(0, index.shape[0] * p, p, device=index.device).unsqueeze(-1)
        chosen = factor.rows.reshape(-1, factor.rows.shape[-1]).index_select(0, (index + first).reshape(-1))
        chosen = chosen.reshape(*index.shape, -1) * used.unsqueeze(-1)
        block = chosen @ chosen.mT
    else:
        flat = (index.unsqueeze(-1) * p + index.unsqueeze(-2)).flatten(1)
        if factor.gram.ndim == 2:
            block = factor.gram.reshape(-1).index_select(0, flat.reshape(-1)).reshape(-1, k, k)
        else:
            block = factor.gram.flatten(1).gather(1, flat).reshape(-1, k, k)
        block = block * used.unsqueeze(-1) * used.unsqueeze(-2)
    block.diagonal(dim1=-2, dim2=-1).add_((1.0 + SHIFT) - used)
    return Block(index, used, torch.linalg.cholesky_ex(block)[0])


class Guess(NamedTuple):
    """An active set, its multipliers, and whether they satisfy the optimality conditions.

    Args:
        multiplier: Of the unit reduced rows `(b, p)`.
        active: Rows taken as equalities `(b, p)`: +1 at the upper, −1 at the lower bound, 0 not.
        exact: Whether the optimality conditions hold `(b,)`.
        following: The active set to try next, signed `(b, p)`.
    """

    multiplier: Tensor
    active: Tensor
    exact: Tensor
    following: Tensor


def confirm(
    factor: RowFactor, value: Tensor, lower: Tensor, upper: Tensor, guess: Tensor, dust: Tensor, k: int
) -> Guess:
    """Exact solve on the rows where `guess (b, p)` is not zero, checked element by element.

    Args:
        value: Values of the reduced rows at the point to project `(b, p)`.
        dust: Rounding of a row value `(b, 1)`.
        k: Number of rows to take at most.
    """
    block = active_block(factor, guess.abs(), k)
    side = torch.sign(guess).gather(-1, block.index) * block.used
    target = torch.where(side > 0, upper.gather(-1, block.index), lower.gather(-1, block.index))
    there = value.gather(-1, block.index)
    target = torch.where(block.used > 0, target, there)
    weights = block.solve(there - target)
    p = value.shape[-1]
    reached = value - gram_times(factor, block.scatter(weights, p))
    weights = weights + block.solve(reached.gather(-1, block.index) - target)
    multiplier = block.scatter(weights, p)
    reached = value - gram_times(factor, multiplier)
    inside = torch.clamp(reached, lower, upper)
    outside = reached - inside
    late = outside.abs() > dust + 1e-12 * inside.abs()
    active = block.scatter(side, p)
    wrong = (multiplier * active < 0) & (lower < upper)
    serious = wrong & (multiplier.abs() > 1e-12 * multiplier.abs().amax(-1, keepdim=True))
    exact = (serious | late).any(-1).logical_not()
    # Semismooth Newton: next come the active rows of the right sign, and the violated ones.
    following = active * wrong.logical_not() + torch.sign(outside) * (late & (active == 0))
    return Guess(multiplier * wrong.logical_not(), active, exact, following)
