"""Two searches for the projection onto an LMI that have the same fixed point.

**Douglas-Rachford**, x-only form, penalty `τ`, relaxation `ω`, `X_k` the only memory:

    (I + τ LᵀL) y = ŷ + τ Lᵀ(X_k − C),   W = C + L y,   X_{k+1} = X_k + ω (Π₊(2 W − X_k) − W).

At its fixed point `Z = τ (X − W)` is the multiplier: `y − ŷ = Lᵀ Z`, `Z ⪰ 0`, `Z F(y) = 0`.

**Acceleration**: a semismooth Newton method on the augmented Lagrangian of the same problem,

    φ(y) = ½|y − ŷ|² + |Π₊(Z − τ F(y))|² / 2τ,    ∇φ = y − ŷ − Lᵀ Z⁺,    Z⁺ = Π₊(Z − τ F(y)),

whose minimization is what a Douglas-Rachford step replaces by one linear solve. Steps are safeguarded by a line
search on `φ`; `Z ← Z⁺` where the minimization is good enough for its gap.

Both know the increment `r = |Z⁺ − Z| / τ` (that of Douglas-Rachford is `|V − W|`), which bounds the violation for
free: `F(y) + (Z⁺ − Z)/τ = Π₊(F(y) − Z/τ) ⪰ 0`, so that `λ_min(F(y)) >= −r`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from constrained_nn.linalg import branchless
from constrained_nn.solvers.lmi.problem import Problem

# Largest and smallest penalty; beyond, `Z − τ F` loses the digits of `Z`.
_PENALTIES = (1e-4, 1e7)
# An element is done when gradient and increment are below this, relative to the data.
RTOL = 1e-11
_ARMIJO, _SHRINK, _SHORTEST = 1e-4, 0.3, 1e-6


class Iterate(NamedTuple):
    """Where an element stands: trial point `y + step · direction`, multiplier, and the account of both.

    Args:
        y: Last accepted point `(b, m)`.
        direction: Newton direction `(b, m)`.
        step: Fraction of it that is tried `(b,)`.
        multiplier: `Z` `(b, N)`.
        penalty: `τ` `(b,)`.
        merit: `φ(y)` `(b,)`.
        slope: `∇φ · direction` `(b,)`.
        fresh: Whether the trial point is accepted as it is (`Z` or `τ` has just changed) `(b,)`.
        increment: `r` at the last multiplier step `(b,)`.
        gradient: `|∇φ|` at the last accepted point `(b,)`.
        running: Whether the search goes on `(b,)`.
        solved: Whether it ended at the tolerance `(b,)`.
        steps: Projections onto the cone so far `(b,)`.
    """

    y: Tensor
    direction: Tensor
    step: Tensor
    multiplier: Tensor
    penalty: Tensor
    merit: Tensor
    slope: Tensor
    fresh: Tensor
    increment: Tensor
    gradient: Tensor
    running: Tensor
    solved: Tensor
    steps: Tensor


def project(problem: Problem, flat: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """`Π₊` of every block, with eigenvalues and eigenvectors."""
    values, vectors = problem.eigh(flat)
    parts = [
        ((U * v.clamp_min(0.0).unsqueeze(-2)) @ U.mT).flatten(-2)
        for v, U in zip(values, vectors, strict=True)
    ]
    return torch.cat(parts, -1), values, vectors


def slopes_of(values: Tensor) -> Tensor:
    """First divided differences of `max(·, 0)`, by signs alone: safe at repeated eigenvalues; at 0 the inside."""
    a, b = values.unsqueeze(-1), values.unsqueeze(-2)
    up, down = a > 0, b > 0
    mixed = torch.maximum(a, b) / torch.where(up != down, (a - b).abs(), 1.0)
    return torch.where(up & down, 1.0, torch.where(up != down, mixed, 0.0))


def first_penalty(problem: Problem) -> Tensor:
    """`τ` at which the constraint weighs as much as the distance: `m / tr LᵀL`, times 10."""
    trace = problem.gram().diagonal(dim1=-2, dim2=-1).mean(-1)
    return (10.0 / torch.where(trace > 0, trace, 1.0)).clamp(*_PENALTIES)


class Split(NamedTuple):
    """State of Douglas-Rachford: point, memory `X` `(b, N)`, penalty, increment, what runs, and steps `(b,)`."""

    y: Tensor
    X: Tensor
    penalty: Tensor
    increment: Tensor
    running: Tensor
    steps: Tensor


def splitting(problem: Problem, state: Split, steps: int, relaxation: float, tolerance: Tensor) -> Split:
    """`steps` Douglas-Rachford steps; an element whose increment is at its tolerance `(b,)` stays as it is."""
    target, C = problem.target, problem.constant
    eye = torch.eye(target.shape[-1], dtype=target.dtype, device=target.device)
    tau = state.penalty.unsqueeze(-1)
    factor, _ = torch.linalg.cholesky_ex(eye + tau.unsqueeze(-1) * problem.gram())
    y, X, _, increment, running, count = state
    for _ in range(steps):
        y = solve(factor, target + tau * problem.adjoint(X - C))
        W = problem.value(y)
        V = project(problem, 2.0 * W - X)[0]
        increment = torch.where(running, torch.linalg.vector_norm(V - W, dim=-1), increment)
        running = running & (increment > tolerance)
        X = torch.where(running.unsqueeze(-1), X + relaxation * (V - W), X)
        count = count + running
    y = solve(factor, target + tau * problem.adjoint(X - C))
    return Split(y, X, state.penalty, increment, running, count)


def descend(
    problem: Problem, state: Split, times: int, relaxation: float, tolerance: Tensor, every: int = 25
) -> Split:
    """Douglas-Rachford with a balanced penalty, until every element is done or `times` steps are taken.

    Penalties are balanced after every `every` steps of the first half, and then stay: convergence needs a fixed one.
    """
    for taken in range(0, times, every):
        state = splitting(problem, state, min(every, times - taken), relaxation, tolerance)
        if not branchless(*state) and not bool(state.running.any()):
            break
        if taken + every <= times // 2:
            state = _rebalanced(problem, state)
    return state


def _rebalanced(problem: Problem, state: Split) -> Split:
    """The same multiplier with a penalty that suits it."""
    W = problem.value(state.y)
    penalty = balanced(problem, state.y, state.X, state.increment, state.penalty)
    penalty = torch.where(state.running, penalty, state.penalty)
    Z = state.penalty.unsqueeze(-1) * (state.X - W)
    return state._replace(X=W + Z / penalty.unsqueeze(-1), penalty=penalty)


def multiplier(problem: Problem, state: Split) -> Tensor:
    """`Z = Π₊(τ (X − W))`."""
    return project(problem, state.penalty.unsqueeze(-1) * (state.X - problem.value(state.y)))[0]


def balanced(problem: Problem, y: Tensor, X: Tensor, increment: Tensor, penalty: Tensor) -> Tensor:
    """A penalty that brings primal increment and dual residual to the same relative size, within a factor of 10."""
    Z = penalty.unsqueeze(-1) * (X - problem.value(y))
    primal = increment / (1e-30 + torch.linalg.vector_norm(X, dim=-1))
    cone = project(problem, Z)[0] - Z
    dual = torch.linalg.vector_norm(cone, dim=-1) / (1e-30 + torch.linalg.vector_norm(Z, dim=-1))
    ratio = (primal / dual.clamp_min(1e-30)).sqrt().clamp(0.1, 10.0)
    return (penalty * torch.where(ratio.isfinite(), ratio, 1.0)).clamp(*_PENALTIES)


def solve(factor: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)


def begin(y: Tensor, Z: Tensor, penalty: Tensor) -> Iterate:
    """The state before the first evaluation."""
    zero, far = torch.zeros_like(penalty), torch.full_like(penalty, torch.inf)
    yes = torch.ones_like(penalty, dtype=torch.bool)
    state = (y, torch.zeros_like(y), zero, Z, penalty, zero, zero, yes, far, far, yes, ~yes, zero)
    return Iterate(*(t.clone() for t in state))  # loops under compilation refuse aliases


def newton(problem: Problem, state: Iterate) -> Iterate:
    """One evaluation at the trial point, and what follows from it; finished elements stay as they are."""
    target, tau = problem.target, state.penalty.unsqueeze(-1)
    trial = state.y + state.step.unsqueeze(-1) * state.direction
    F = problem.value(trial)
    Z_next, values, vectors = project(problem, state.multiplier - tau * F)
    merit = 0.5 * (trial - target).square().sum(-1) + 0.5 * Z_next.square().sum(-1) / state.penalty
    gradient = trial - target - problem.adjoint(Z_next)
    size_gradient = torch.linalg.vector_norm(gradient, dim=-1)
    increment = torch.linalg.vector_norm(Z_next - state.multiplier, dim=-1) / state.penalty

    noise = 1e-14 * (merit.abs() + state.merit.abs())
    lower = merit <= state.merit + _ARMIJO * state.step * state.slope + noise
    stuck = state.step <= _SHORTEST
    accepted = state.running & (state.fresh | lower | stuck)

    size_y = 1.0 + torch.linalg.vector_norm(target, dim=-1) + torch.linalg.vector_norm(trial, dim=-1)
    size_F = torch.linalg.vector_norm(problem.constant, dim=-1) + torch.linalg.vector_norm(F, dim=-1)
    rounding = 1e-15 * state.penalty * size_F  # of Z⁺, which Lᵀ carries over
    small = size_gradient <= torch.maximum(RTOL * size_y, rounding)
    solved = accepted & small & (increment <= RTOL * size_F)
    enough = size_gradient <= torch.maximum(
        0.1 * increment / size_F * size_y, torch.maximum(RTOL * size_y, rounding)
    )
    outer = accepted & ~solved & (enough | (stuck & ~state.fresh))
    inner = accepted & ~solved & ~outer

    weights = [slopes_of(v) for v in values]
    eye = torch.eye(target.shape[-1], dtype=target.dtype, device=target.device)
    factor, _ = torch.linalg.cholesky_ex(eye + tau.unsqueeze(-1) * problem.gram(vectors, weights))
    direction = -solve(factor, gradient)
    direction = torch.where(direction.isfinite().all(-1, keepdim=True), direction, -gradient)
    rejected = state.running & ~accepted

    slow = increment > 0.05 * state.increment
    raised = torch.where(slow, 10.0 * state.penalty, state.penalty).clamp_max(_PENALTIES[1])

    def pick(a: Tensor, b: Tensor, where: Tensor) -> Tensor:
        return torch.where(where.unsqueeze(-1) if a.ndim > 1 else where, a, b)

    zero = torch.zeros_like(state.step)
    return Iterate(
        y=pick(trial, state.y, accepted),
        direction=pick(direction, pick(torch.zeros_like(direction), state.direction, outer), inner),
        step=pick(zero + 1.0, pick(zero, pick(_SHRINK * state.step, state.step, rejected), outer), inner),
        multiplier=pick(Z_next, state.multiplier, outer | solved),
        penalty=pick(raised, state.penalty, outer),
        merit=pick(merit, state.merit, accepted),
        slope=pick((gradient * direction).sum(-1), state.slope, inner),
        fresh=pick(outer, state.fresh & ~accepted, outer),
        increment=pick(increment, state.increment, outer | solved),
        gradient=pick(size_gradient, state.gradient, accepted),
        running=state.running & ~solved,
        solved=state.solved | solved,
        steps=state.steps + state.running,
    )


def repeat(problem: Problem, state: Iterate, times: int) -> Iterate:
    """`newton` until every element is done or `times` times; the rest goes on in ever smaller batches."""
    if branchless(*state, problem.constant):
        return Iterate(*fixed_trips(lambda *s: newton(problem, Iterate(*s)), state, times))
    whole, index = state, None
    for k in range(times):
        state = newton(problem, state)
        if k % 2 == 0 and k + 1 < times:
            continue
        left = state.running.nonzero().squeeze(-1)
        if len(left) <= 0.8 * len(state.running) or k + 1 == times or not len(left):
            whole = (
                state
                if index is None
                else Iterate(*(w.index_copy(0, index, s) for w, s in zip(whole, state, strict=True)))
            )
            if not len(left):
                break
            index = left if index is None else index[left]
            state, problem = Iterate(*(t[left] for t in state)), problem.take(left)
    return whole


def fixed_trips(step: Callable, state: tuple[Tensor, ...], times: int) -> tuple[Tensor, ...]:
    """`step` as often as asked where no control flow may depend on values; one loop node under `torch.compile`."""
    if not torch.compiler.is_compiling():
        for _ in range(times):
            state = step(*state)
        return state
    from torch._higher_order_ops.while_loop import while_loop

    def goes_on(k: Tensor, *state: Tensor) -> Tensor:
        return k < times

    def body(k: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        return (k + 1, *(t.clone() for t in step(*state)))

    counter = torch.zeros((), dtype=torch.int64, device=state[0].device)
    return while_loop(goes_on, body, (counter, *state))[1:]
