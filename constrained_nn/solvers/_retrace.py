"""Derivatives of where Gauss-Newton steps end.

Every feasible point is a fixed point of the iteration, so that the solution alone does not determine how it moves
with the start: the way there does. One step `y⁺ = y − t p`, `p = J_aᵀ w`, `M w = r`, `M = J_a J_aᵀ + δ(|r|) I`, sends a
cotangent `g` back as follows. With `M s = J_a g` and `q = J_aᵀ s − g`,

    g·dy⁺ = g·dy + t (w·dJ_a q + s·dJ_a p − s·dr + (s·w) δ'(|r|) r·dr / |r|),

the gradient of a scalar function of `y` and the data, with `w, s, p, q` held fixed: two directional derivatives of the
rows, and one factorization. Only the iterates are kept, `n` numbers a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from constrained_nn.solvers._gauss_newton import (
    GaussNewton,
    Problem,
    Step,
    plain_step,
    residual_of,
)
from constrained_nn.solvers._linearized import Factor

Build = Callable[..., Problem]


def replay(
    build: Build, path: Sequence[Step], method: GaussNewton, y: Tensor, tensors: Sequence[Tensor]
) -> Tensor:
    """The same steps once more, in operations with derivatives of every order."""
    for step in path:
        if step.index is None:
            y = plain_step(build(*tensors), y, step.active, step.length, method.damping)
        else:
            some = build(*(t[step.index] for t in tensors))
            moved = plain_step(some, y[step.index], step.active, step.length, method.damping)
            y = y.index_copy(0, step.index, moved)
    return y


class Retraced(torch.autograd.Function):
    """A result that is known already, with the exact derivative of the way to it.

    First derivatives go back step by step and keep one step's factorization at a time; where a graph of the
    derivative is asked for, it is built by `replay`.
    """

    @staticmethod
    def forward(ctx: Any, final: Tensor, build: Build, path: Any, method: Any, y: Tensor, *tensors: Tensor):  # pyright: ignore
        ctx.run = (build, path, method)
        ctx.save_for_backward(y, *tensors)
        return final.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        build, path, method = ctx.run
        inputs = ctx.saved_tensors
        needed = ctx.needs_input_grad[4:]
        if torch.is_grad_enabled():
            value = replay(build, path, method, inputs[0], inputs[1:])
            wanted = [t for t, need in zip(inputs, needed, strict=True) if need]
            found = iter(
                torch.autograd.grad(
                    value, wanted, g, create_graph=True, allow_unused=True, materialize_grads=True
                )
            )
            return (None, None, None, None, *(next(found) if need else None for need in needed))
        g = g.clone()
        sums = [torch.zeros_like(t) if need else None for t, need in zip(inputs[1:], needed[1:], strict=True)]
        for step in reversed(path):
            rows = slice(None) if step.index is None else step.index
            change, *others = _step_back(
                build, step, method, g[rows], [t[rows] for t in inputs[1:]], needed[1:]
            )
            g[rows] += change  # pyright: ignore[reportOperatorIssue]
            for total, part in zip(sums, others, strict=True):
                if total is not None and part is not None:
                    total[rows] += part
        return (None, None, None, None, g if needed[0] else None, *sums)


def _step_back(
    build: Build, step: Step, method: GaussNewton, g: Tensor, tensors: list[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """What one step adds to the gradients in `y` and in the tensors."""
    problem, active = build(*tensors), step.active
    linear = problem.linearize(step.y)
    residual = residual_of(problem, problem.value(step.y))
    norm = torch.linalg.vector_norm(residual, dim=-1)
    factor = linear.factor(active, method.damping.value(norm))
    w, s = factor.solve(residual), factor.solve(linear.times(g))
    p, q = linear.transposed(w), linear.transposed(s) - g
    share = (s * w).sum(-1) * method.damping.slope(norm) / torch.where(norm > 0, norm, 1.0)
    on_residual = share.unsqueeze(-1) * residual - s
    t = step.length.unsqueeze(-1)
    with torch.enable_grad():
        y = step.y.detach().requires_grad_()
        leaves = [t.detach().requires_grad_(need) for t, need in zip(tensors, needed, strict=True)]
        again = build(*leaves)
        value, along_q = torch.func.jvp(again.value, (y,), (q,))[:2]
        along_p = torch.func.jvp(again.value, (y,), (p,))[1]
        total = t * (w * along_q + s * along_p + on_residual * residual_of(again, value))
        wanted = [y, *(leaf for leaf in leaves if leaf.requires_grad)]
        found = iter(torch.autograd.grad(total.sum(), wanted, allow_unused=True))
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


def at_solution(
    build: Build, path: Sequence[Step], final: Tensor, y: Tensor, tensors: Sequence[Tensor]
) -> Tensor:
    """`final` with the derivative of one undamped step from it: `dy = (I − J_a⁺J_a) dy₀ − J_a⁺ dr_a`.

    `a` are the rows that a step worked on and that ended at their bound, or within a tenth of where they started.
    """
    with torch.no_grad():
        fixed = build(*(t.detach() for t in tensors))
        value = fixed.value(final)
        to_upper = (value - fixed.upper).abs() < (value - fixed.lower).abs()
        active = _ended_at_bound(fixed, path, final, y.detach(), value)
        linear = fixed.linearize(final)
        healthy = value.isfinite().all(-1) & linear.squared(torch.ones_like(active)).isfinite()
        if not bool(healthy.all()):  # a failed element with derivatives that are NaN keeps its value
            on = healthy.nonzero().squeeze(-1)
            fixed, active, to_upper = build(*(t.detach()[on] for t in tensors)), active[on], to_upper[on]
            linear = fixed.linearize(final[on])
        factor: Factor = linear.factor(active, final.new_zeros(len(active)))
        active = active & factor.sound.unsqueeze(-1)
    start = y - y.detach()
    if not bool(healthy.all()):
        whole, tensors, final, start = final + start, [t[on] for t in tensors], final[on], start[on]
    moving = build(*tensors)
    gap = moving.value(final) - torch.where(to_upper, moving.upper, moving.lower)
    gap = torch.where(active, gap, 0.0)
    change = linear.times(start) + (gap - gap.detach())
    moved = final + start - linear.transposed(_Solve.apply(change * active, factor.solve))  # pyright: ignore
    return moved if bool(healthy.all()) else whole.index_copy(0, on, moved)


def _ended_at_bound(
    problem: Problem, path: Sequence[Step], final: Tensor, start: Tensor, value: Tensor
) -> Tensor:
    touched = (problem.lower == problem.upper).expand_as(value).clone()
    for step in path:
        if step.index is None:
            touched |= step.active
        else:
            touched[step.index] |= step.active
    distance = torch.minimum((value - problem.upper).abs(), (value - problem.lower).abs())
    before = residual_of(problem, problem.value(start)).abs()
    return touched & (distance <= torch.maximum(0.1 * before, torch.full_like(before, 1e-6)))
