"""Projection onto linear matrix inequalities: splitting, acceleration, interior fallback, certificate, derivative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from constrained_nn.linalg import MatrixMap, branchless, certified_above, rounding_of
from constrained_nn.solvers.lmi import interior as interior
from constrained_nn.solvers.lmi import search as search
from constrained_nn.solvers.lmi.problem import Eigen, Problem, build, by_block
from constrained_nn.solvers.solution import FoundBy, PerElement, Solution, Status

# Steps where no control flow may depend on values.
_FIXED_NEWTON, _FIXED_INTERIOR = 30, 24
# The augmented Lagrangian likes a larger penalty than Douglas-Rachford.
_RAISED = 10.0
# A point counts as near if it is within this of the projection, relative to 1 + |y|, and to the proposal.
_NEAR, _NEAR_FAR = 1e-2, 1e-6
# Rounding of `⟨Z, F⟩` and of the semidefiniteness of `Z`, relative to the sizes of both.
_ROUNDING = 1e-14
# Attempts of the interior method; each after the first has a wider margin.
_ATTEMPTS = 5


@dataclass(frozen=True, eq=False)
class LMISolution(Solution):
    """A `Solution` with the certificate of a linear matrix inequality.

    With margin `δ` and increment `r <= δ` every scaled block satisfies `T F(y) T ⪰ (δ − r) I ⪰ 0`.

    Args:
        value: The decision `(*batch, m)`.
        status: `OK` where feasibility is proved and the point is near the projection; `STAGNATED` where only the first.
        steps: Projections onto the cone and interior steps `(*batch)`.
        violation: Largest negative eigenvalue `(*batch)`; 0 where feasibility is proved.
        found_by: `NEWTON` (splitting and acceleration) or `INTERIOR_POINT`.
        duals: `Z`, all blocks side by side `(*batch, N)`; for a warm start.
        margin: `δ` that was asked for `(*batch)`.
        increment: `r` that was reached `(*batch)`.
        error: Bound on the distance to the nearest point of the set itself, without margin `(*batch)`; `inf` where
            feasibility is not proved.
    """

    margin: Tensor = None  # pyright: ignore[reportAssignmentType]
    increment: Tensor = None  # pyright: ignore[reportAssignmentType]
    error: Tensor = None  # pyright: ignore[reportAssignmentType]

    advice: ClassVar[Mapping[Status, str]] = {
        **PerElement.advice,
        Status.STAGNATED: (
            "The inequalities hold, but the point is not proved to be near the projection; `error` bounds "
            "its distance. Propose a nearer point, or widen the margin."
        ),
    }


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
    """Projections of a flat batch, and the account of them.

    Args:
        y: Point `(b, m)`.
        Z: Multiplier of the scaled blocks `(b, N)`.
        margin: What was taken off the diagonals of the scaled blocks `(b, Σ n)`.
        increment: `r` `(b,)`.
        proved: Whether `F(y) ⪰ 0` is proved `(b,)`.
        near: Whether `y` is near the projection onto the set with margin, by duality `(b,)`.
        infeasible: Whether the set is proved empty `(b,)`.
        interior: Whether the interior method found the point `(b,)`.
        steps: Projections and interior steps `(b,)`.
    """

    y: Tensor
    Z: Tensor
    margin: Tensor
    increment: Tensor
    proved: Tensor
    near: Tensor
    infeasible: Tensor
    interior: Tensor
    steps: Tensor

    @property
    def good(self) -> Tensor:
        """Whether the point is what was asked for `(b,)`."""
        return self.proved & self.near


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
    margin = target.new_full((len(target), sum(map.order for map in maps)), settings.margin)
    problem = build(target, maps, margin, settings.eigen, scale=settings.congruence)
    if branchless(target, problem.constant):
        return problem, _fixed(problem, maps, settings)
    found = _first(problem, maps, settings, warm)
    for _ in range(_ATTEMPTS if settings.interior_steps else 0):
        left = (~found.good & ~found.infeasible).nonzero().squeeze(-1)
        if not len(left):
            break
        found = _again(problem, maps, settings, found, left)
    if bool((found.margin != margin).any()):
        problem = build(target, maps, found.margin, settings.eigen, scale=settings.congruence)
    return problem, found


def _again(
    problem: Problem, maps: Sequence[MatrixMap], settings: Settings, found: Found, left: Tensor
) -> Found:
    """The interior method for the elements `left`, each with the least margin that its proof needs."""
    part_maps = [MatrixMap(*(t if t.shape[0] == 1 else t[left] for t in m)) for m in maps]
    before = Found(*(t[left] for t in found))
    wider = _wider(problem.take(left), part_maps, settings, before)
    margin = torch.where(before.interior.unsqueeze(-1), wider, before.margin)
    part = build(problem.target[left], part_maps, margin, settings.eigen, scale=settings.congruence)
    best = _interior(part, part_maps, settings)
    better = best.good | (best.proved & ~before.proved) | ~before.y.isfinite().all(-1)
    best = best._replace(  # a failed element keeps its least-violation point
        y=torch.where(better.unsqueeze(-1), best.y, before.y),
        Z=torch.where(better.unsqueeze(-1), best.Z, before.Z),
        proved=best.proved | before.proved,
        steps=best.steps + before.steps,
    )
    return Found(*(w.index_copy(0, left, p.to(w.dtype)) for w, p in zip(found, best, strict=True)))


def _wider(problem: Problem, maps: Sequence[MatrixMap], settings: Settings, found: Found) -> Tensor:
    """Margins at which rounding leaves room for the proof at the point found: `F ⪰ δ T⁻² + 4 ε D⁻²`."""
    parts, dtype = [], settings.rounds_to
    for map, T in zip(maps, problem.scales, strict=True):
        _, bound, D, size = rounding_of(map, found.y.to(dtype).to(found.y.dtype))
        bound = bound + (0.0 if dtype == size.dtype else torch.finfo(dtype).eps * size)  # of the decision
        parts.append(4.0 * bound.unsqueeze(-1) * (T / D).square())
    needed = settings.margin + torch.cat(parts, -1).nan_to_num(0.0, 0.0, 0.0)
    had_room = (needed <= found.margin).all(-1, keepdim=True)
    return torch.where(had_room, 100.0 * found.margin, torch.maximum(needed, found.margin))


def _first(
    problem: Problem,
    maps: Sequence[MatrixMap],
    settings: Settings,
    warm: tuple[Tensor, Tensor] | None,
) -> Found:
    """Splitting and acceleration; points that are inside already stay."""
    target = problem.target
    inside = _inside(problem)
    none = torch.zeros_like(target[:, 0])
    flag = torch.zeros_like(inside)
    found = Found(
        y=target,
        Z=torch.zeros_like(problem.constant),
        margin=problem.margin,
        increment=none,
        proved=_proved(target, maps, settings),
        near=inside,
        infeasible=flag,
        interior=flag,
        steps=none,
    )
    left = (~found.good).nonzero().squeeze(-1)
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
    best = _search(part, part_maps, settings, warm)
    return Found(*(w.index_copy(0, left, p.to(w.dtype)) for w, p in zip(found, best, strict=True)))


def _search(
    problem: Problem,
    maps: Sequence[MatrixMap],
    settings: Settings,
    warm: tuple[Tensor, Tensor] | None,
) -> Found:
    target, penalty = problem.target, search.first_penalty(problem)
    if settings.penalty is not None:
        penalty = torch.full_like(penalty, settings.penalty)
    running = torch.ones_like(penalty, dtype=torch.bool)
    margin = problem.margin.amin(-1)
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
    proved, flag = _proved(y, maps, settings), torch.zeros_like(solved)
    near = solved & _near(problem, y, Z)
    return Found(y, Z, problem.margin, increment, proved, near, flag, flag, steps)


def _interior(problem: Problem, maps: Sequence[MatrixMap], settings: Settings) -> Found:
    state = interior.repeat(problem, interior.begin(problem, problem.target), settings.interior_steps)
    return Found(
        y=state.y,
        Z=state.Z,
        margin=problem.margin,
        increment=torch.linalg.vector_norm(problem.value(state.y) - state.X, dim=-1),
        proved=_proved(state.y, maps, settings) & ~state.infeasible,
        near=_near(problem, state.y, state.Z),
        infeasible=state.infeasible,
        interior=torch.ones_like(state.done),
        steps=state.steps,
    )


def _fixed(problem: Problem, maps: Sequence[MatrixMap], settings: Settings) -> Found:
    """A fixed number of steps of acceleration and of the interior method, the better of both."""
    penalty = search.first_penalty(problem)
    start = search.begin(problem.target, torch.zeros_like(problem.constant), _RAISED * penalty)
    result = search.repeat(problem, start, _FIXED_NEWTON)
    flag = torch.zeros_like(result.solved)
    first = Found(
        y=result.y,
        Z=result.multiplier,
        margin=problem.margin,
        increment=result.increment,
        proved=_proved(result.y, maps, settings),
        near=result.solved & _near(problem, result.y, result.multiplier),
        infeasible=flag,
        interior=flag,
        steps=result.steps,
    )
    if settings.interior_steps == 0:
        return first
    best = _interior(problem, maps, settings._replace(interior_steps=_FIXED_INTERIOR))
    good, pairs = first.good, zip(first, best, strict=True)
    return Found(
        *(torch.where(good.unsqueeze(-1) if a.ndim > 1 else good, a, b.to(a.dtype)) for a, b in pairs)
    )


def _inside(problem: Problem) -> Tensor:
    """Whether `F(ŷ) ⪰ 0` already, margin included."""
    result = None
    for S in problem.split(problem.value(problem.target)):
        definite = torch.linalg.cholesky_ex(S)[1] == 0
        result = definite if result is None else result & definite
    assert result is not None
    return result


def _proved(y: Tensor, maps: Sequence[MatrixMap], settings: Settings) -> Tensor:
    """Whether every block is proved positive semidefinite at `y`, rounded to the dtype in which it is returned."""
    y = y.to(settings.rounds_to).to(y.dtype)
    result = torch.ones_like(y[:, 0], dtype=torch.bool)
    for map in maps:
        result = result & certified_above(map, y)
    return result


def _near(problem: Problem, y: Tensor, Z: Tensor) -> Tensor:
    """Whether `y` is proved to be near the projection onto the set with margin, for its own size."""
    size = 1.0 + torch.linalg.vector_norm(y, dim=-1)
    far = torch.linalg.vector_norm(problem.target, dim=-1)
    return _distance(problem, y, Z, problem.value(y)) <= _NEAR * size + _NEAR_FAR * far


def error_of(problem: Problem, found: Found, dtype: torch.dtype) -> Tensor:
    """Bound on the distance from a proved point, rounded to `dtype`, to the nearest point of the set `(b,)`."""
    F = problem.value(found.y) + torch.cat(
        [torch.diag_embed(m).flatten(-2) for m in by_block(found.margin, problem.maps)], -1
    )
    rounding = 0.0
    if dtype != found.y.dtype:
        rounding = 0.5 * torch.finfo(dtype).eps * torch.linalg.vector_norm(found.y, dim=-1)
    return torch.where(found.proved, _distance(problem, found.y, found.Z, F) + rounding, torch.inf)


def _distance(problem: Problem, y: Tensor, Z: Tensor, F: Tensor) -> Tensor:
    """Bound on `|y − y*|` for a feasible `y`, by weak duality.

    `½|y − y*|² <= ½|y − ŷ|² − min_x (½|x − ŷ|² − ⟨Z, F(x)⟩) = ½|y − ŷ − LᵀZ|² + ⟨Z, F(y)⟩` for every `Z ⪰ 0`;
    what rounding may hide of that is added.
    """
    gradient = y - problem.target - problem.adjoint(Z)
    size = sum(torch.linalg.vector_norm(t, dim=-1) for t in (problem.constant, F))
    noise = _ROUNDING * torch.linalg.vector_norm(Z, dim=-1) * size
    gap = gradient.square().sum(-1) + 2.0 * (Z * F).sum(-1).clamp_min(0.0) + noise
    return gap.sqrt()


def status_of(found: Found) -> Tensor:
    """`Status` codes."""
    status = torch.where(found.infeasible, int(Status.INFEASIBLE), int(Status.MAX_STEPS))
    status = torch.where(found.proved, int(Status.STAGNATED), status)
    return torch.where(found.good, int(Status.OK), status).to(torch.int8)


def found_by(found: Found) -> Tensor:
    """`FoundBy` codes."""
    return torch.where(found.interior, int(FoundBy.INTERIOR_POINT), int(FoundBy.NEWTON)).to(torch.int8)
