"""One damped Gauss-Newton step within the bounds of the variables.

With the rows `a` in their units `S`, the variables `F` that the step takes to a bound `b`, and `D` the others,

    y⁺ = y − t p,   p_F = y_F − b,   p_D = J_Dᵀ w,   (J_D J_Dᵀ + δ S²) w = r − J_F p_F:

the least-squares step of Levenberg and Marquardt, in units that do not depend on how the rows were written.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from constrained_nn.linalg import matvec, rmatvec, safe_norm
from constrained_nn.solvers.gauss_newton.linearized import DenseRows, Linearized, normal_matrix, restricted
from constrained_nn.solvers.gauss_newton.row_problem import OFF, Problem, residual_of, weights
from constrained_nn.solvers.polyhedron import project_polyhedron

# Rounds in which variables that a step would take out of their bounds are put on them.
_ROUNDS = 4
# Variables that end this close to a bound, relative to 1 + |y|, go to it.
_NEAR = 1e-9


@runtime_checkable
class Damping(Protocol):
    """How much is added to the normal matrix, from the norm of the residual."""

    def value(self, norm: Tensor) -> Tensor:
        """The damping, of the shape of `norm`."""
        ...

    def slope(self, norm: Tensor) -> Tensor:
        """Its derivative."""
        ...


class Step(NamedTuple):
    """One step of the elements `index` (`None`: all), with what determines it.

    Args:
        y: Where it starts.
        length: `t`.
        rows: Exponents of the units of the rows `a`, `OFF` for the others.
        damping: `δ` as a function of the norm of the residual.
        factor: What `δ` is multiplied by.
        side: `F`: -1 for variables that go to their lower bound, +1 upper, 0 free; `None`: all are free.
        toward: -1 for rows that go to their lower bound though they hold, +1 upper; `None`: none does.
    """

    index: Tensor | None
    y: Tensor
    length: Tensor
    rows: Tensor
    damping: Damping
    factor: Tensor
    side: Tensor | None = None
    toward: Tensor | None = None

    def pick(self, index: Tensor) -> Step:
        """The step for some of its elements."""
        own = index if self.index is None else self.index[index]
        side, toward = (None if t is None else t[index] for t in (self.side, self.toward))
        some = (self.y[index], self.length[index], self.rows[index])
        return Step(own, *some, self.damping, self.factor[index], side, toward)


def gap_of(problem: Problem, value: Tensor, toward: Tensor | None) -> tuple[Tensor, Tensor]:
    """What a step removes from each row, and the residuals."""
    residual = residual_of(problem, value)
    if toward is None:
        return residual, residual
    lower, upper = problem.lower.expand_as(value), problem.upper.expand_as(value)
    low, up = toward < 0, toward > 0
    bound = torch.where(low, torch.where(low, lower, 0.0), torch.where(up, upper, 0.0))
    return torch.where(low | up, value - bound, residual), residual


def way_to_bounds(problem: Problem, y: Tensor, side: Tensor) -> Tensor:
    """`y − b` for the variables that go to a bound, zero for the others."""
    assert problem.box is not None
    lower, upper = (bound.expand_as(y) for bound in problem.box)
    low, up = side < 0, side > 0
    bound = torch.where(low, torch.where(low, lower, 0.0), torch.where(up, upper, 0.0))
    return torch.where(low | up, y - bound, 0.0)


def plain_step(problem: Problem, y: Tensor, step: Step) -> Tensor:
    """The step in operations with derivatives of every order."""
    weight = weights(step.rows, y.dtype)
    gap, residual = gap_of(problem, problem.value(y), step.toward)
    J = problem.jacobian(y)
    damping = step.factor * step.damping.value(safe_norm(residual * weight))
    held = None
    if step.side is not None:
        held = way_to_bounds(problem, y, step.side)
        gap = gap - matvec(J, held)
        J = J * (step.side == 0).unsqueeze(-2)
    L = torch.linalg.cholesky_ex(normal_matrix(J, weight, damping))[0]
    w = weight * torch.cholesky_solve((gap * weight).unsqueeze(-1), L).squeeze(-1)
    p = rmatvec(J, w) if held is None else held + rmatvec(J, w)
    return y - step.length.unsqueeze(-1) * p


class Direction(NamedTuple):
    """`p`, the elements for which it exists, and what determines it (as in `Step`)."""

    p: Tensor
    sound: Tensor
    rows: Tensor
    side: Tensor | None
    toward: Tensor | None = None


def direction(
    problem: Problem,
    linear: Linearized,
    y: Tensor,
    gap: Tensor,
    rows: Tensor,
    delta: Tensor,
    weight: Tensor | None = None,
) -> Direction:
    """The step on given rows; variables that it would take out of their bounds go to them instead.

    `weight` are the `weights` of the rows, if they are known.
    """
    p, sound = _solved(linear, gap, rows, delta, weight)
    if problem.box is None:
        return Direction(p, sound, rows, None)
    chosen = Direction(p, sound, rows, torch.zeros_like(y, dtype=torch.int8))
    return _within_bounds(problem, y, gap, delta, chosen)


def _within_bounds(problem: Problem, y: Tensor, gap: Tensor, delta: Tensor, chosen: Direction) -> Direction:
    """The direction with the variables that it would take out of their bounds on them, round by round."""
    p, sound, rows, side = chosen.p, chosen.sound, chosen.rows, chosen.side
    assert side is not None
    for _ in range(_ROUNDS):
        out = _beyond(problem, y - p) * (side == 0)
        some = (out != 0).any(-1).nonzero().squeeze(-1)
        if not len(some):
            break
        side = side + out
        part = problem.pick(some)
        J = part.jacobian(y[some])
        p[some], good = _held(part, J, y[some], gap[some], rows[some], delta[some], side[some])
        sound[some] &= good
    return chosen._replace(side=side)


def _solved(
    linear: Linearized, gap: Tensor, rows: Tensor, delta: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`p` without bounds, zero where it does not exist, and where it does."""
    factor = linear.factor(weights(rows, gap.dtype) if weight is None else weight, delta)
    p = linear.transposed(factor.solve(gap))
    if math.isfinite(p.sum()) and bool(factor.sound.all()):
        return p, factor.sound
    sound = factor.sound & p.isfinite().all(-1)
    return torch.where(sound.unsqueeze(-1), p, 0.0), sound


def _held(problem: Problem, J, y, gap, rows, delta, side) -> tuple[Tensor, Tensor]:
    """The same with given variables on their bounds."""
    held = way_to_bounds(problem, y, side)
    p, sound = _solved(restricted(J, side == 0), gap - matvec(J, held), rows, delta)
    return torch.where(sound.unsqueeze(-1), held + p, 0.0), sound


def _beyond(problem: Problem, y: Tensor) -> Tensor:
    """-1 for components below their bounds, +1 above."""
    assert problem.box is not None
    lower, upper = problem.box
    return (y > upper).to(torch.int8) - (y < lower).to(torch.int8)


def longest(problem: Problem, y: Tensor, p: Tensor) -> Tensor:
    """The longest `t <= 1` for which `y − t p` stays within the bounds."""
    if problem.box is None:
        return torch.ones_like(y[..., 0])
    lower, upper = problem.box
    room = torch.where(p > 0, y - lower, upper - y).clamp_min(0.0)
    rounding = 1e-9 * p.abs() + 64.0 * torch.finfo(y.dtype).eps * (1.0 + y.abs())
    crosses = room < p.abs() - rounding
    ratio = torch.where(crosses, room / torch.where(crosses, p.abs(), 1.0), 1.0)
    return ratio.amin(-1)


def elastic_direction(problem: Problem, y: Tensor, value: Tensor, units: Tensor, delta: Tensor) -> Direction:
    """The step that minimizes `δ |p|² + |s|²`, `lower <= c − J p + S s <= upper`, within the bounds: all rows at once.

    Rows that hold keep holding, as far as they can; there is such a step also where the rows contradict each other.
    """
    n, m = y.shape[-1], value.shape[-1]
    weight, J = weights(units, y.dtype), problem.jacobian(y)
    sane = J.isfinite().all(-1).all(-1)
    J = torch.where(sane[:, None, None], J, 0.0)
    slack = torch.diag_embed(delta.sqrt().unsqueeze(-1).expand_as(weight))
    free = torch.full_like(value, torch.inf)
    box = None
    if problem.box is not None:
        box = tuple(torch.cat([b - y, f], -1) for b, f in zip(problem.box, (-free, free), strict=True))
    found = project_polyhedron(
        y.new_zeros(len(y), n + m),
        torch.cat([J * weight.unsqueeze(-1), slack], -1),
        (problem.lower - value) * weight,
        (problem.upper - value) * weight,
        box=box,  # pyright: ignore[reportArgumentType]
    )
    assert found.duals is not None
    rows = torch.where(found.duals != 0, units, OFF)
    free_sign = torch.where(problem.lower == problem.upper, 0.0, found.duals.sign())
    toward = free_sign.to(torch.int8)
    gap, _ = gap_of(problem, value, toward)
    if problem.box is None:
        p, sound = _solved(DenseRows(J), gap, rows, delta)
        return Direction(p, sound & sane, rows, None, toward)
    end, near = y + found.value[:, :n], _NEAR * (1.0 + y.abs())
    side = (end >= problem.box[1] - near).to(torch.int8) - (end <= problem.box[0] + near).to(torch.int8)
    p, sound = _held(problem, J, y, gap, rows, delta, side)
    return _within_bounds(problem, y, gap, delta, Direction(p, sound & sane, rows, side, toward))
