"""HardNet-Cvx: Euclidean projection onto any convex set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.layers.contract import ProjectionLayer, Relative, Verdict, refuse_transforms, widen
from constrained_nn.layers.nearest.convex_program import ProgramSet
from constrained_nn.layers.nearest.euclidean import EuclideanProjection
from constrained_nn.sets import ConstraintSet
from constrained_nn.solvers import Solution, Status


class HardNetConvex(ProjectionLayer[Any]):
    """Euclidean projection onto any convex set (HardNet-Cvx).

    `argmin |x − y|²` subject to `x ∈ set`.

    Our own sets, their intersections and products go through `EuclideanProjection`. A set written in cvxpy is a
    `ConvexProgram`: compiled once, solved for the whole batch together, differentiable in `y` and in its parameters.
    A program with affine constraints is a polyhedron, and goes the same way as our sets; the others go to cvxpylayers.

    Guarantee: that of `EuclideanProjection` for our sets and for affine programs. For any other program, `OK` means
    that every constraint holds to `atol (1 + max|x|)`; that a second projection, of a point farther out on the same
    normal, comes back to `ε = atol (1 + max|x| + max|y|)`; and that a step of length `ε` towards `y` leaves the set.
    These are checked after the fact. An element whose solve fails raises nothing, is flagged `INFEASIBLE` or
    `MAX_STEPS` with its raw value, and has no gradient. An element at which the back end finds no derivative has a
    gradient of zero.

    Args:
        on_failure: `Raise() | Nan() | LeastViolation()`; default as in `ProjectionLayer`.
        compute_dtype: Compute in this dtype and round the result back.
        atol: Largest violation of a program's constraint, and distance to the projection, that count as none.

    Returns:
        `forward(y, set)`: the projection `(*batch, n)`.

    Raises:
        SetTypeError: The set is neither convex with a known projection nor a `ProgramSet`.
        ShapeError: `y` does not fit the set.
        InfeasibleError: In eval mode, an element has no feasible point.
        ConvergenceError: In eval mode, an element failed for another reason.

    Example:
        >>> import torch
        >>> from constrained_nn import Ball
        >>> HardNetConvex()(torch.tensor([3.0, 4.0]), Ball(torch.zeros(2), torch.tensor(1.0)))
        tensor([0.6000, 0.8000])

    References:
        HardNet (arXiv 2410.10807), Eq. 8.
    """

    accepts: ClassVar[tuple[type[ConstraintSet], ...]] = (*EuclideanProjection.accepts, ProgramSet)
    composes: ClassVar[bool] = True
    guarantee: ClassVar[str] = "nearest point: as EuclideanProjection, or to atol for a cvxpy program"

    def __init__(self, *, on_failure=None, compute_dtype=None, atol: float = 1e-6) -> None:
        super().__init__(on_failure=on_failure, compute_dtype=compute_dtype)
        self.atol = atol
        self._projection = EuclideanProjection()
        self.tolerance = Program(atol)

    def enforce(
        self, y: Float[Tensor, "*#batch n"], set: Any, factor: None, warm_start: Solution | None
    ) -> Solution:
        if not isinstance(set, ProgramSet):
            return self._projection.enforce(y, set, None, warm_start)
        if (rows := set.polyhedron(y)) is not None:
            return self._projection.enforce(y, rows, None, warm_start)
        refuse_transforms("HardNetConvex", y)
        batch = y.shape[:-1]
        points, values = y.reshape(-1, set.dim), set.flat(batch)
        value = torch.full_like(points, torch.nan)
        held = torch.zeros(batch, dtype=torch.bool, device=y.device)
        nearest = held.flatten()
        for backend in set.program.backends():
            rest = ~held.flatten()  # all of them, then those that the first back end left
            found, near = _project(set.program, backend, points[rest], [v[rest] for v in values], self.atol)
            value = value.index_put((rest,), found)
            nearest = nearest.index_put((rest,), near)
            violation = set.violation(value.reshape(*batch, set.dim))
            size = 1.0 + value.detach().abs().amax(-1).reshape(batch)
            held = (violation <= self.atol * size) & nearest.reshape(batch)  # False for NaN
            held = held & _touches(set, value.detach().reshape(*batch, set.dim), y.detach(), self.atol)
            if bool(held.all()):
                break
        value = value.reshape(*batch, set.dim)
        status = torch.where(held, int(Status.OK), int(Status.MAX_STEPS))
        if not bool(held.all()):
            value = torch.where(held.unsqueeze(-1), value, y.detach())
            violation = set.violation(value)
            empty = set.program.are_empty(values, ~held.flatten())
            status = torch.where(empty.to(y.device).reshape(batch), int(Status.INFEASIBLE), status)
        return Solution(value, status.to(torch.int8), torch.zeros_like(status, dtype=torch.int32), violation)


@dataclass(frozen=True)
class Program:
    """Constraints of a cvxpy program to `atol (1 + max|y|)`; our own sets as everywhere."""

    atol: float

    def __call__(self, value: Tensor, set: Any) -> Verdict:
        if not isinstance(set, ProgramSet) or set.polyhedron(value) is not None:
            return Relative()(value, set)
        wide, plain = widen(value, set)
        violation = plain.violation(wide)  # pyright: ignore[reportAttributeAccessIssue]
        unit = 4.0 * torch.finfo(value.dtype).eps
        return Verdict(violation <= max(self.atol, unit) * (1.0 + wide.abs().amax(-1)), violation)


def _project(
    program: Any, backend: str, y: Tensor, values: list[Tensor], atol: float
) -> tuple[Tensor, Tensor]:
    """Projections of a flat batch by one back end, NaN where it fails, and whether each is nearest to `atol`.

    The point `2 y − x` lies twice as far out on the normal at `x` and has the same projection. With an error `e` in
    `x` and the derivative `0 ⪯ J ⪯ I` of the projection, a second solve comes out at `x − (I + J) e`: it differs from
    `x` by at least `|e|`. An error that a solver repeats, too far inside, is what `_touches` finds.
    """
    try:
        solver = program.solver(backend, atol)
    except Exception:  # a back end that cannot be made leaves its elements to the next
        return torch.full_like(y, torch.nan), torch.zeros(len(y), dtype=torch.bool, device=y.device)
    x = _solve(solver, y, values)
    with torch.no_grad():
        again = _solve(solver, torch.where(x.isfinite(), 2.0 * y - x, y), values)
        error = (again - x).abs().amax(-1)
        unit = max(atol, 4.0 * torch.finfo(y.dtype).eps)
        near = error <= unit * (1.0 + x.abs().amax(-1) + y.abs().amax(-1))
    return x, near


def _touches(set: ProgramSet, x: Tensor, y: Tensor, atol: float) -> Tensor:
    """Whether no step from `x` towards `y` stays in the set: one that does ends nearer to `y`."""
    step = y - x
    length = torch.linalg.vector_norm(step, dim=-1, keepdim=True)
    unit = max(atol, 4.0 * torch.finfo(y.dtype).eps)
    short = unit * (1.0 + x.abs().amax(-1, keepdim=True) + y.abs().amax(-1, keepdim=True))
    there = length <= short
    ahead = x + torch.where(there, 0.0, short / torch.where(there, 1.0, length)) * step
    return there.squeeze(-1) | (set.violation(ahead) > 0)


def _solve(solver: Any, y: Tensor, values: list[Tensor]) -> Tensor:
    """Projections of a flat batch, NaN where a solve failed; halves only to find out which element that is."""
    if not len(y):
        return y
    try:
        return _Projections.apply(solver, y, *values)  # pyright: ignore[reportReturnType]
    except Exception:  # whatever a back end raises for a whole batch is the failure of some element
        if len(y) == 1:
            return torch.full_like(y, torch.nan)
        return torch.cat([_solve(solver, y[part], [v[part] for v in values]) for part in _parts(len(y))])


class _Projections(torch.autograd.Function):
    """The solution of a back end, with a derivative in which an element that has none hurts no other."""

    @staticmethod
    def forward(ctx, solver, *inputs):  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.solver = solver
        with torch.enable_grad():
            ctx.inputs = [
                t.detach().requires_grad_(n) for t, n in zip(inputs, ctx.needs_input_grad[1:], strict=True)
            ]
            ctx.value = solver(*ctx.inputs)[0]
        return ctx.value.detach()

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, *_gradients(ctx.solver, ctx.inputs, ctx.value, grad)


def _gradients(solver: Any, inputs: list[Tensor], value: Tensor, grad: Tensor) -> list[Tensor | None]:
    """Gradients of a flat batch, zero where an element has none."""
    wanted = [t for t in inputs if t.requires_grad]
    try:
        found = iter(torch.autograd.grad(value, wanted, grad, retain_graph=True))
        return [next(found) if t.requires_grad else None for t in inputs]
    except Exception:
        if len(grad) == 1:
            return [torch.zeros_like(t) if t.requires_grad else None for t in inputs]
    parts = []
    for part in _parts(len(grad)):
        with torch.enable_grad():
            half = [t[part].detach().requires_grad_(t.requires_grad) for t in inputs]
            parts.append(_gradients(solver, half, solver(*half)[0], grad[part]))
    return [None if t is None else torch.cat([t, u]) for t, u in zip(*parts, strict=True)]


def _parts(count: int) -> tuple[slice, slice]:
    return slice(None, count // 2), slice(count // 2, None)
