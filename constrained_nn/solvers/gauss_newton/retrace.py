"""Derivatives of where Gauss-Newton steps end.

Every feasible point is a fixed point of the iteration, so that the solution alone does not determine how it moves
with the start: the way there does. One step `y⁺ = y − t p` (see `_damped_step`), with `K = J_D J_Dᵀ + δ(|S⁻¹r|) S²`,
sends a cotangent `g` back as follows. With `K s = J_D g_D` and `q = J_Dᵀ s − g_D`,

    g·dy⁺ = g·dy + t (w·dJ_D q + s·dJ p − s·dr + (s·S²w) δ' S⁻²r·dr / |S⁻¹r| − (g − Jᵀs)_F·d(y − b)_F),

the gradient of a scalar function of `y` and the data, with `w, s, p, q` held fixed: two directional derivatives of the
rows, and one factorization. Only the iterates are kept, `n` numbers a step.

An element that satisfies its rows from the start takes no step, but its neighbors do: there the derivative is that of
one undamped step on the equalities and on rows that rounding leaves violated, the limit of the derivatives around it.
A second one makes second derivatives right: after two, what is left of a violation `r` is of the order of `|r|⁴`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from constrained_nn.solvers.gauss_newton.damped_step import Step, gap_of, plain_step, way_to_bounds
from constrained_nn.solvers.gauss_newton.descent import ConstantDamping, Outcome
from constrained_nn.solvers.gauss_newton.linearized import DenseRows, Factor, Linearized, restricted
from constrained_nn.solvers.gauss_newton.row_problem import (
    OFF,
    Problem,
    equality_of,
    residual_of,
    row_exponents,
    weights,
)
from constrained_nn.solvers.solution import Status

Build = Callable[..., Problem]
_UNDAMPED = ConstantDamping(0.0)


def polish(problem: Problem, y: Tensor, side: Tensor | None) -> Tensor:
    """Two undamped steps from a point that satisfies its rows; their derivative is that of the neighborhood."""
    for _ in range(2):
        fixed = y.detach()
        y = plain_step(problem, y, undamped(problem, fixed, side, DenseRows(problem.jacobian(fixed))))
    return y


@torch.no_grad()
def undamped(problem: Problem, y: Tensor, side: Tensor | None, linear: Linearized) -> Step:
    """A full step on the equalities and on the rows that are violated at all; variables on their bounds stay there."""
    residual = residual_of(problem, problem.value(y))
    active = (residual != 0) | equality_of(problem, residual)
    rows = torch.where(active, row_exponents(linear, residual, y), OFF)
    one = torch.ones_like(y[..., 0])
    return Step(None, y, one, rows, _UNDAMPED, one, side)


def replay(build: Build, outcome: Outcome, y: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """The same steps once more, in operations with derivatives of every order, and the derivative where they end."""
    for step in outcome.path:
        if step.index is None:
            y = plain_step(build(*tensors), y, step)
        else:
            some = build(*(t[step.index] for t in tensors))
            y = y.index_copy(0, step.index, plain_step(some, y[step.index], step))
    index = (outcome.status == int(Status.OK)).nonzero().squeeze(-1)
    if not outcome.settles or not len(index):
        return y
    some = build(*(t[index] for t in tensors))
    near = polish(some, y[index], None if outcome.side is None else outcome.side[index])
    return y.index_copy(0, index, outcome.y[index] + (near - near.detach()))


class Retraced(torch.autograd.Function):
    """A result that is known already, with the exact derivative of the way to it.

    First derivatives go back step by step and keep one step's factorization at a time; where a graph of the
    derivative is asked for, it is built by `replay`.
    """

    @staticmethod
    def forward(ctx: Any, final: Tensor, build: Build, outcome: Any, y: Tensor, *tensors: Tensor):  # pyright: ignore
        ctx.run = (build, outcome)
        ctx.save_for_backward(y, *tensors)
        return final.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        build, outcome = ctx.run
        inputs = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():
            value = replay(build, outcome, inputs[0], inputs[1:])
            wanted = [t for t, need in zip(inputs, needed, strict=True) if need]
            found = iter(
                torch.autograd.grad(
                    value, wanted, g, create_graph=True, allow_unused=True, materialize_grads=True
                )
            )
            return (None, None, None, *(next(found) if need else None for need in needed))
        g = g.clone()
        sums = [torch.zeros_like(t) if need else None for t, need in zip(inputs[1:], needed[1:], strict=True)]
        for step in (*_last(build, outcome, inputs[1:]), *reversed(outcome.path)):
            rows = slice(None) if step.index is None else step.index
            change, *others = _step_back(build, step, g[rows], [t[rows] for t in inputs[1:]], needed[1:])
            g[rows] += change  # pyright: ignore[reportOperatorIssue]
            for total, part in zip(sums, others, strict=True):
                if total is not None and part is not None:
                    total[rows] += part
        return (None, None, None, g if needed[0] else None, *sums)


def _last(build: Build, outcome: Outcome, tensors: Sequence[Tensor]) -> list[Step]:
    """The undamped step of the elements that took none."""
    index = ((outcome.status == int(Status.OK)) & (outcome.steps == 0)).nonzero().squeeze(-1)
    if not outcome.settles or not len(index):
        return []
    problem = build(*(t[index] for t in tensors))
    side = None if outcome.side is None else outcome.side[index]
    y = outcome.y[index]
    return [undamped(problem, y, side, problem.linearize(y))._replace(index=index)]


def _step_back(
    build: Build, step: Step, g: Tensor, tensors: list[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """What one step adds to the gradients in `y` and in the tensors."""
    problem, weight = build(*tensors), weights(step.rows, g.dtype)
    linear = problem.linearize(step.y)
    gap, residual = gap_of(problem, problem.value(step.y), step.toward)
    norm = torch.linalg.vector_norm(residual * weight, dim=-1)
    held, free = None, g
    if step.side is not None:
        held, on = way_to_bounds(problem, step.y, step.side), step.side == 0
        gap, free = gap - linear.times(held), g * on
    factor = (linear if held is None else restricted(problem.jacobian(step.y), on)).factor(
        weight, step.factor * step.damping.value(norm)
    )
    w, s = factor.solve(gap), factor.solve(linear.times(free))
    p, q = linear.transposed(w), linear.transposed(s)
    bound = g - q
    if held is not None:
        p, q = p * on + held, q * on
    q = q - free
    square = torch.where(weight > 0, weight.clamp_min(torch.finfo(weight.dtype).tiny).square(), 1.0)
    share = (
        (s * w / square).sum(-1) * step.factor * step.damping.slope(norm) / torch.where(norm > 0, norm, 1.0)
    )
    on_residual = share.unsqueeze(-1) * residual * weight.square()
    t = step.length.unsqueeze(-1)
    with torch.enable_grad():
        y = step.y.detach().requires_grad_()
        leaves = [t.detach().requires_grad_(need) for t, need in zip(tensors, needed, strict=True)]
        again = build(*leaves)
        value, along_q = torch.func.jvp(again.value, (y,), (q,))[:2]
        along_p = torch.func.jvp(again.value, (y,), (p,))[1]
        moving, missed = gap_of(again, value, step.toward)
        total = (t * (w * along_q + s * (along_p - moving) + on_residual * missed)).sum()
        if step.side is not None:
            total = total - (t * bound * way_to_bounds(again, y, step.side)).sum()
        wanted = [y, *(leaf for leaf in leaves if leaf.requires_grad)]
        found = iter(torch.autograd.grad(total, wanted, allow_unused=True))
    return [next(found), *(next(found) if leaf.requires_grad else None for leaf in leaves)]


class _Solve(torch.autograd.Function):
    """`M⁻¹ r` with a constant symmetric `M`."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:  # pyright: ignore
        ctx.solve = solve
        return solve(r)

    @staticmethod
    def backward(ctx: Any, g: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Solve.apply(g, ctx.solve), None


def at_solution(build: Build, outcome: Outcome, y: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """The result with the derivative of one undamped step from it: `dy = (I − J_a⁺J_a) dy₀ − J_a⁺ dr_a`.

    `a` are the rows that a step worked on and that ended at their bound, or within a tenth of where they started;
    variables that the last step took to a bound move with it.
    """
    final, side = outcome.y, outcome.side
    with torch.no_grad():
        fixed = build(*(t.detach() for t in tensors))
        value = fixed.value(final)
        to_upper = (value - fixed.upper).abs() < (value - fixed.lower).abs()
        active = _ended_at_bound(fixed, outcome.path, final, y.detach(), value)
        linear = fixed.linearize(final)
        healthy = value.isfinite().all(-1) & linear.squares().isfinite().all(-1)
        if not bool(healthy.all()):  # a failed element with derivatives that are NaN keeps its value
            on = healthy.nonzero().squeeze(-1)
            fixed, active, to_upper = build(*(t.detach()[on] for t in tensors)), active[on], to_upper[on]
            linear = fixed.linearize(final[on])
    start = y - y.detach()
    if not bool(healthy.all()):
        whole, tensors, final, start = final + start, [t[on] for t in tensors], final[on], start[on]
        side = None if side is None else side[on]
    moving = build(*tensors)
    gap = moving.value(final) - torch.where(to_upper, moving.upper, moving.lower)
    gap = torch.where(active, gap, 0.0)
    if side is not None:
        start = start - way_to_bounds(moving, final + start, side)
    change = linear.times(start) + (gap - gap.detach())
    linear = linear if side is None else restricted(fixed.jacobian(final), side == 0)
    factor: Factor = linear.factor(active.to(final.dtype), final.new_zeros(len(active)))
    active = active & factor.sound.unsqueeze(-1)
    moved = final + start - linear.transposed(_Solve.apply(change * active, factor.solve))  # pyright: ignore
    return moved if bool(healthy.all()) else whole.index_copy(0, on, moved)


def _ended_at_bound(
    problem: Problem, path: Sequence[Step], final: Tensor, start: Tensor, value: Tensor
) -> Tensor:
    touched = (problem.lower == problem.upper).expand_as(value).clone()
    for step in path:
        touched[slice(None) if step.index is None else step.index] |= step.rows != OFF
    distance = torch.minimum((value - problem.upper).abs(), (value - problem.lower).abs())
    before = residual_of(problem, problem.value(start)).abs()
    return touched & (distance <= torch.maximum(0.1 * before, torch.full_like(before, 1e-6)))
