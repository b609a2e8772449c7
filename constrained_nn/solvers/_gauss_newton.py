"""Damped Gauss-Newton steps into `{y : lower <= c(y) <= upper}`: the iteration of HardNet++, and a faster one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from constrained_nn._linalg import nearest_between
from constrained_nn.solvers._linearized import Linearized, normal_matrix
from constrained_nn.solvers._solution import Status

# A step of length t must lower |r|² by this share of what the linear model promises, at least.
_ARMIJO = 1e-4
# |Jᵀr| below this share of |J||r| means that no direction leads out to first order.
_STATIONARY = 1e-7
_HALVINGS, _TRACED_HALVINGS = 14, 5


@runtime_checkable
class Damping(Protocol):
    """How much is added to the normal matrix, from the norm of the residual."""

    def value(self, norm: Tensor) -> Tensor:
        """The damping, of the shape of `norm`."""
        ...

    def slope(self, norm: Tensor) -> Tensor:
        """Its derivative."""
        ...


@dataclass(frozen=True)
class ConstantDamping:
    """The same damping at every step, as published (0.3)."""

    amount: float = 0.3

    def value(self, norm: Tensor) -> Tensor:
        return torch.full_like(norm, self.amount)

    def slope(self, norm: Tensor) -> Tensor:
        return torch.zeros_like(norm)


@dataclass(frozen=True)
class ResidualDamping:
    """`min(largest, rate |r|)`: safe far away, and quadratic convergence close by."""

    rate: float = 0.03
    largest: float = 0.3

    def value(self, norm: Tensor) -> Tensor:
        return (self.rate * norm).clamp_max(self.largest)

    def slope(self, norm: Tensor) -> Tensor:
        return torch.where(self.rate * norm <= self.largest, self.rate, 0.0).to(norm.dtype)


@dataclass(frozen=True)
class GaussNewton:
    """Settings of the iteration `y ← y − t J_aᵀ (J_a J_aᵀ + damping I)⁻¹ r_a`.

    Args:
        max_steps: Steps before an element is given up.
        atol: Largest violated row of a solution, in row units; `None`: no element stops before `max_steps`.
        damping: `ResidualDamping(...)` or `ConstantDamping(...)`.
        all_rows: Keep also the rows that are satisfied: they ask for no first-order change. Default: equalities
            and violated inequalities only, which leaves directions for the others to move in.
        backtracking: Halve a step until the residual falls; without it, `t = 1`.
        largest_step: Longest step, in units of `1 + |y|`.
    """

    max_steps: int = 50
    atol: float | None = 1e-10
    damping: Damping = ResidualDamping()
    all_rows: bool = False
    backtracking: bool = True
    largest_step: float = 10.0

    @classmethod
    def published(cls, steps: int = 500, damping: float = 0.3) -> GaussNewton:
        """The iteration of the paper: all rows, constant damping, full steps, a fixed number of them."""
        return cls(steps, None, ConstantDamping(damping), all_rows=True, backtracking=False)

    def selected(self, residual: Tensor, equality: Tensor) -> Tensor:
        """The rows that a step works on."""
        return torch.ones_like(equality) if self.all_rows else (residual != 0) | equality


@runtime_checkable
class Problem(Protocol):
    """Rows of a flat batch."""

    lower: Tensor
    upper: Tensor

    def value(self, y: Float[Tensor, "batch n"]) -> Float[Tensor, "batch m"]: ...

    def jacobian(self, y: Float[Tensor, "batch n"]) -> Float[Tensor, "batch m n"]: ...

    def linearize(self, y: Float[Tensor, "batch n"]) -> Linearized: ...

    def pick(self, index: Int[Tensor, " few"]) -> Problem: ...


def residual_of(problem: Problem, value: Float[Tensor, "batch m"]) -> Float[Tensor, "batch m"]:
    """Signed distance of each row to its interval."""
    return value - nearest_between(value, problem.lower, problem.upper)


def equality_of(problem: Problem, like: Tensor) -> Bool[Tensor, "batch m"]:
    """Rows without room."""
    return (problem.lower == problem.upper).expand_as(like)


class Step(NamedTuple):
    """One step of the elements `index` (`None`: all): from `y`, of length `length`, on the rows `active`."""

    index: Tensor | None
    y: Tensor
    length: Tensor
    active: Tensor


class Outcome(NamedTuple):
    """Where the iteration ended, without derivatives, and the way there."""

    y: Tensor
    status: Tensor
    steps: Tensor
    path: list[Step]


@torch.no_grad()
def descend(problem: Problem, y: Float[Tensor, "batch n"], method: GaussNewton, *, keep: bool) -> Outcome:
    """Iterate until every element has converged, failed, or spent `max_steps`; finished elements drop out."""
    final, path = y.clone(), []
    status = torch.full((len(y),), int(Status.MAX_STEPS), device=y.device)
    steps = torch.zeros(len(y), dtype=torch.int32, device=y.device)
    index: Tensor | None = None
    residual = residual_of(problem, problem.value(y))
    fresh = residual.isfinite().all(-1)
    status[~fresh] = int(Status.NONFINITE_INPUT)
    open_ = fresh
    for count in range(method.max_steps + 1):
        if method.atol is not None:
            within = open_ & (residual.abs() <= method.atol).all(-1)
            _write(status, index, within, int(Status.OK))
            open_ = open_ & ~within
        if not bool(open_.all()):
            kept = open_.nonzero().squeeze(-1)
            index = kept if index is None else index[kept]
            y, residual, problem = y[kept], residual[kept], problem.pick(kept)
        if not len(y) or count == method.max_steps:
            break
        step, y_next, residual, failure = _advance(problem, y, residual, method)
        moved = failure < 0
        if keep:
            if bool(moved.all()):
                path.append(Step(index, y, step.length, step.active))
            elif bool(moved.any()):  # where an element failed its derivatives may be NaN, and 0 · NaN is NaN
                on = moved.nonzero().squeeze(-1)
                own = on if index is None else index[on]
                path.append(Step(own, y[on], step.length[on], step.active[on]))
        _write(status, index, ~moved, failure[~moved])
        _write(steps, index, moved, count + 1)
        _write(final, index, moved, y_next[moved])
        y, open_ = y_next, moved
    if method.atol is None:
        settled = torch.where(residual.isfinite().all(-1), int(Status.OK), int(Status.NONFINITE_INPUT))
        _write(status, index, torch.ones_like(settled, dtype=torch.bool), settled)
    elif len(y):
        active = method.selected(residual, equality_of(problem, residual))
        stuck = _is_stationary(problem.linearize(y), residual, active)
        _write(status, index, stuck, int(Status.STATIONARY))
    return Outcome(final, status.to(torch.int8), steps, path)


def _write(full: Tensor, index: Tensor | None, where: Tensor, value: Any) -> None:
    """`full[index[where]] = value`."""
    full[where if index is None else index[where]] = value


def _is_stationary(linear: Linearized, residual: Tensor, active: Tensor) -> Tensor:
    slope = torch.linalg.vector_norm(linear.transposed(residual), dim=-1)
    size = linear.squared(active).sqrt() * torch.linalg.vector_norm(residual, dim=-1)
    return slope <= _STATIONARY * size


def _advance(
    problem: Problem, y: Tensor, residual: Tensor, method: GaussNewton
) -> tuple[Step, Tensor, Tensor, Tensor]:
    """One step; `failure` is -1 for the elements that moved, else their status."""
    linear = problem.linearize(y)
    active = method.selected(residual, equality_of(problem, residual))
    norm = torch.linalg.vector_norm(residual, dim=-1)
    factor = linear.factor(active, method.damping.value(norm))
    p = linear.transposed(factor.solve(residual))
    sound = factor.sound & p.isfinite().all(-1)
    p = torch.where(sound.unsqueeze(-1), p, 0.0)
    if not method.backtracking:
        length = sound.to(y.dtype)
        y_next = y - p
        residual = residual_of(problem, problem.value(y_next))
        moved = sound & residual.isfinite().all(-1)
        failure = torch.where(moved, -1, int(Status.SINGULAR))
        return Step(None, y, length, active), y_next, residual, failure
    promised = (linear.transposed(residual) * p).sum(-1)
    length, y_next, found, moved = _backtracked(problem, y, p, residual, promised, sound, method)
    failure = torch.where(moved, -1, torch.where(sound, int(Status.STAGNATED), int(Status.SINGULAR)))
    if not bool(moved.all()):
        stuck = sound & ~moved & _is_stationary(linear, residual, active)
        failure = torch.where(stuck, int(Status.STATIONARY), failure)
    return Step(None, y, length, active), y_next, found, failure


def _backtracked(
    problem: Problem,
    y: Tensor,
    p: Tensor,
    residual: Tensor,
    promised: Tensor,
    sound: Tensor,
    method: GaussNewton,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Step lengths, points and residuals, and which elements found a point with less violation."""
    merit = residual.square().sum(-1)
    length = _capped(y, p, method.largest_step)
    y_next = y - length.unsqueeze(-1) * p
    found = residual_of(problem, problem.value(y_next))

    def falls(now: Tensor, before: Tensor, t: Tensor, promise: Tensor) -> Tensor:
        return now.square().sum(-1) < before - 2.0 * _ARMIJO * t * promise

    moved = sound & falls(found, merit, length, promised)
    if bool(moved.all()):
        return length, y_next, found, moved
    trying = (sound & ~moved).nonzero().squeeze(-1)
    y_next[~moved], found[~moved] = y[~moved], residual[~moved]
    for _ in range(_HALVINGS):
        if not len(trying):
            break
        t = length[trying] * 0.5
        length[trying] = t
        trial = y[trying] - t.unsqueeze(-1) * p[trying]
        part = problem.pick(trying)
        now = residual_of(part, part.value(trial))
        good = falls(now, merit[trying], t, promised[trying])
        won = trying[good]
        y_next[won], found[won], moved[won] = trial[good], now[good], True
        trying = trying[~good]
    return length, y_next, found, moved


def _capped(y: Tensor, p: Tensor, largest: float) -> Tensor:
    """1, halved until the step is no longer than allowed."""
    allowed = largest * (1.0 + torch.linalg.vector_norm(y, dim=-1))
    ratio = torch.linalg.vector_norm(p, dim=-1) / allowed
    return torch.exp2(-torch.log2(ratio.clamp_min(1.0)).ceil())


def plain_step(problem: Problem, y: Tensor, active: Tensor, length: Tensor, damping: Damping) -> Tensor:
    """One step in operations with derivatives of every order, on given rows and of given length."""
    residual = residual_of(problem, problem.value(y))
    J = problem.jacobian(y)
    norm = torch.linalg.vector_norm(residual, dim=-1)
    L = torch.linalg.cholesky_ex(normal_matrix(J, active, damping.value(norm)))[0]
    w = torch.cholesky_solve((residual * active).unsqueeze(-1), L)
    return y - length.unsqueeze(-1) * ((J * active.unsqueeze(-1)).transpose(-2, -1) @ w).squeeze(-1)


def descend_traced(problem: Problem, y: Tensor, method: GaussNewton) -> tuple[Tensor, Tensor, Tensor]:
    """The same iteration with a fixed number of steps, plain operations and no branches: `y`, status, steps."""
    steps = torch.zeros(y.shape[:-1], dtype=torch.int32, device=y.device)
    for _ in range(method.max_steps):
        with torch.no_grad():
            fixed = y.detach()
            residual = residual_of(problem, problem.value(fixed)).detach()
            active = method.selected(residual, equality_of(problem, residual))
            merit = residual.square().sum(-1)
            open_ = residual.isfinite().all(-1)
            if method.atol is not None:
                open_ = open_ & (residual.abs() > method.atol).any(-1)
            length = torch.ones_like(merit)
            if method.backtracking:
                move = fixed - plain_step(problem, fixed, active, length, method.damping).detach()
                length = _capped(fixed, move, method.largest_step)
                full, found = length, torch.zeros_like(open_)
                for k in range(_TRACED_HALVINGS):
                    t = 0.5**k * full
                    value = problem.value(fixed - t.unsqueeze(-1) * move)
                    now = residual_of(problem, value).detach().square().sum(-1)
                    length = torch.where(found, length, t)
                    found = found | (now < merit)
                open_ = open_ & found
        moved = plain_step(problem, y, active, length, method.damping)
        open_ = open_ & moved.detach().isfinite().all(-1)
        y = torch.where(open_.unsqueeze(-1), moved, y)
        steps = steps + open_.to(torch.int32)
    with torch.no_grad():
        residual = residual_of(problem, problem.value(y.detach())).detach()
        small = residual.isfinite() if method.atol is None else residual.abs() <= method.atol
        held = small.all(-1)
        status = torch.where(held, int(Status.OK), int(Status.MAX_STEPS)).to(torch.int8)
    return y, status, steps
