"""Nearest point of `{x : lower <= c(x) <= upper}` by sequential quadratic programming along feasible points.

Each step projects onto the linearized rows, in the metric of the Lagrangian's Hessian `H = I + Σ λ_i ∇²c_i`:
with `H = E Eᵀ`, `d = E⁻ᵀ v`, the program `min ½ dᵀH d + (x − y)ᵀd` subject to `lower <= c + J d <= upper` is
the Euclidean projection of `−E⁻¹(x − y)` onto `lower − c <= J E⁻ᵀ v <= upper − c`. The point `x + t d` is then
restored to the rows by Gauss-Newton steps, and `t` halved until the restored point is nearer. An iterate never
leaves the set, `d = 0` is always allowed, and no penalty has to be chosen. Bounds on the variables are rows
here that also hold on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.linalg import matvec, rmatvec
from constrained_nn.solvers.gauss_newton.descent import GaussNewton, Outcome, descend
from constrained_nn.solvers.gauss_newton.row_problem import Problem, into_box
from constrained_nn.solvers.polyhedron import project_polyhedron
from constrained_nn.solvers.solution import Status

# Smallest eigenvalue of the metric: where the Lagrangian is not convex it is raised to this.
_LEAST_CURVATURE = 0.05
_HALVINGS, _ARMIJO = 14, 1e-4
# Rounding of a squared distance, and of a sum of multipliers times gradients.
_NOISE = 1e-13
# Optimality conditions of a result, relative to 1 + |x − y|; multipliers and slacks with rows of unit length.
_KKT_RTOL = 1e-8
# Every so many steps the conditions are checked without curvature, which blows up at a cusp of the set.
_CHECK_EVERY = 4
_RESTORE_STEPS = 12
# A step below this share of the tolerance is not worth taking.
_STILL = 1e-4


class Nearest(NamedTuple):
    """Points, multipliers (of the rows, then of the bounds), status and steps of a flat batch, without derivatives."""

    x: Tensor
    multipliers: Tensor
    status: Tensor
    steps: Tensor


@torch.no_grad()
def find_nearest(
    problem: Problem, y: Float[Tensor, "batch n"], start: Outcome, method: GaussNewton, max_steps: int
) -> Nearest:
    """Points that satisfy the optimality conditions, from feasible ones; finished elements drop out."""
    x, steps, status = start.y.clone(), start.steps.clone(), start.status.clone()
    w = torch.zeros_like(rows_of(problem, x))
    index = (status == int(Status.OK)).nonzero().squeeze(-1)
    status[index], proved = int(Status.MAX_STEPS), torch.zeros_like(steps)
    for count in range(max_steps + 1):
        if not len(index):
            break
        here = _Point(problem.pick(index), y[index], x[index], method.atol or 0.0)
        d, multipliers = here.step(w[index])
        solved = here.is_optimal(multipliers)
        if count % _CHECK_EVERY == _CHECK_EVERY - 1 or count == max_steps:
            solved, multipliers = here.checked(solved, multipliers)
        w[index], status[index[solved]] = multipliers, int(Status.OK)
        if count == max_steps:
            break
        proved[index] += solved  # a point that is optimal to the tolerance takes one more step
        done = solved & ((d.abs().amax(-1) <= _STILL * here.tolerance) | (proved[index] > 1))
        moved, found = here.searched(d, multipliers, ~done, method)
        stuck = ~moved & ~solved
        if bool(stuck.any()):
            late, weights = here.checked(~stuck, multipliers)
            w[index] = weights
            status[index[stuck]] = torch.where(late, int(Status.OK), int(Status.STAGNATED))[stuck].to(
                torch.int8
            )
        status[index[moved]] = int(Status.MAX_STEPS)
        x[index[moved]] = found[moved]
        steps[index[moved]] += 1
        index = index[moved]
    return Nearest(x, w, status, steps)


def rows_of(problem: Problem, x: Tensor) -> Tensor:
    """The rows, then the variables if they have bounds."""
    value = problem.value(x)
    return value if problem.box is None else torch.cat([value, x], -1)


def _bounds_of(problem: Problem, like: Tensor) -> tuple[Tensor, Tensor]:
    if problem.box is None:
        return problem.lower.expand_as(like), problem.upper.expand_as(like)
    m = problem.lower.shape[-1]
    batch = like.shape[:-1]
    rows = (side.expand(*batch, m) for side in (problem.lower, problem.upper))
    lower, upper = (
        torch.cat([row, side.expand(*batch, side.shape[-1])], -1)
        for row, side in zip(rows, problem.box, strict=True)
    )
    return lower, upper


def _slope_of(problem: Problem, x: Tensor) -> Tensor:
    J = problem.jacobian(x)
    if problem.box is None:
        return J
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return torch.cat([J, eye.expand(*x.shape[:-1], *eye.shape)], -2)


class _Point:
    """Rows and their derivatives at one feasible point of each element."""

    def __init__(self, problem: Problem, y: Tensor, x: Tensor, atol: float) -> None:
        self.problem, self.y, self.x, self.atol = problem, y, x, atol
        self.value, J = rows_of(problem, x), _slope_of(problem, x)
        self.sane = J.isfinite().all(-1).all(-1)
        self.J = torch.where(self.sane[:, None, None], J, 0.0)
        lower, upper = _bounds_of(problem, self.value)
        self.lower, self.upper = lower - self.value, upper - self.value
        self.away = x - y
        self.tolerance = _KKT_RTOL * (1.0 + torch.linalg.vector_norm(self.away, dim=-1))
        self.norm = torch.linalg.vector_norm(self.J, dim=-1)

    def is_optimal(self, w: Tensor) -> Tensor:
        """Whether the multipliers `w` prove the optimality conditions."""
        slope = self.away + rmatvec(self.J, w)
        force = w.abs() * self.norm
        slack = (torch.where(w > 0, self.upper, -self.lower).abs() - self.atol).clamp_min(0.0)
        open_ = torch.minimum(force, slack / torch.where(self.norm > 0, self.norm, 1.0))
        worst = torch.where(w == 0, 0.0, open_).amax(-1) if w.shape[-1] else torch.zeros_like(self.tolerance)
        rounding = _NOISE * force.sum(-1)
        return (torch.maximum(worst, slope.abs().amax(-1) - rounding) <= self.tolerance) & self.sane

    def checked(self, solved: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """The conditions by first derivatives alone: `y` projected onto the linearized rows is where `x` is already.

        Rows within the tolerance of a bound count as being on it.
        """
        room = self.tolerance.unsqueeze(-1) * self.norm + self.atol
        lower = torch.where(self.lower.abs() <= room, 0.0, self.lower)
        upper = torch.where(self.upper.abs() <= room, 0.0, self.upper)
        found = project_polyhedron(-self.away, self.J, lower.clamp_max(0.0), upper.clamp_min(0.0))
        assert found.duals is not None
        proved = ~solved & (found.status == int(Status.OK)) & self.is_optimal(found.duals)
        return solved | proved, torch.where(proved.unsqueeze(-1), found.duals, w)

    def step(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Direction and multipliers, with the curvature that the multipliers `w` give the rows."""
        spread = self._spread(w)
        found = project_polyhedron(
            -rmatvec(spread, self.away),
            self.J @ spread,
            self.lower.clamp_max(0.0),
            self.upper.clamp_min(0.0),
        )
        assert found.duals is not None
        sound = self.sane & (found.status == int(Status.OK))
        d = matvec(spread, found.value)
        return torch.where(sound.unsqueeze(-1), d, 0.0), torch.where(sound.unsqueeze(-1), found.duals, 0.0)

    def _spread(self, w: Tensor) -> Tensor:
        """`E⁻ᵀ` of the metric; rows with a multiplier add to it, which changes nothing along them."""
        H = lagrangian_hessian(self.problem, self.x, w)
        sane = self.sane & H.isfinite().all(-1).all(-1)
        eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
        H = torch.where(sane[:, None, None], H, eye)
        least = torch.linalg.eigvalsh(H)[:, 0]
        push = torch.where(least < _LEAST_CURVATURE, 2.0 * (1.0 - least), 0.0)
        unit = self.J / torch.where(self.norm > 0, self.norm, 1.0).unsqueeze(-1) * (w != 0).unsqueeze(-1)
        H = H + push[:, None, None] * (unit.mT @ unit)
        values, vectors = torch.linalg.eigh(H)
        return vectors * values.clamp_min(_LEAST_CURVATURE).rsqrt().unsqueeze(-2)

    def searched(self, d: Tensor, w: Tensor, wanted: Tensor, method: GaussNewton) -> tuple[Tensor, Tensor]:
        """The first of `x + t d`, `t = 1, ½, ¼, …`, that is nearer to `y` when it is back on the rows.

        What `x` violates its rows by, within their tolerance, may have brought it nearer than the set is.
        """
        best, moved = self.x.clone(), torch.zeros_like(wanted)
        before = 0.5 * self.away.square().sum(-1)
        fall = -(self.away * d).sum(-1)
        missed = torch.maximum(self.lower, -self.upper).clamp_min(0.0)
        noise = _NOISE * (1.0 + before) + 2.0 * (w.abs() * missed).sum(-1)
        trying = (wanted & (fall > -noise) & d.isfinite().all(-1)).nonzero().squeeze(-1)
        for k in range(_HALVINGS):
            if not len(trying):
                break
            t, part = 0.5**k, self.problem.pick(trying)
            trial = into_box(part, self.x[trying] + t * d[trying])
            back = descend(part, trial, _restoration(method), keep=False)
            now = 0.5 * (back.y - self.y[trying]).square().sum(-1)
            enough = before[trying] - _ARMIJO * t * fall[trying] + noise[trying]
            good = (back.status == int(Status.OK)) & (now <= enough) & (back.y != self.x[trying]).any(-1)
            best[trying[good]], moved[trying[good]] = back.y[good], True
            trying = trying[~good]
        return moved, best


def _restoration(method: GaussNewton) -> GaussNewton:
    """The steps that bring a trial point back to the rows, more closely than is asked for."""
    return GaussNewton(max_steps=_RESTORE_STEPS, atol=0.01 * (method.atol or 0.0), second_damping=None)


def lagrangian_hessian(problem: Problem, x: Tensor, w: Tensor) -> Float[Tensor, "batch n n"]:
    """`I + Σ w_i ∇²c_i(x)`."""

    def slope(point: Tensor) -> Tensor:
        return torch.func.grad(lambda z: (w * rows_of(problem, z)).sum())(point)

    def column(direction: Tensor) -> Tensor:
        return torch.func.jvp(slope, (x,), (direction.expand_as(x).clone(),))[1]

    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    H = torch.stack([column(direction) for direction in eye], -1)
    return eye + 0.5 * (H + H.mT)


def differentiable(
    build: Callable[..., Problem], found: Nearest, y: Tensor, tensors: Sequence[Tensor]
) -> Tensor:
    """The points with derivatives to second order: two Newton steps on the optimality conditions of the active rows,
    `x − y + J_aᵀ w = 0`, `c_a(x) = bound`, with the matrix of the solution. The value is that of `found`, and failed
    elements have no derivative."""
    ok = found.status == int(Status.OK)
    with torch.no_grad():
        fixed = build(*(t.detach() for t in tensors))
        value, J = rows_of(fixed, found.x), _slope_of(fixed, found.x)
        lower, upper = _bounds_of(fixed, value)
        to_upper = (value - upper).abs() < (value - lower).abs()
        force = found.multipliers.abs() * torch.linalg.vector_norm(J, dim=-1)
        active = (lower == upper) | (force > 1e-9)
        a = active.unsqueeze(-1)
        H = lagrangian_hessian(fixed, found.x, found.multipliers)
        lower_right = torch.diag_embed((~active).to(J.dtype))
        K = torch.cat([torch.cat([H, (J * a).mT], -1), torch.cat([J * a, lower_right], -1)], -2)
        usable = ok & K.isfinite().all(-1).all(-1)
        eye = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
        inverse = torch.linalg.pinv(torch.where(usable[:, None, None], K, eye), rtol=1e-11)
        inverse = torch.where(usable[:, None, None], inverse, 0.0)
    moving, n = build(*tensors), y.shape[-1]
    lower, upper = _bounds_of(moving, value)
    target = torch.where(active, torch.where(to_upper, upper, lower), 0.0)
    z = torch.cat([found.x, torch.where(active, found.multipliers, 0.0)], -1)
    for _ in range(2):
        x, w = z[:, :n], z[:, n:]
        rows, pull = torch.func.vjp(lambda point: rows_of(moving, point), x)  # pyright: ignore
        slope = pull(torch.where(active, w, 0.0))[0]
        gap = torch.where(active, rows - target, w)
        z = z - matvec(inverse, torch.cat([x - y + slope, gap], -1))
    near = torch.where(usable.unsqueeze(-1), z[:, :n], found.x)
    return found.x + (near - near.detach())
