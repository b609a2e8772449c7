"""Euclidean projection onto intersections of curved convex sets: semismooth Newton on an augmented Lagrangian.

Each set enters as rows `L` and the projection onto `K` in `{x : L x ∈ K}`, so that this file knows no sets. With
`r = L x + w / τ` the augmented Lagrangian of `min ½|x − y|²` over all of them is

    φ(x) = ½|x − y|² + ½ τ |r − P(r)|²,    ∇φ = x − y + Lᵀ w⁺,   w⁺ = τ (r − P(r)),

smooth and strongly convex. Newton's method with the derivative `D` of the projections, `H = I + τ Lᵀ (I − D) L`,
minimizes it; the multipliers `w ← w⁺` then converge at a rate near `1/τ`. A few Newton steps on the optimality
conditions themselves polish the result to rounding, and their matrix carries the derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.linalg import matvec, power_of_two, rmatvec, safe_norm
from constrained_nn.solvers.loops import anyone, may_look, repeat
from constrained_nn.solvers.solution import Solution, Status

_FIRST_PENALTY, _LAST_PENALTY = 10.0, 1e8
# Fractions of a Newton step that are tried, all at once.
_FRACTIONS = (1.0, 0.5, 0.2, 0.05)
_STEPS, _POLISH_STEPS, _LEAST_STEPS = 80, 3, 12
# By how much one round draws a far proposal near, and rounds from the largest float to the smallest.
_NEARER, _ROUNDS, _FAR = 2.0**-10, 250, 1e4
# Optimality conditions of a result, relative to the size of the points; the search hands over earlier.
_KKT_RTOL, _SEARCH_RTOL = 1e-9, 1e-7
# Added to the Gram matrix of the rows: dependent active constraints leave their multipliers undetermined.
_PROXIMAL = 1e-9
# A set without a point within this many times the size of the data counts as empty.
_RADIUS = 1e6


class Term(NamedTuple):
    """The constraint `rows x ∈ K`, with the Euclidean projection onto `K`."""

    rows: Float[Tensor, "*batch m n"]
    project: Callable[[Tensor], Tensor]


def project_intersection(
    y: Float[Tensor, "*batch n"],
    terms: Sequence[Term],
    detached: Sequence[Term],
    *,
    max_steps: int | None = None,
) -> Solution:
    """Nearest point of `{x : rows x ∈ K for all terms}`, in float64.

    Differentiable in `y` and in whatever `terms` were built from, to second order, through two Newton steps with
    fixed matrix from the solution; elements that are not `OK` have a zero gradient.

    Args:
        y: Point `(*batch, n)`, finite.
        terms: The constraints; rows of unit norm are solved best.
        detached: The same constraints without derivatives.
        max_steps: Newton steps before an element is flagged `MAX_STEPS`; default 80.

    Returns:
        `OK`; `INFEASIBLE` if a separating multiplier proves that no point of the set lies within a million times
        the size of the data, with the least-violation point; `MAX_STEPS` with the best point found.
    """
    with torch.no_grad():
        size = power_of_two(_Problem(y.detach(), detached).size).unsqueeze(-1)
    y, terms, plain = y / size, _in_unit(terms, size), _in_unit(detached, size)
    found = _solve(_Problem(y.detach(), plain), max_steps or _STEPS)
    L, w = _stacked(terms), found.w
    for _ in range(2):
        w = w + matvec(found.inverse, _optimality(terms, L, y, w))
    solved = found.solved.unsqueeze(-1)
    value = y - rmatvec(L, torch.where(solved, w, 0.0))
    value = torch.where(found.drawn.unsqueeze(-1), found.x + (value - value.detach()), value)
    value = torch.where(solved, value, found.x) * size
    status = torch.where(found.empty, int(Status.INFEASIBLE), int(Status.MAX_STEPS))
    status = torch.where(found.solved, int(Status.OK), status).to(torch.int8)
    gap = _distance(detached, _stacked(detached), value.detach())
    return Solution(value, status, found.steps.to(torch.int32), gap, duals=w.detach() * size)


def _in_unit(terms: Sequence[Term], size: Tensor) -> list[Term]:
    """The same constraints for points divided by `size`, a power of two."""
    return [Term(t.rows, lambda r, project=t.project: project(r * size) / size) for t in terms]


class _Found(NamedTuple):
    """Point and multipliers of each element, and which elements are solved, empty or were drawn near."""

    x: Tensor
    w: Tensor
    inverse: Tensor
    solved: Tensor
    empty: Tensor
    drawn: Tensor
    steps: Tensor


@torch.no_grad()
def _solve(problem: _Problem, steps_allowed: int) -> _Found:
    """Search and polish, for a proposal far away on its own ray until rounding is that of the result.

    `P(x + t (y − x)) = x` for `x = P(y)` and every `t >= 0`.
    """
    y, start = problem.y, problem
    everyone = torch.ones_like(problem.size, dtype=torch.bool)
    x, w, _, _, empty, steps = _search(problem, steps_allowed, everyone)
    w, kkt, inverse = _polish(problem, w)
    solved = (kkt <= _KKT_RTOL * problem.size) & ~empty
    best, nearer, drawn, w_near = y - rmatvec(problem.L, w), torch.ones_like(problem.size), ~everyone, w
    for _ in range(_ROUNDS if may_look(y) else 0):
        best, held = _settled(problem, best, w_near)
        target = best + (nearer * _NEARER).unsqueeze(-1) * (y - best)
        # beyond this the search itself may fail for the unit of the proposal
        astray = solved | (_norm(problem.y) > _FAR * _norm(best))
        far = astray & ~empty & ~held & (_norm(target) <= 0.25 * _norm(problem.y))
        if not anyone(far):
            break
        drawn, nearer = drawn | far, torch.where(far, nearer * _NEARER, nearer)
        problem = _Problem(torch.where(far.unsqueeze(-1), target, problem.y), problem.terms)
        part = _search(problem, steps_allowed, far)
        polished, kkt, _ = _polish(problem, part.w)
        w_near = torch.where(far.unsqueeze(-1), polished, w_near)
        solved = torch.where(far, (kkt <= _KKT_RTOL * problem.size) & ~part.empty, solved)
        empty, steps = empty | (far & part.empty), steps + part.steps
        best = torch.where(far.unsqueeze(-1), problem.y - rmatvec(problem.L, w_near), best)
        x = torch.where(far.unsqueeze(-1), part.x, x)
        w = torch.where(far.unsqueeze(-1), w_near / nearer.unsqueeze(-1), w)
    if may_look(y) and anyone(drawn):
        w, kkt, inverse = _polish(start, w)
        solved = solved & (~drawn | (kkt <= _KKT_RTOL * start.size))
    if not may_look(y) or anyone(~solved):
        nearest, proved = _least_violation(problem, x)
        empty = (empty | proved) & ~solved
        x = torch.where(empty.unsqueeze(-1), nearest, x)
    inverse = torch.where(solved[..., None, None], inverse, 0.0)
    x = torch.where(solved.unsqueeze(-1), best, x)
    return _Found(*(t.detach() for t in (x, w, inverse, solved, empty, drawn, steps)))


def _settled(problem: _Problem, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """`x`, or 0 where it is rounding of 0, and whether `L x = P(L x + w)` to rounding of the point, not of `w`."""
    held, zero = _holds(problem, x, w), torch.zeros_like(x)
    better = ~held & (_norm(x) <= _KKT_RTOL * _norm(problem.y)) & _holds(problem, zero, w)
    return torch.where(better.unsqueeze(-1), zero, x), held | better


def _holds(problem: _Problem, x: Tensor, w: Tensor) -> Tensor:
    Lx = matvec(problem.L, x)
    foot = _project(problem.terms, Lx + w)
    return _norm(Lx - foot) <= _KKT_RTOL * torch.maximum(_norm(Lx), _norm(foot))


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1)


class _Problem:
    """Data of one call, without derivatives."""

    def __init__(self, y: Tensor, terms: Sequence[Term]) -> None:
        self.y, self.terms, self.L = y, terms, _stacked(terms)
        Ly = matvec(self.L, y)
        self.gram = self.L.transpose(-2, -1) @ self.L
        sizes = [y, Ly, _project(terms, Ly)]
        size = torch.stack([safe_norm(t) for t in sizes]).amax(0)
        self.size = torch.where(size > 0, size, 1.0)
        self.eye = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
        fractions = torch.tensor(_FRACTIONS, dtype=y.dtype, device=y.device)
        self.fractions = fractions.reshape(-1, *(1 for _ in size.shape))

    def derivative(self, r: Tensor, directions: Tensor) -> Tensor:
        """`D(r) directions` for the columns of `directions` `(*batch, k, c)`."""

        columns = directions.expand(*r.shape, -1).movedim(-1, 0).clone()
        points = r.expand_as(columns).clone()
        image = torch.func.jvp(lambda point: _project(self.terms, point), (points,), (columns,))[1]
        return image.detach().movedim(0, -1)

    def merit(self, x: Tensor, w: Tensor, penalty: Tensor) -> Tensor:
        r = matvec(self.L, x) + w / penalty.unsqueeze(-1)
        outside = (r - _project(self.terms, r)).square().sum(-1)
        return 0.5 * (x - self.y).square().sum(-1) + 0.5 * penalty * outside


def _stacked(terms: Sequence[Term]) -> Tensor:
    batch = torch.broadcast_shapes(*(t.rows.shape[:-2] for t in terms))
    return torch.cat([t.rows.expand(*batch, *t.rows.shape[-2:]) for t in terms], -2)


def _project(terms: Sequence[Term], r: Tensor) -> Tensor:
    parts = r.split([t.rows.shape[-2] for t in terms], -1)
    return torch.cat([t.project(part) for t, part in zip(terms, parts, strict=True)], -1)


def _distance(terms: Sequence[Term], L: Tensor, x: Tensor) -> Tensor:
    Lx = matvec(L, x)
    return (Lx - _project(terms, Lx)).abs().amax(-1).detach()


def _optimality(terms: Sequence[Term], L: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """`L x − P(L x + w)` at `x = y − Lᵀ w`: zero exactly at the solution."""
    Lx = matvec(L, y - rmatvec(L, w))
    return Lx - _project(terms, Lx + w)


class _State(NamedTuple):
    """Point, multipliers, penalty, and which elements are running, proved empty, and how long they took."""

    x: Tensor
    w: Tensor
    penalty: Tensor
    running: Tensor
    empty: Tensor
    steps: Tensor


def _search(problem: _Problem, steps_allowed: int, running: Tensor) -> _State:
    """Augmented Lagrangian method on the elements that are `running`; a finished element is frozen."""
    penalty = torch.full_like(problem.size, _FIRST_PENALTY)
    w = torch.zeros_like(matvec(problem.L, problem.y))
    start = _State(
        problem.y.clone(), w, penalty, running.clone(), ~(running | True), torch.zeros_like(penalty)
    )
    step = lambda *state: _step(problem, _State(*state))  # noqa: E731
    return _State(*repeat(step, start, steps_allowed, lambda *state: state[3]))


def _step(problem: _Problem, state: _State) -> _State:
    """One Newton step on the inner problem, or one multiplier step where that is solved."""
    y, L, size = problem.y, problem.L, problem.size
    x, w, penalty, running, empty, steps = state
    tau, Lx = penalty.unsqueeze(-1), matvec(L, x)
    r = Lx + w / tau
    p = _project(problem.terms, r)
    w_next = tau * (r - p)
    gradient = x - y + rmatvec(L, w_next)
    slope = torch.linalg.vector_norm(gradient, dim=-1)
    gap = torch.linalg.vector_norm(Lx - p, dim=-1)
    empty = torch.where(running, _proves_empty(problem, p, w_next), empty)
    optimal = torch.maximum(slope, gap) <= _SEARCH_RTOL * size
    w = torch.where((running & optimal).unsqueeze(-1), w_next, w)
    running = running & ~optimal & ~empty
    steps = steps + running

    H = problem.eye + penalty[..., None, None] * (
        problem.gram - L.transpose(-2, -1) @ problem.derivative(r, L)
    )
    factor, _ = torch.linalg.cholesky_ex(0.5 * (H + H.transpose(-2, -1)))
    newton = -torch.cholesky_solve(gradient.unsqueeze(-1), factor).squeeze(-1)
    fractions = problem.fractions
    merits = problem.merit(x + fractions.unsqueeze(-1) * newton, w, penalty)
    enough = problem.merit(x, w, penalty) + 1e-4 * fractions * (gradient * newton).sum(-1)
    fraction = torch.where(merits <= enough, fractions, _FRACTIONS[-1]).amax(0)
    moved = x + fraction.unsqueeze(-1) * newton

    # solved well enough for its gap, or to rounding: multiplier step
    rounding = 32 * torch.finfo(y.dtype).eps * penalty * size
    inner = slope <= torch.maximum(0.1 * gap, rounding)
    x = torch.where((running & ~inner & moved.isfinite().all(-1)).unsqueeze(-1), moved, x)
    step_up = running & inner
    w = torch.where(step_up.unsqueeze(-1), w_next, w)
    running = running & ~(step_up & (penalty >= _LAST_PENALTY))  # no multiplier: empty, or touching sets
    penalty = torch.where(step_up, (10.0 * penalty).clamp_max(_LAST_PENALTY), penalty)
    return _State(x, w, penalty, running, empty, steps)


def _least_violation(problem: _Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    """Minimizer of the distance `½|L x − P(L x)|²` near `x`, and whether its residual proves the set empty."""
    L = problem.L

    def step(x: Tensor, running: Tensor) -> tuple[Tensor, Tensor]:
        Lx = matvec(L, x)
        off = Lx - _project(problem.terms, Lx)
        H = problem.gram - L.transpose(-2, -1) @ problem.derivative(Lx, L) + _PROXIMAL * problem.eye
        factor, _ = torch.linalg.cholesky_ex(0.5 * (H + H.transpose(-2, -1)))
        newton = -torch.cholesky_solve(rmatvec(L, off).unsqueeze(-1), factor).squeeze(-1)
        trials = x + problem.fractions.unsqueeze(-1) * newton
        L_trials = matvec(L, trials)
        distance = (L_trials - _project(problem.terms, L_trials)).square().sum(-1)
        best = distance.argmin(0, keepdim=True).unsqueeze(-1)
        moved = trials.gather(0, best.expand(1, *x.shape)).squeeze(0)
        better = distance.amin(0) < off.square().sum(-1)
        return torch.where(better.unsqueeze(-1), moved, x), running & better

    running = torch.ones_like(problem.size, dtype=torch.bool)
    x, _ = repeat(step, (x, running), _LEAST_STEPS, lambda *state: state[1])
    Lx = matvec(L, x)
    foot = _project(problem.terms, Lx)
    return x, _proves_empty(problem, foot, Lx - foot)


def _proves_empty(problem: _Problem, p: Tensor, w: Tensor) -> Tensor:
    """Whether `w`, normal to `K` at `p`, shows that no feasible point is near.

    Every feasible `x` has `⟨w, L x⟩ <= ⟨w, p⟩`, so that `|x − y| >= (⟨w, L y⟩ − ⟨w, p⟩) / |Lᵀ w|`.
    """
    w = w / torch.linalg.vector_norm(w, dim=-1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
    separation = (w * (matvec(problem.L, problem.y) - p)).sum(-1)
    reach = torch.linalg.vector_norm(rmatvec(problem.L, w), dim=-1)
    return (separation > 1e-12 * problem.size) & (separation > _RADIUS * problem.size * reach)


def _polish(problem: _Problem, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's method on the optimality conditions: multipliers, residual, inverse of the Newton matrix.

    `E(w) = L x − P(L x + w)`, `x = y − Lᵀ w`, has the derivative `−(D + (I − D) L Lᵀ)`.
    """
    L, terms = problem.L, problem.terms
    eye = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
    gram = L @ L.transpose(-2, -1) + _PROXIMAL * eye

    def matrix(w: Tensor) -> Tensor:
        D = problem.derivative(matvec(L, problem.y - rmatvec(L, w)) + w, eye)
        inverse, _ = torch.linalg.inv_ex(D + gram - D @ gram)
        return inverse.nan_to_num(0.0, 0.0, 0.0)

    def step(w: Tensor, size: Tensor, running: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        trial = w + matvec(matrix(w), _optimality(terms, L, problem.y, w))
        size_trial = torch.linalg.vector_norm(_optimality(terms, L, problem.y, trial), dim=-1)
        better = size_trial < size
        return torch.where(better.unsqueeze(-1), trial, w), torch.minimum(size, size_trial), better

    size = torch.linalg.vector_norm(_optimality(terms, L, problem.y, w), dim=-1)
    w, size, _ = repeat(step, (w, size, size > 0), _POLISH_STEPS, lambda *state: state[2])
    return w, size, matrix(w)
