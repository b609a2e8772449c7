"""How far a step goes: halved until the residual falls, and doubled while that pays."""

from __future__ import annotations

import torch
from torch import Tensor

from constrained_nn.linalg import branchless
from constrained_nn.solvers.gauss_newton.damped_step import longest
from constrained_nn.solvers.gauss_newton.row_problem import Problem, into_box, plain_residual

# A step of length t must lower |r|² by this share of what the linear model promises, at least.
_ARMIJO = 1e-4
_HALVINGS, _DOUBLINGS = 14, 10
# A step that leaves more than this share of |r|² converges slowly: a longer one is tried.
_SLOW = 0.01
# A longer step must leave less than this share, or it overshoots.
_PAYS = 0.25


def search(
    problem: Problem,
    y: Tensor,
    value: Tensor,
    residual: Tensor,
    p: Tensor,
    weight: Tensor,
    promised: Tensor,
    sound: Tensor,
    largest: float,
    *,
    expand: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Step lengths, points and values, and which elements found a point with less violation.

    The violation is that of the rows times `weight`.
    """

    def merit_of(part: Problem, values: Tensor, scale: Tensor) -> Tensor:
        return (plain_residual(part, values) * scale).square().sum(-1)

    merit = (residual * weight).square().sum(-1)
    length = cap(y, p, largest)
    if problem.box is not None:
        length = length * longest(problem, y, p)
    y_next = into_box(problem, y - length.unsqueeze(-1) * p)
    found = problem.value(y_next)
    now = merit_of(problem, found, weight)
    moved = sound & (now < merit - 2.0 * _ARMIJO * length * promised)
    if not expand and bool(moved.all()):
        return length, y_next, found, moved
    trying = (sound & ~moved).nonzero().squeeze(-1)
    y_next[~moved], found[~moved] = y[~moved], value[~moved]
    for _ in range(_HALVINGS):
        if not len(trying):
            break
        length[trying] *= 0.5
        t = length[trying]
        part = problem.pick(trying)
        trial = into_box(part, y[trying] - t.unsqueeze(-1) * p[trying])
        values = part.value(trial)
        reached = merit_of(part, values, weight[trying])
        good = reached < merit[trying] - 2.0 * _ARMIJO * t * promised[trying]
        won = trying[good]
        y_next[won], found[won], now[won], moved[won] = trial[good], values[good], reached[good], True
        trying = trying[~good]
    if not expand:
        return length, y_next, found, moved
    trying = (moved & (now > _SLOW * merit) & (length == 1)).nonzero().squeeze(-1)
    for _ in range(_DOUBLINGS):
        if not len(trying):
            break
        part = problem.pick(trying)
        t = 2.0 * length[trying]
        trial = y[trying] - t.unsqueeze(-1) * p[trying]
        values = part.value(into_box(part, trial))
        reached = merit_of(part, values, weight[trying])
        good = (reached < _PAYS * now[trying]) & (longest(part, y[trying], t.unsqueeze(-1) * p[trying]) == 1)
        won = trying[good]
        length[won], y_next[won], found[won], now[won] = t[good], trial[good], values[good], reached[good]
        trying = won
    return length, y_next, found, moved


def cap(y: Tensor, p: Tensor, largest: float) -> Tensor:
    """1, halved until the step is no longer than allowed."""
    allowed = largest * (1.0 + torch.linalg.vector_norm(y, dim=-1))
    size = torch.linalg.vector_norm(p, dim=-1)
    if not branchless(y) and bool((size <= allowed).all()):
        return torch.ones_like(size)
    ratio = size / allowed
    return torch.exp2(-torch.log2(ratio.clamp_min(1.0)).ceil())
