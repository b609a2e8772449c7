"""Projection onto linear matrix inequalities: splitting, acceleration, interior fallback, certificate, derivative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from constrained_nn._linalg import MatrixMap, branchless, certified_above
from constrained_nn.solvers import _lmi_interior as interior
from constrained_nn.solvers import _lmi_search as search
from constrained_nn.solvers._lmi_problem import Eigen, Problem, build
from constrained_nn.solvers._solution import FoundBy, Solution, Status

# Steps where no control flow may depend on values.
_FIXED_NEWTON, _FIXED_INTERIOR = 30, 24
# The augmented Lagrangian likes a larger penalty than Douglas-Rachford.
_RAISED = 10.0
# Margins of the second and third attempt, relative to the first.
_WIDER = (1.0, 1e2, 1e4)


@dataclass(frozen=True, eq=False)
class LMISolution(Solution):
    """A `Solution` with the certificate of a linear matrix inequality.

    With margin `δ` and increment `r <= δ` every scaled block satisfies `T F(y) T ⪰ (δ − r) I ⪰ 0`.

    Args:
        value: The decision `(*batch, m)`.
        status: `OK` where feasibility is proved.
        steps: Projections onto the cone and interior steps `(*batch)`.
        violation: Largest negative eigenvalue `(*batch)`; 0 where feasibility is proved.
        found_by: `NEWTON` (splitting and acceleration) or `INTERIOR_POINT`.
        duals: `Z`, all blocks side by side `(*batch, N)`; for a warm start.
        margin: `δ` that was asked for `(*batch)`.
        increment: `r` that was reached `(*batch)`.
    """

    margin: Tensor = None  # pyright: ignore[reportAssignmentType]
    increment: Tensor = None  # pyright: ignore[reportAssignmentType]


torch.export.register_dataclass(LMISolution, serialized_type_name="constrained_nn.LMISolution")


class Settings(NamedTuple):
    """How the search goes; see `LMINet`."""

    max_steps: int
    margin: float
    relaxation: float
    penalty: float | None
    congruence: bool
    splitting_steps: int
    accelerate: bool
    newton_steps: int
    interior_steps: int
    eigen: Eigen
    rounds_to: torch.dtype


class Found(NamedTuple):
    """Projections of a flat batch: point, multiplier (scaled blocks), and the account of them `(b,)`."""

    y: Tensor
    Z: Tensor
    margin: Tensor
    increment: Tensor
    certified: Tensor
    infeasible: Tensor
    interior: Tensor
    steps: Tensor


@torch.no_grad()
def project_lmi(
    target: Tensor, maps: Sequence[MatrixMap], settings: Settings, warm: tuple[Tensor, Tensor] | None = None
) -> tuple[Problem, Found]:
    """Projections of `target` `(b, m)`, float64 and finite, and the problem that their derivatives refer to.

    Args:
        target: Points `(b, m)`.
        maps: Blocks with one batch dimension, of `b` elements or one that all share.
        settings: How the search goes.
        warm: Point `(b, m)` and multiplier of the unscaled blocks `(b, N)` to start from.
    """
    margin = torch.full_like(target[:, 0], settings.margin)
    problem = build(target, maps, margin, settings.eigen, scale=settings.congruence)
    if branchless(target, problem.constant):
        return problem, _fixed(problem, maps, settings, margin)
    found = _first(problem, maps, settings, margin, warm)
    for wider in _WIDER:
        left = (~found.certified & ~found.infeasible).nonzero().squeeze(-1)
        if not len(left) or settings.interior_steps == 0:
            break
        part_margin = margin[left] * wider
        part_maps = [MatrixMap(*(t if t.shape[0] == 1 else t[left] for t in m)) for m in maps]
        part = build(target[left], part_maps, part_margin, settings.eigen, scale=settings.congruence)
        best = _interior(part, part_maps, settings, part_margin)
        better = (best.certified | ~found.y[left].isfinite().all(-1)).unsqueeze(-1)
        best = best._replace(  # a failed element keeps its least-violation point
            y=torch.where(better, best.y, found.y[left]),
            Z=torch.where(better, best.Z, found.Z[left]),
            steps=best.steps + found.steps[left],
        )
        found = Found(*(w.index_copy(0, left, p.to(w.dtype)) for w, p in zip(found, best, strict=True)))
    if bool((found.margin != margin).any()):
        problem = build(target, maps, found.margin, settings.eigen, scale=settings.congruence)
    return problem, found


def _first(
    problem: Problem,
    maps: Sequence[MatrixMap],
    settings: Settings,
    margin: Tensor,
    warm: tuple[Tensor, Tensor] | None,
) -> Found:
    """Splitting and acceleration; points that are inside already stay."""
    target = problem.target
    inside = _inside(problem)
    none = torch.zeros_like(margin)
    flag = torch.zeros_like(inside)
    found = Found(
        target,
        torch.zeros_like(problem.constant),
        margin,
        none,
        _certified(target, maps, settings),
        flag,
        flag,
        none,
    )
    found = found._replace(certified=found.certified & inside)
    left = (~found.certified).nonzero().squeeze(-1)
    if not len(left):
        return found
    part = problem if len(left) == len(target) else problem.take(left)
    part_maps = (
        maps
        if part is problem
        else [MatrixMap(*(t if t.shape[0] == 1 else t[left] for t in m)) for m in maps]
    )
    if warm is not None:
        warm = (warm[0][left], warm[1][left])
    best = _search(part, part_maps, settings, margin[left], warm)
    return Found(*(w.index_copy(0, left, p.to(w.dtype)) for w, p in zip(found, best, strict=True)))


def _search(
    problem: Problem,
    maps: Sequence[MatrixMap],
    settings: Settings,
    margin: Tensor,
    warm: tuple[Tensor, Tensor] | None,
) -> Found:
    target, penalty = problem.target, search.first_penalty(problem)
    if settings.penalty is not None:
        penalty = torch.full_like(penalty, settings.penalty)
    running = torch.ones_like(penalty, dtype=torch.bool)
    zero = torch.zeros_like(penalty)
    steps, increment = zero, torch.full_like(penalty, torch.inf)
    if warm is not None:
        scaled = [
            x / (t.unsqueeze(-1) * t.unsqueeze(-2))
            for x, t in zip(problem.split(warm[1]), problem.scales, strict=True)
        ]
        y, Z = warm[0], torch.cat([x.flatten(-2) for x in scaled], -1)
    elif settings.splitting_steps or not settings.accelerate:
        times = settings.splitting_steps if settings.accelerate else settings.max_steps
        state = search.Split(target, problem.value(target), penalty, increment, running, zero)
        # half a margin: the increment is that of the last point, the answer is one step further
        every = 25 if settings.penalty is None else times  # a fixed penalty is not balanced
        state = search.descend(problem, state, times, settings.relaxation, 0.5 * margin, every)
        y, Z = state.y, search.multiplier(problem, state)
        steps, increment, penalty = state.steps, state.increment, state.penalty
    else:
        y, Z = target, torch.zeros_like(problem.constant)
    solved = increment <= margin
    if settings.accelerate:
        times = max(0, min(settings.newton_steps, settings.max_steps - settings.splitting_steps))
        result = search.repeat(problem, search.begin(y, Z, _RAISED * penalty), times)
        y, Z, solved = result.y, result.multiplier, result.solved
        steps, increment = steps + result.steps, result.increment
    certified = solved & _certified(y, maps, settings)
    flag = torch.zeros_like(certified)
    return Found(y, Z, margin, increment, certified, flag, flag, steps)


def _interior(problem: Problem, maps: Sequence[MatrixMap], settings: Settings, margin: Tensor) -> Found:
    state = interior.repeat(problem, interior.begin(problem, problem.target), settings.interior_steps)
    increment = torch.linalg.vector_norm(problem.value(state.y) - state.X, dim=-1)
    certified = _certified(state.y, maps, settings) & ~state.infeasible
    return Found(
        state.y,
        state.Z,
        margin,
        increment,
        certified,
        state.infeasible,
        torch.ones_like(certified),
        state.steps,
    )


def _fixed(problem: Problem, maps: Sequence[MatrixMap], settings: Settings, margin: Tensor) -> Found:
    """A fixed number of steps of acceleration and of the interior method, the better of both."""
    penalty = search.first_penalty(problem)
    start = search.begin(problem.target, torch.zeros_like(problem.constant), _RAISED * penalty)
    result = search.repeat(problem, start, _FIXED_NEWTON)
    certified = result.solved & _certified(result.y, maps, settings)
    first = Found(
        result.y, result.multiplier, margin, result.increment, certified, ~result.running & ~result.solved,
        torch.zeros_like(certified), result.steps,
    )  # fmt: skip
    if settings.interior_steps == 0:
        return first
    best = _interior(problem, maps, settings._replace(interior_steps=_FIXED_INTERIOR), margin)
    pairs = zip(first, best, strict=True)
    return Found(
        *(
            torch.where(certified.unsqueeze(-1) if a.ndim > 1 else certified, a, b.to(a.dtype))
            for a, b in pairs
        )
    )


def _inside(problem: Problem) -> Tensor:
    """Whether `F(ŷ) ⪰ 0` already, margin included."""
    result = None
    for S in problem.split(problem.value(problem.target)):
        definite = torch.linalg.cholesky_ex(S)[1] == 0
        result = definite if result is None else result & definite
    assert result is not None
    return result


def _certified(y: Tensor, maps: Sequence[MatrixMap], settings: Settings) -> Tensor:
    """Whether every block is proved positive semidefinite at `y`, rounded to the dtype in which it is returned."""
    y = y.to(settings.rounds_to).to(y.dtype)
    result = torch.ones_like(y[:, 0], dtype=torch.bool)
    for map in maps:
        result = result & certified_above(map, y)
    return result


def status_of(found: Found) -> Tensor:
    """`Status` codes."""
    status = torch.where(found.infeasible, int(Status.INFEASIBLE), int(Status.MAX_STEPS))
    return torch.where(found.certified, int(Status.OK), status).to(torch.int8)


def found_by(found: Found) -> Tensor:
    """`FoundBy` codes."""
    return torch.where(found.interior, int(FoundBy.INTERIOR_POINT), int(FoundBy.NEWTON)).to(torch.int8)
