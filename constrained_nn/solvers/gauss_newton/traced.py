"""The steps of `_gauss_newton` for transforms: a fixed number of them, plain operations, no branches."""

from __future__ import annotations

import torch
from torch import Tensor

from constrained_nn.solvers.gauss_newton.damped_step import Step, longest, plain_step
from constrained_nn.solvers.gauss_newton.descent import GaussNewton
from constrained_nn.solvers.gauss_newton.line_search import cap
from constrained_nn.solvers.gauss_newton.linearized import DenseRows
from constrained_nn.solvers.gauss_newton.retrace import polish
from constrained_nn.solvers.gauss_newton.row_problem import (
    OFF,
    Problem,
    equality_of,
    into_box,
    residual_of,
    row_exponents,
    weights,
)
from constrained_nn.solvers.solution import Status

_HALVINGS = 5
# Rounds in which variables that a step would take out of their bounds are put on them.
_ROUNDS = 2


def descend_traced(problem: Problem, y: Tensor, method: GaussNewton) -> tuple[Tensor, Tensor, Tensor]:
    """`y`, status, steps."""
    steps = torch.zeros(y.shape[:-1], dtype=torch.int32, device=y.device)
    side = None if problem.box is None else torch.zeros_like(y, dtype=torch.int8)
    for _ in range(method.max_steps):
        with torch.no_grad():
            step, open_ = _chosen(problem, y.detach(), method)
        moved = into_box(problem, plain_step(problem, y, step))
        open_ = open_ & moved.detach().isfinite().all(-1)
        y = torch.where(open_.unsqueeze(-1), moved, y)
        if side is not None and step.side is not None:
            side = torch.where(open_.unsqueeze(-1), step.side, side)
        steps = steps + open_.to(torch.int32)
    with torch.no_grad():
        residual = residual_of(problem, problem.value(y.detach())).detach()
        small = residual.isfinite() if method.atol is None else residual.abs() <= method.atol
        held = small.all(-1)
        status = torch.where(held, int(Status.OK), int(Status.MAX_STEPS)).to(torch.int8)
    if method.atol is not None:
        near = polish(problem, y, side)
        y = torch.where(held.unsqueeze(-1), y.detach() + (near - near.detach()), y)
    return y, status, steps


def _chosen(problem: Problem, y: Tensor, method: GaussNewton) -> tuple[Step, Tensor]:
    """The next step, and the elements that take it."""
    value = problem.value(y).detach()
    residual = residual_of(problem, value)
    units = torch.zeros_like(residual, dtype=torch.int8)
    if method.normalize:
        units = row_exponents(DenseRows(problem.jacobian(y).detach()), residual, y)
    rows = torch.where(method.selected(residual, equality_of(problem, residual)), units, OFF)
    open_ = residual.isfinite().all(-1)
    if method.atol is not None:
        open_ = open_ & (residual.abs() > method.atol).any(-1)
    one = torch.ones_like(y[..., 0])
    side = None if problem.box is None else torch.zeros_like(y, dtype=torch.int8)
    step = Step(None, y, one, rows, method.damping, one, side)
    if problem.box is not None:
        lower, upper = problem.box
        for _ in range(_ROUNDS):
            end = plain_step(problem, y, step).detach()
            assert step.side is not None
            out = ((end > upper).to(torch.int8) - (end < lower).to(torch.int8)) * (step.side == 0)
            step = step._replace(side=step.side + out)
    if not method.backtracking:
        return step, open_
    p = y - plain_step(problem, y, step).detach()
    full, found = cap(y, p, method.largest_step) * longest(problem, y, p), torch.zeros_like(open_)
    weight = weights(units, y.dtype)
    merit, length = (residual * weight).square().sum(-1), full
    for k in range(_HALVINGS):
        t = 0.5**k * full
        trial = problem.value(into_box(problem, y - t.unsqueeze(-1) * p))
        now = (residual_of(problem, trial).detach() * weight).square().sum(-1)
        length = torch.where(found, length, t)
        found = found | (now < merit)
    return step._replace(length=length), open_ & found
