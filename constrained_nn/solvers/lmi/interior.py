"""Interior fallback: a primal-dual path-following method for the projection onto an LMI.

It goes where first-order and semismooth steps stall: constraints that are nearly degenerate, solutions that are huge.
With `X = F(y)`, multiplier `Z`, and the Nesterov-Todd scaling `G` (`G⁻¹ X G⁻ᵀ = Gᵀ Z G = Λ`) every step solves

    (I + Lᵀ(W⁻¹ ⊗ W⁻¹) L) dy = −(y − ŷ − LᵀZ) + Lᵀ G⁻ᵀ(D − G⁻¹(F(y) − X) G⁻ᵀ) G⁻¹,    W = G Gᵀ,

an `m × m` system, with a predictor and a corrector of the same matrix. Once a full step was taken, `X = F(y)` and every
further iterate is strictly feasible.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from constrained_nn.linalg import branchless
from constrained_nn.solvers.lmi.problem import Problem
from constrained_nn.solvers.lmi.search import fixed_trips

# Complementarity at which an element is done, relative to the data, and share of the way to the boundary.
_GAP, _SHARE = 1e-14, 0.98
# An element without a feasible point within this many times 1 + |y| counts as infeasible.
RADIUS = 1e9


class Interior(NamedTuple):
    """Point, slack and multiplier `(b, N)`, and which elements are running, done, proved infeasible.

    Args:
        y: Point `(b, m)`.
        X: Slack, positive definite.
        Z: Multiplier, positive definite.
        running: Whether the method goes on `(b,)`.
        done: Whether it ended at its tolerance `(b,)`.
        infeasible: Whether `Z` proves that no feasible point is near `(b,)`.
        steps: Steps so far `(b,)`.
    """

    y: Tensor
    X: Tensor
    Z: Tensor
    running: Tensor
    done: Tensor
    infeasible: Tensor
    steps: Tensor


def begin(problem: Problem, y: Tensor) -> Interior:
    """A start well inside of both cones, at `y`."""
    F = problem.value(y)
    size = torch.linalg.vector_norm(F, dim=-1).clamp_min(1.0).unsqueeze(-1)
    eye = torch.cat([torch.eye(n, dtype=y.dtype, device=y.device).flatten() for n in problem.orders])
    running = torch.ones_like(y[:, 0], dtype=torch.bool)
    zero = torch.zeros_like(y[:, 0])
    state = (y, size * eye, size * eye, running, ~running, ~running, zero)
    return Interior(*(t.clone() for t in state))  # loops under compilation refuse aliases


def step(problem: Problem, state: Interior) -> Interior:
    """One predictor-corrector step; finished elements stay as they are."""
    y, X, Z = state.y, state.X, state.Z
    order = float(sum(problem.orders))
    F = problem.value(y)
    primal, dual = F - X, y - problem.target - problem.adjoint(Z)
    mu = (X * Z).sum(-1) / order
    G_inverse, scaled = _scaling(problem, X, Z)

    size_y = 1.0 + _norm(problem.target) + _norm(y)
    size_F = _norm(problem.constant) + _norm(F)
    # the gap bounds the distance to the projection: |y − y*|² <= 2 ⟨X, Z⟩
    done = (
        (mu * order <= _GAP * ((1.0 + _norm(y)).square() + 1e-12 * size_y.square()))
        & (_norm(dual) <= 1e-9 * (size_y + _norm(Z)))
        & (_norm(primal) <= 1e-12 * size_F)
    )
    infeasible = _separates(problem, Z)

    M = _matrix(problem, G_inverse)
    factor, _ = torch.linalg.cholesky_ex(M)

    def direction(complement: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """`dy`, and the scaled `dX` and `dZ`, for `dx + dz = complement`."""
        gap = [_apply(g, p) for g, p in zip(G_inverse, problem.split(primal), strict=True)]
        pulled = [_apply(g.mT, c - p) for g, c, p in zip(G_inverse, complement, gap, strict=True)]
        right = problem.adjoint(torch.cat([p.flatten(-2) for p in pulled], -1)) - dual
        dy = torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)
        moved = problem.split(problem.linear(dy))
        dx = [_apply(g, l) + p for g, l, p in zip(G_inverse, moved, gap, strict=True)]
        return dy, dx, [c - d for c, d in zip(complement, dx, strict=True)]

    _, dx, dz = direction([-torch.diag_embed(v) for v in scaled])
    reach = torch.minimum(_reach(scaled, dx), _reach(scaled, dz)).clamp_max(1.0)[:, None, None]
    product = sum(
        ((torch.diag_embed(v) + reach * a) * (torch.diag_embed(v) + reach * b)).sum((-2, -1))
        for v, a, b in zip(scaled, dx, dz, strict=True)
    )
    center = ((product / order) / mu.clamp_min(1e-300)).clamp(0.0, 1.0) ** 3 * mu
    complement = [_corrector(v, a, b, center) for v, a, b in zip(scaled, dx, dz, strict=True)]
    dy, dx, dz = direction(complement)
    # one step length for both: the distance couples y and Z
    reach = (_SHARE * torch.minimum(_reach(scaled, dx), _reach(scaled, dz))).clamp_max(1.0)

    # dX straight from the map: once primal = 0 it stays so to rounding
    X_next = X + reach.unsqueeze(-1) * (problem.linear(dy) + primal)
    dZ = torch.cat([_apply(g.mT, d).flatten(-2) for g, d in zip(G_inverse, dz, strict=True)], -1)
    y_next = y + reach.unsqueeze(-1) * dy
    Z_next = Z + reach.unsqueeze(-1) * dZ
    sound = y_next.isfinite().all(-1) & (reach > 1e-8)
    for x, z in zip(problem.split(X_next), problem.split(Z_next), strict=True):
        sound = sound & _definite(x) & _definite(z)  # rounding ends the search before it spoils the point
    goes = (state.running & ~done & ~infeasible & sound).unsqueeze(-1)
    return Interior(
        torch.where(goes, y_next, y),
        torch.where(goes, X_next, X),
        torch.where(goes, Z_next, Z),
        goes.squeeze(-1),
        state.done | (state.running & done),
        state.infeasible | (state.running & infeasible & ~done),
        state.steps + goes.squeeze(-1),
    )


def repeat(problem: Problem, state: Interior, times: int) -> Interior:
    """`step` until every element is done or `times` times."""
    if branchless(*state, problem.constant):
        return Interior(*fixed_trips(lambda *s: step(problem, Interior(*s)), state, times))
    whole, index = state, None
    for _ in range(times):
        state = step(problem, state)
        left = state.running.nonzero().squeeze(-1)
        if len(left) <= 0.8 * len(state.running):
            whole = _written(whole, index, state)
            if not len(left):
                return whole
            index = left if index is None else index[left]
            state, problem = Interior(*(t[left] for t in state)), problem.take(left)
    return _written(whole, index, state)


def _written(whole: Interior, index: Tensor | None, part: Interior) -> Interior:
    if index is None:
        return part
    return Interior(*(w.index_copy(0, index, p) for w, p in zip(whole, part, strict=True)))


def _scaling(problem: Problem, X: Tensor, Z: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """`G⁻¹` and the diagonal of `Λ` of every block."""
    inverses, scaled = [], []
    for x, z in zip(problem.split(X), problem.split(Z), strict=True):
        x, z = 0.5 * (x + x.mT), 0.5 * (z + z.mT)
        root, info = torch.linalg.cholesky_ex(x)
        eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        root = torch.where((info == 0)[:, None, None], root, eye)
        values, V = problem.eigen(root.mT @ z @ root)
        lam = values.clamp_min(1e-300).sqrt()
        half = lam.sqrt().unsqueeze(-1) * V.mT
        inverses.append(torch.linalg.solve_triangular(root, half, upper=False, left=False))
        scaled.append(lam)
    return inverses, scaled


def _matrix(problem: Problem, G_inverse: list[Tensor]) -> Tensor:
    """`I + Lᵀ(W⁻¹ ⊗ W⁻¹) L`: the Gram matrix of the scaled columns `G⁻¹ Lⱼ G⁻ᵀ`."""
    m = problem.target.shape[-1]
    eye = torch.eye(m, dtype=problem.target.dtype, device=problem.target.device)
    return eye + problem.gram([g.mT for g in G_inverse], [torch.ones_like(g) for g in G_inverse])


def _definite(S: Tensor) -> Tensor:
    finite = S.isfinite().all(-1).all(-1)
    safe = torch.where(finite[:, None, None], 0.5 * (S + S.mT), 0.0)
    return finite & (torch.linalg.cholesky_ex(safe)[1] == 0)


def _apply(g: Tensor, S: Tensor) -> Tensor:
    return g @ S @ g.mT


def _reach(scaled: list[Tensor], steps: list[Tensor]) -> Tensor:
    """Largest step that keeps `Λ + step · d` in the cone, at most 1 / `_SHARE`."""
    lows = []
    for v, d in zip(scaled, steps, strict=True):
        root = v.rsqrt()
        S = d * root.unsqueeze(-1) * root.unsqueeze(-2)
        S = torch.where(S.isfinite().all(-1).all(-1)[:, None, None], S, 0.0)
        lows.append(_lowest(0.5 * (S + S.mT)))
    low = torch.stack(lows).amin(0)
    return torch.where(low < 0, -1.0 / low.clamp_max(-1e-300), torch.inf).clamp_max(1.0 / _SHARE)


def _lowest(S: Tensor) -> Tensor:
    """Smallest eigenvalue, to 1e-8 of the norm: closed forms for small orders, which a step length can live with."""
    n = S.shape[-1]
    if n == 1:
        return S[:, 0, 0]
    if n == 2:
        a, b, d = S[:, 0, 0], S[:, 0, 1], S[:, 1, 1]
        return 0.5 * (a + d) - torch.hypot(0.5 * (a - d), b)
    if n > 3:
        return torch.linalg.eigvalsh(S)[..., 0]
    a, b, c, d, e, f = S[:, 0, 0], S[:, 1, 1], S[:, 2, 2], S[:, 0, 1], S[:, 0, 2], S[:, 1, 2]
    mean = (a + b + c) / 3.0
    a, b, c = a - mean, b - mean, c - mean
    spread = ((a * a + b * b + c * c + 2.0 * (d * d + e * e + f * f)) / 6.0).sqrt()
    safe = torch.where(spread > 0, spread, 1.0)
    a, b, c, d, e, f = (t / safe for t in (a, b, c, d, e, f))
    half = 0.5 * (a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e))
    angle = torch.acos(half.clamp(-1.0, 1.0)) / 3.0
    return mean + 2.0 * spread * torch.cos(angle + 2.0 * torch.pi / 3.0)


def _corrector(v: Tensor, dx: Tensor, dz: Tensor, center: Tensor) -> Tensor:
    second = dx @ dz
    right = torch.diag_embed(center.unsqueeze(-1) - v.square()) - 0.5 * (second + second.mT)
    return 2.0 * right / (v.unsqueeze(-1) + v.unsqueeze(-2))


def _separates(problem: Problem, Z: Tensor) -> Tensor:
    """Whether `Z ⪰ 0` shows that no feasible point lies within `RADIUS (1 + |y|)`.

    Every feasible `y` has `0 <= ⟨Z, F(y)⟩ = ⟨Z, C⟩ + ⟨LᵀZ, y⟩`.
    """
    diagonal = torch.cat([z.diagonal(dim1=-2, dim2=-1) for z in problem.split(Z)], -1)
    gap = -(Z * problem.constant).sum(-1) - (problem.margin * diagonal).sum(-1)  # without margin
    reach = _norm(problem.adjoint(Z))
    size = 1.0 + _norm(problem.target)
    noise = 1e-12 * _norm(Z) * _norm(problem.constant)
    return (gap > noise) & (gap > RADIUS * size * reach)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1)
