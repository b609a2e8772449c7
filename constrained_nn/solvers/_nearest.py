"""Nearest point of `{x : lower <= c(x) <= upper}` by sequential quadratic programming.

Each step projects onto the linearized rows, in the metric of the Lagrangian's Hessian `H = I + Σ λ_i ∇²c_i`: with
`H = E Eᵀ`, `d = E⁻ᵀ v`, the program `min ½ dᵀH d + (x − y)ᵀd` subject to `lower <= c + J d <= upper` is the Euclidean
projection of `−E⁻¹(x − y)` onto `lower − c <= J E⁻ᵀ v <= upper − c`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn._linalg import matvec, rmatvec
from constrained_nn.solvers._gauss_newton import Problem, residual_of
from constrained_nn.solvers._polyhedron import project_polyhedron
from constrained_nn.solvers._solution import Status

# Smallest eigenvalue of the metric: where the Lagrangian is not convex it is raised to this.
_LEAST_CURVATURE = 0.05
_HALVINGS, _ARMIJO = 12, 1e-4
# Optimality conditions of a result, relative to 1 + |x − y|.
_KKT_RTOL = 1e-8


class Nearest(NamedTuple):
    """Points, multipliers, status and steps of a flat batch, without derivatives."""

    x: Tensor
    multipliers: Tensor
    status: Tensor
    steps: Tensor


@torch.no_grad()
def find_nearest(
    problem: Problem,
    y: Float[Tensor, "batch n"],
    start: Float[Tensor, "batch n"],
    max_steps: int,
    atol: float,
) -> Nearest:
    """Points that satisfy the optimality conditions, from `start`; finished elements drop out."""
    x, steps = start.clone(), torch.zeros(len(y), dtype=torch.int32, device=y.device)
    w = torch.zeros_like(problem.value(y))
    status = torch.full((len(y),), int(Status.MAX_STEPS), device=y.device)
    weight = torch.ones_like(y[:, 0])
    index = torch.arange(len(y), device=y.device)
    for count in range(max_steps + 1):
        if not len(index):
            break
        some = problem if len(index) == len(y) else problem.pick(index)
        here = _Point(some, y[index], x[index], w[index])
        solved = here.is_optimal(here.w, atol)
        status[index[solved]] = int(Status.OK)
        if count == max_steps:
            break
        d, multipliers, empty = here.step()
        known = (
            here.is_optimal(multipliers, atol) & ~solved & ~empty
        )  # no step is needed, its multipliers say
        status[index[known]], solved = int(Status.OK), solved | known
        size = multipliers.abs().amax(-1) if multipliers.shape[-1] else torch.zeros_like(weight[index])
        weight[index] = torch.maximum(weight[index], 2.0 * size)
        moved, found = here.searched(d, weight[index])
        go = moved & ~solved
        stuck = ~moved & ~solved
        status[index[stuck]] = torch.where(empty, int(Status.STATIONARY), int(Status.STAGNATED))[stuck]
        x[index[go]], steps[index[go]] = found[go], count + 1
        w[index] = torch.where(((solved & ~known) | empty).unsqueeze(-1), w[index], multipliers)
        index = index[go]
    return Nearest(x, w, status.to(torch.int8), steps)


class _Point:
    """Rows, their derivatives and the metric at one point of each element."""

    def __init__(self, problem: Problem, y: Tensor, x: Tensor, w: Tensor) -> None:
        self.problem, self.y, self.x, self.w = problem, y, x, w
        self.value, self.J = problem.value(x), problem.jacobian(x)
        self.residual = residual_of(problem, self.value)

    def is_optimal(self, w: Tensor, atol: float) -> Tensor:
        """Whether the multipliers `w` prove the optimality conditions."""
        away = self.x - self.y
        slope = away + rmatvec(self.J, w)
        small = slope.abs().amax(-1) <= _KKT_RTOL * (1.0 + torch.linalg.vector_norm(away, dim=-1))
        inside = (self.value < self.problem.upper - 1e-7) & (self.value > self.problem.lower + 1e-7)
        slack = (w.abs() * inside).amax(-1) <= _KKT_RTOL
        return small & slack & (self.residual.abs().amax(-1) <= atol)

    def step(self) -> tuple[Tensor, Tensor, Tensor]:
        """Direction, multipliers, and the elements whose linearized rows hold nowhere."""
        H = lagrangian_hessian(self.problem, self.x, self.w)
        sane = H.isfinite().all(-1).all(-1) & self.J.isfinite().all(-1).all(-1)
        eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
        values, vectors = torch.linalg.eigh(torch.where(sane[:, None, None], H, eye))
        spread = vectors * values.clamp_min(_LEAST_CURVATURE).rsqrt().unsqueeze(-2)  # E⁻ᵀ
        found = project_polyhedron(
            -rmatvec(spread, self.x - self.y),
            self.J @ spread,
            self.problem.lower - self.value,
            self.problem.upper - self.value,
        )
        d = matvec(spread, found.value)
        assert found.duals is not None
        return (
            torch.where(sane.unsqueeze(-1), d, 0.0),
            found.duals,
            found.status == int(Status.INFEASIBLE),
        )

    def searched(self, d: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The first of `x + t d`, `t = 1, ½, ¼, …`, that lowers distance plus weighted violation; a step of length
        one may be bent back to the rows first (second-order correction)."""
        moved = torch.zeros(len(d), dtype=torch.bool, device=d.device)
        best, now = self.x.clone(), self._merit(self.x, weight)
        fall = weight * self.residual.abs().sum(-1) - ((self.x - self.y) * d).sum(-1)
        fall = torch.where(fall > 0, fall, 0.0)
        noise = 1e-15 * (1.0 + now.abs())
        bent = self.x + d - self._back(d)
        trials = [self.x + d, bent, *(self.x + 0.5**k * d for k in range(1, _HALVINGS))]
        for k, trial in enumerate(trials):
            t = 0.5 ** max(0, k - 1)
            good = ~moved & (self._merit(trial, weight) <= now - _ARMIJO * t * fall + noise)
            good &= (trial != self.x).any(-1)
            best = torch.where(good.unsqueeze(-1), trial, best)
            moved |= good
            if bool(moved.all()):
                break
        return moved, best

    def _merit(self, x: Tensor, weight: Tensor) -> Tensor:
        missed = residual_of(self.problem, self.problem.value(x)).abs().sum(-1)
        return 0.5 * (x - self.y).square().sum(-1) + weight * missed

    def _back(self, d: Tensor) -> Tensor:
        """Least-norm correction of the violation at `x + d` along the rows of `x`."""
        missed = residual_of(self.problem, self.problem.value(self.x + d))
        gram = self.J @ self.J.mT
        shift = 1e-12 * (1.0 + gram.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True))
        gram = gram + torch.diag_embed(shift.expand_as(missed))
        L = torch.linalg.cholesky_ex(gram)[0]
        w = torch.cholesky_solve((missed * (missed != 0)).unsqueeze(-1), L).squeeze(-1)
        return torch.nan_to_num(rmatvec(self.J, w))


def lagrangian_hessian(problem: Problem, x: Tensor, w: Tensor) -> Float[Tensor, "batch n n"]:
    """`I + Σ w_i ∇²c_i(x)`."""

    def slope(point: Tensor) -> Tensor:
        return torch.func.grad(lambda z: (w * problem.value(z)).sum())(point)

    def column(direction: Tensor) -> Tensor:
        return torch.func.jvp(slope, (x,), (direction.expand_as(x).clone(),))[1]

    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    H = torch.stack([column(direction) for direction in eye], -1)
    return eye + 0.5 * (H + H.mT)


def differentiable(
    build: Callable[..., Problem], found: Nearest, y: Tensor, tensors: Sequence[Tensor]
) -> Tensor:
    """The points with derivatives to second order: two Newton steps on the optimality conditions of the active rows,
    `x − y + J_aᵀ w = 0`, `c_a(x) = bound`, with the matrix of the solution. Failed elements have none."""
    ok = found.status == int(Status.OK)
    with torch.no_grad():
        fixed = build(*(t.detach() for t in tensors))
        value, J = fixed.value(found.x), fixed.jacobian(found.x)
        to_upper = (value - fixed.upper).abs() < (value - fixed.lower).abs()
        active = (fixed.lower == fixed.upper).expand_as(value) | (found.multipliers.abs() > 1e-9)
        a = active.unsqueeze(-1)
        H = lagrangian_hessian(fixed, found.x, found.multipliers)
        lower_right = torch.diag_embed((~active).to(J.dtype))
        K = torch.cat([torch.cat([H, (J * a).mT], -1), torch.cat([J * a, lower_right], -1)], -2)
        usable = ok & K.isfinite().all(-1).all(-1)
        eye = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
        inverse = torch.linalg.pinv(torch.where(usable[:, None, None], K, eye), rtol=1e-11)
        inverse = torch.where(usable[:, None, None], inverse, 0.0)
    moving, n = build(*tensors), y.shape[-1]
    target = torch.where(to_upper, moving.upper, moving.lower)
    target = torch.where(active, target, 0.0)
    z = torch.cat([found.x, torch.where(active, found.multipliers, 0.0)], -1)
    for _ in range(2):
        x, w = z[:, :n], z[:, n:]
        slope = torch.func.vjp(moving.value, x)[1](torch.where(active, w, 0.0))[0]
        gap = torch.where(active, moving.value(x) - target, w)
        z = z - matvec(inverse, torch.cat([x - y + slope, gap], -1))
    return torch.where(usable.unsqueeze(-1), z[:, :n], found.x)
