"""Derivatives of the projection onto an LMI: the sensitivity of its optimality conditions, and two others to compare.

At the projection `y − ŷ = LᵀZ`, `Z ⪰ 0`, `F(y) ⪰ 0`, `Z F(y) = 0`. With `S = F − Z/σ = U diag(l) Uᵀ` in every block and

    ω_ij = 0 (l_i, l_j > 0),   σ |l_j| / l_i (mixed),   ∞ (both <= 0),

the derivative in `ŷ` is `J = (I + Lᵀ Ω L)⁻¹`, symmetric, `0 <= J <= I`: an `m × m` system whatever the number of steps
taken. For a cotangent `g`: `u = J g`, `P = Ω L u`; those of the data follow from `⟨Z, dL u⟩ − ⟨P, dF(y)⟩`.

Infinite weights are capped at `ρ` and the cap is taken off again by a few steps of the proximal point method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from constrained_nn.linalg import (
    MatrixMap,
    adjoint_at,
    columns,
    linear_part,
    matrix_at,
    psd_project,
    smat,
    svec,
)
from constrained_nn.solvers.lmi.problem import Problem, by_block
from constrained_nn.solvers.lmi.search import slopes_of

_CAP, _PROXIMAL_STEPS, _POLISH_STEPS = 1e6, 3, 3


class Sensitivity(NamedTuple):
    """Factored derivative of the optimality conditions at one solution.

    Args:
        factor: Cholesky factor of `I + Lᵀ Ω L`, `Ω` capped `(b, m, m)`.
        vectors: Eigenvectors of `S` in every block.
        weights: Capped `ω` in every block.
        inverse_slopes: `σ / θ`, capped in the same way, in every block.
        cap: `ρ` `(b,)`.
        balance: `σ` `(b,)`.
    """

    factor: Tensor
    vectors: list[Tensor]
    weights: list[Tensor]
    inverse_slopes: list[Tensor]
    cap: Tensor
    balance: Tensor


def sensitivity(problem: Problem, y: Tensor, Z: Tensor) -> Sensitivity:
    """At the solution `y` with multiplier `Z` of the scaled blocks."""
    F = problem.value(y)
    size_F, size_Z = (torch.linalg.vector_norm(t, dim=-1) for t in (F, Z))
    balance = torch.where((size_Z > 0) & (size_F > 0), size_Z / size_F, 1.0)
    trace = problem.gram().diagonal(dim1=-2, dim2=-1).mean(-1)
    cap = _CAP / torch.where(trace > 0, trace, 1.0)
    values, vectors = problem.eigh(F - Z / balance.unsqueeze(-1))
    weights, inverse_slopes = [], []
    for v in values:
        slope = slopes_of(v)
        floor = (balance / cap)[:, None, None]
        capped = slope + (1.0 - slope) * floor
        inverse_slopes.append(balance[:, None, None] / capped)
        weights.append((1.0 - slope) * inverse_slopes[-1])
    eye = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
    factor, _ = torch.linalg.cholesky_ex(eye + problem.gram(vectors, weights))
    return Sensitivity(factor, vectors, weights, inverse_slopes, cap, balance)


def _weigh(problem: Problem, flat: Tensor, vectors: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    parts = [
        (U @ (w * (U.mT @ x @ U)) @ U.mT).flatten(-2)
        for x, U, w in zip(problem.split(flat), vectors, weights, strict=True)
    ]
    return torch.cat(parts, -1)


def adjoint(problem: Problem, at: Sensitivity, g: Tensor) -> tuple[Tensor, Tensor]:
    """`u = J g` and `P = Ω L u` (scaled blocks)."""
    P = torch.zeros_like(problem.constant)
    cap = at.cap.unsqueeze(-1)
    u = torch.zeros_like(g)
    for _ in range(_PROXIMAL_STEPS):
        shift = _weigh(problem, P / cap, at.vectors, at.weights)
        u = torch.cholesky_solve((g - problem.adjoint(shift)).unsqueeze(-1), at.factor).squeeze(-1)
        P = _weigh(problem, problem.linear(u), at.vectors, at.weights) + shift
    return u, P


def polished(
    problem: Problem,
    at: Sensitivity,
    maps: Sequence[MatrixMap],
    margin: Tensor,
    target: Tensor,
    y: Tensor,
    Z: Tensor,
) -> Tensor:
    """Newton steps on the optimality conditions with a fixed matrix, from the solution: the derivatives of `target`
    and of `maps`, of first and second order, in plain operations.
    """
    balance = at.balance.unsqueeze(-1)
    scales = problem.scales
    for _ in range(_POLISH_STEPS):
        F = _scaled(maps, scales, y, margin)
        pulled = _adjoint(maps, scales, problem.split(Z))
        first = y - target - pulled
        gap = F - torch.cat([psd_project(s).flatten(-2) for s in problem.split(F - Z / balance)], -1)
        forced = _weigh(problem, gap, at.vectors, at.inverse_slopes)
        right = -first - problem.adjoint(forced)
        dy = torch.cholesky_solve(right.unsqueeze(-1), at.factor).squeeze(-1)
        Z = Z - forced - _weigh(problem, problem.linear(dy), at.vectors, at.weights)
        y = y + dy
    return y


def _scaled(maps: Sequence[MatrixMap], scales: Sequence[Tensor], y: Tensor, margin: Tensor) -> Tensor:
    parts = []
    for map, T, shift in zip(maps, scales, by_block(margin, maps), strict=True):
        F = matrix_at(map, y)
        F = 0.5 * (F + F.mT) * T.unsqueeze(-1) * T.unsqueeze(-2) - torch.diag_embed(shift)
        parts.append(F.flatten(-2))
    return torch.cat(parts, -1)


def _adjoint(maps: Sequence[MatrixMap], scales: Sequence[Tensor], blocks: Sequence[Tensor]) -> Tensor:
    parts = [
        adjoint_at(map, X * T.unsqueeze(-1) * T.unsqueeze(-2))
        for map, T, X in zip(maps, scales, blocks, strict=True)
    ]
    return torch.stack(torch.broadcast_tensors(*parts)).sum(0)


class KKTProjection(torch.autograd.Function):
    """A projection that is known already, with the derivative of its optimality conditions.

    Where a graph of the derivative is asked for, it is built from `polished`.
    """

    @staticmethod
    def forward(
        ctx: Any, problem: Problem, value: Tensor, Z: Tensor, margin: Tensor, good: Tensor, target, *data
    ):
        ctx.save_for_backward(target, *data)
        ctx.known = problem, value, Z, margin, good
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        problem, value, Z, _, good = ctx.known
        _, *data = ctx.saved_tensors
        with torch.no_grad():
            at = sensitivity(problem, value, Z)
        if torch.is_grad_enabled():
            return (None,) * 5 + _graph(ctx, problem, at, grad)
        u, P = adjoint(problem, at, torch.where(good.unsqueeze(-1), grad, 0.0))
        u, P = (torch.where(good.unsqueeze(-1), t, 0.0) for t in (u, P))
        found: list[Tensor | None] = [u, *([None] * len(data))]
        wanted = [i for i in range(len(data)) if ctx.needs_input_grad[6 + i]]
        if wanted:
            with torch.enable_grad():
                leaves = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(data)]
                total = u.new_zeros(())
                blocks = zip(maps_of(leaves), problem.unscaled(Z), problem.unscaled(P), strict=True)
                for map, z, p in blocks:
                    total = total + (z * linear_part(map, u)).sum() - (p * matrix_at(map, value)).sum()
                chosen = [leaves[i] for i in wanted]
                gradients = torch.autograd.grad(total, chosen, allow_unused=True)
            for i, gradient in zip(wanted, gradients, strict=True):
                found[1 + i] = torch.zeros_like(data[i]) if gradient is None else gradient
        return (None, None, None, None, None, *found)


def _graph(ctx: Any, problem: Problem, at: Sensitivity, grad: Tensor) -> tuple[Tensor | None, ...]:
    _, value, Z, margin, good = ctx.known
    target, *data = ctx.saved_tensors
    y = polished(problem, at, maps_of(data), margin, target, value, Z)
    y = torch.where(good.unsqueeze(-1), y, value)
    inputs = (target, *data)
    needed = [t for t, n in zip(inputs, ctx.needs_input_grad[5:], strict=True) if n]
    gradients = torch.autograd.grad(y, needed, grad, create_graph=True, allow_unused=True)
    found = (torch.zeros_like(t) if g is None else g for t, g in zip(needed, gradients, strict=True))
    return tuple(next(found) if n else None for n in ctx.needs_input_grad[5:])


def maps_of(data: Sequence[Tensor]) -> list[MatrixMap]:
    """Blocks from their tensors, four each."""
    return [MatrixMap(*data[i : i + 4]) for i in range(0, len(data), 4)]


def unrolled(
    problem: Problem, maps: Sequence[MatrixMap], margin: Tensor, target: Tensor, penalty: float, steps: int
) -> Tensor:
    """`steps` Douglas-Rachford steps from `F(ŷ)` by operations that autograd follows."""
    X = _scaled(maps, problem.scales, target, margin)
    one = _one_step(problem, maps, margin, target, penalty)
    y = target
    for _ in range(steps):
        y, X = one(X)
    return y


def _one_step(problem: Problem, maps: Sequence[MatrixMap], margin: Tensor, target: Tensor, penalty: float):
    """`X -> (y(X), Φ(X))`, one Douglas-Rachford step with relaxation 1."""
    scales = problem.scales
    C = _scaled(maps, scales, torch.zeros_like(target), margin)
    images = [
        (columns(map) * T[:, None, :, None] * T[:, None, None, :]).flatten(-2)
        for map, T in zip(maps, scales, strict=True)
    ]
    L = torch.cat([image.expand(len(target), *image.shape[1:]) for image in images], -1)
    eye = torch.eye(target.shape[-1], dtype=target.dtype, device=target.device)
    factor = torch.linalg.cholesky(eye + penalty * L @ L.mT)

    def step(X: Tensor) -> tuple[Tensor, Tensor]:
        right = target + penalty * (L @ (X - C).unsqueeze(-1)).squeeze(-1)
        y = torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)
        W = C + (y.unsqueeze(-2) @ L).squeeze(-2)
        V = torch.cat([psd_project(s).flatten(-2) for s in problem.split(2.0 * W - X)], -1)
        return y, X + V - W

    return step


def fixed_point(
    problem: Problem,
    maps: Sequence[MatrixMap],
    margin: Tensor,
    target: Tensor,
    y: Tensor,
    Z: Tensor,
    penalty: float,
) -> Tensor:
    """`y`, with the derivative of the Douglas-Rachford fixed point by the implicit function theorem.

    `(I − Φ')ᵀ λ = ∂yᵀ g` is solved in `svec` coordinates by a pseudo-inverse: without skew directions the matrix is
    singular only where the multiplier is not unique.
    """
    X = (problem.value(y) + Z / penalty).detach()
    step = _one_step(problem, maps, margin, target, penalty)
    orders = problem.orders
    sizes = [n * (n + 1) // 2 for n in orders]

    def inflate(v: Tensor) -> Tensor:
        return torch.cat([smat(p).flatten(-2) for p in v.split(sizes, -1)], -1)

    with torch.no_grad():
        plain = _one_step(problem, problem.maps, margin, target.detach(), penalty)
        eye = torch.eye(sum(sizes), dtype=y.dtype, device=y.device)

        def image(v: Tensor) -> tuple[Tensor, Tensor]:
            direction = inflate(v.expand(len(y), -1)).clone()
            dy, dX = torch.func.jvp(plain, (X,), (direction,))[1]
            return dy, torch.cat([svec(s) for s in problem.split(dX)], -1)

        pairs = [image(e) for e in eye]
        dy = torch.stack([p[0] for p in pairs], -1)  # (b, m, k)
        Phi = torch.stack([p[1] for p in pairs], -1)  # (b, k, k)
        inverse = torch.linalg.pinv(eye - Phi, rtol=1e-11)
    y_graph, X_graph = step(X)
    # dy + ∂y/∂X (I − Φ')⁻¹ dΦ
    moved = torch.cat([svec(s) for s in problem.split(X_graph - X_graph.detach())], -1)
    correction = dy @ (inverse @ moved.unsqueeze(-1))
    return y + (y_graph - y_graph.detach()) + correction.squeeze(-1)
