"""Euclidean projection onto convex sets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import SetTypeError
from constrained_nn.layers.contract import AtOnce, ProjectionLayer, detached, same_dtype
from constrained_nn.layers.nearest.parts import Parts
from constrained_nn.linalg import branchless
from constrained_nn.sets import (
    AffineSubspace,
    Box,
    ConstraintSet,
    Intersection,
    IntervalSet,
    Polyhedron,
    Product,
    ProjectableSet,
    tensors_of,
)
from constrained_nn.solvers import (
    Solution,
    Status,
    factor_polyhedron,
    project_intersection,
    project_polyhedron,
)
from constrained_nn.solvers.polyhedron import RowFactor

# Projections of the result; each gains the digits of one float, so that these are enough from 1e30 on.
_REFINEMENTS = 6
# Entries up to so many units of rounding of the largest may be 0.
_CLEAR = 1e4
ConvexSet = ProjectableSet | Polyhedron | Intersection | Product


class EuclideanProjection(ProjectionLayer[ConvexSet]):
    """Nearest point of a convex set (Euclidean projection).

    `argmin |x − y|²` subject to `x ∈ set`.

    A set with a closed form uses it; rows, boxes and their intersections are one exact active-set solve; the
    blocks of a `Product` are separate; an `Intersection` with balls, ellipsoids or cones is solved by a semismooth
    Newton method. Differentiable in `y` and in every tensor of the set, to second order.

    A warm start is used for rows with or without bounds, by their multipliers, and ignored elsewhere.

    Guarantee: `OK` means that the returned value satisfies the set to 1e-9 relative in float64 (1e-4 in float32),
    checked after the fact, and is the nearest point: exactly for closed forms, on its active set for rows,
    and to 1e-9 of the size of the data in the optimality conditions for curved intersections. Empty sets are
    flagged `INFEASIBLE`, with a least-violation point. Where the projection has a kink, the derivative is an
    element of its generalized Jacobian; on the boundary of a closed form it is that of the inside.

    Args:
        on_failure: `Raise() | Nan() | LeastViolation()`; default as in `ProjectionLayer`.
        compute_dtype: Compute in this dtype and round the result back. Rows and curved intersections are
            computed in float64 always.
        max_steps: Steps of the iterative solvers before an element is flagged `MAX_STEPS`; default by size.
        smoothing: Width, in the unit of `y`, over which linear constraints that are nearly active count by halves
            in the derivatives; the value stays exact. `None`: the derivative of the active set.

    Returns:
        `forward(y, set)`: the projection `(*batch, n)`.

    Raises:
        SetTypeError: The set, or a member of it, is not convex with a known projection, or is curved and
            `smoothing` is given.
        ValueError: `smoothing` is not positive.
        ShapeError: `y` does not fit the set.
        InfeasibleError: In eval mode, an element has no feasible point.
        ConvergenceError: In eval mode, an element failed for another reason.

    Example:
        >>> import torch
        >>> from constrained_nn import Ball, Box, EuclideanProjection, Intersection
        >>> box = Box(torch.tensor([0.0, 0.0]), torch.tensor([0.6, 9.0]))
        >>> cap = Intersection(box, Ball(torch.zeros(2), torch.tensor(1.0)))
        >>> EuclideanProjection()(torch.tensor([4.0, 4.0]), cap)
        tensor([0.6000, 0.8000])

    References:
        Boyd and Vandenberghe, Convex Optimization (2004), section 8.1; Li, Sun and Toh, A highly efficient
        semismooth Newton augmented Lagrangian method (2018), for curved intersections.
    """

    accepts: ClassVar[tuple[type[ConstraintSet], ...]] = (ProjectableSet, Polyhedron, Intersection, Product)
    composes: ClassVar[bool] = True
    guarantee: ClassVar[str] = "nearest point: exact, or to 1e-9 for curved intersections; checked"

    def __init__(
        self,
        *,
        on_failure=None,
        compute_dtype=None,
        max_steps: int | None = None,
        smoothing: float | None = None,
    ) -> None:
        super().__init__(on_failure=on_failure, compute_dtype=compute_dtype)
        if smoothing is not None and not smoothing > 0:
            raise ValueError(
                f"EuclideanProjection: expected smoothing > 0, got {smoothing}. It is a width in the unit of y; "
                f"pass None for the derivative of the active set."
            )
        self.max_steps = max_steps
        self.smoothing = smoothing

    def factor(self, set: ConstraintSet) -> RowFactor | None:
        """What depends on a constant matrix only; `None` for closed forms, products, curved sets and matrices
        that differ between elements."""
        if isinstance(set, ProjectableSet) and self.smoothing is None:
            return None
        if len(blocks := _blocks(set)) == 1:
            return self.factor(blocks[0])  # pyright: ignore[reportArgumentType]
        if blocks:
            return None
        parts = Parts(set.dim).add(set)
        if parts.curved or parts.stacked is None:
            return None
        A, lower, upper = parts.stacked
        if A.ndim != 2:
            return None
        equality = (lower == upper).reshape(-1, A.shape[-2]).all(0)
        return factor_polyhedron(A, equality if bool(equality.any()) else None, box=parts.box is not None)

    def at_once(self, y: Tensor, set: ConstraintSet, factor: RowFactor | None) -> AtOnce | None:
        value = _formula(y, set) if self.smoothing is None else None
        return None if value is None else AtOnce(value)

    def enforce(
        self,
        y: Float[Tensor, "*batch n"],
        set: ConstraintSet,
        factor: RowFactor | None,
        warm_start: Solution | None,
    ) -> Solution:
        if factor is not None and factor.rows.dtype != torch.float64:
            factor = None  # rounded on the way: the search needs all digits
        return self._project(y, set, factor, warm_start)

    def _project(
        self,
        y: Tensor,
        set: ConstraintSet,
        factor: RowFactor | None = None,
        warm_start: Solution | None = None,
    ) -> Solution:
        """Projection of finite data, by the cheapest way that is exact."""
        if isinstance(set, ProjectableSet) and self.smoothing is None:
            return _audited(_closed_form(y, set), set)
        if len(blocks := _blocks(set)) == 1:
            return self._project(y, blocks[0], factor, warm_start)
        if blocks:
            pieces = zip(y.split([b.dim for b in blocks], -1), blocks, strict=True)
            return _joined([self._project(piece, block) for piece, block in pieces])
        parts = Parts(set.dim).add(set)
        if parts.curved:
            if self.smoothing is not None:
                raise SetTypeError(
                    f"EuclideanProjection: expected linear constraints with smoothing, got "
                    f"{type(parts.curved[0][1]).__name__}. Leave smoothing out for it."
                )
            return _audited(self._curved(y, set), set)
        if parts.stacked is None and self.smoothing is None:
            assert parts.box is not None
            box = Box(*parts.box)
            return _audited(_closed_form(y, box), box)
        rows = parts.stacked or (y.new_zeros(0, set.dim), y.new_zeros(0), y.new_zeros(0))
        duals = None if warm_start is None else warm_start.duals
        if duals is None or duals.shape[-1] != rows[0].shape[-2]:
            warm_start = None  # of another set
        options = {"max_steps": self.max_steps, "smoothing": self.smoothing, "warm_start": warm_start}
        return project_polyhedron(y, *rows, box=parts.box, factor=factor, **options)

    def _curved(self, y: Tensor, set: ConstraintSet) -> Solution:
        wide_y, wide = y.double(), same_dtype(set, torch.float64)
        terms = Parts(set.dim).add(wide).terms(wide_y)
        plain = Parts(set.dim).add(detached(wide)).terms(wide_y)
        solution = project_intersection(wide_y, terms, plain, max_steps=self.max_steps)
        value = _cleared(solution.value.to(y.dtype), set)
        return replace(solution, value=value, violation=solution.violation.to(y.dtype))


def _formula(y: Tensor, set: ConstraintSet) -> Tensor | None:
    """The projection where all of it is a closed form, unless equations may contradict each other."""
    if isinstance(set, ProjectableSet):
        value = set.project(y)
        return None if isinstance(set, AffineSubspace) and _may_contradict_itself(value, set) else value
    if not (blocks := _blocks(set)):
        return None
    values = []
    for piece, block in zip(y.split([b.dim for b in blocks], -1), blocks, strict=True):
        if (value := _formula(piece, block)) is None:
            return None
        values.append(value)
    return torch.cat(values, -1)


def _blocks(set: ConstraintSet) -> list[Any]:
    """The parts of a set on components of their own, one after the other; none where parts share components."""
    reached, blocks = 0, []
    for start, part in set.parts():
        if part is set or start != reached:
            return []
        blocks.append(part)
        reached += part.dim
    return blocks if reached == set.dim else []


def _closed_form(y: Tensor, set: ProjectableSet) -> Solution:
    """The projection, and where rounding of a far `y` hides the set from it, the projection of the result.

    Rounding of the result is in the unit of the result. The derivative is that of the first projection.
    """
    value, plain = set.project(y), detached(set)
    for _ in range(_REFINEMENTS):
        with torch.no_grad():
            point = value.detach()  # forward mode knows no `no_grad`
            held = _holds(point, plain)
            if not branchless(value) and bool(held.all()):
                break
            better = torch.where(held.unsqueeze(-1), point, plain.project(point))
        value = value + (better - point)
        if branchless(value):
            break
    batch = value.shape[:-1]
    status = torch.zeros(batch, dtype=torch.int8, device=y.device)
    return Solution(value, status, status.to(torch.int32), value.new_zeros(batch))


def _cleared(value: Tensor, set: ConstraintSet) -> Tensor:
    """The value with rounding taken out where that is what keeps it from the set: beyond bounds, and around 0."""
    plain, point = detached(set), value.detach()
    with torch.no_grad():
        if not branchless(value) and bool(_holds(point, plain).all()):
            return value
        box = Parts(set.dim).add(plain).box
        inside = point if box is None else torch.clamp(point, *box)
        rounding = _CLEAR * torch.finfo(point.dtype).eps * inside.abs().amax(-1, keepdim=True)
        snapped = torch.where(inside.abs() <= rounding, 0.0, inside)
        better = point
        for candidate in (snapped, inside, point):
            better = torch.where(_holds(candidate, plain).unsqueeze(-1), candidate, better)
    return value + (better - point)


def _audited(solution: Solution, set: ConstraintSet) -> Solution:
    """The verdict on what is returned, in its own unit.

    A closed form that misses its set shows that the set is empty, if it can be; else precision is missing.
    """
    with torch.no_grad():
        plain, value = detached(set), solution.value.detach()
        missed = ~_holds(value, plain) & (solution.status == int(Status.OK))
        empty, violation = _is_empty(plain), plain.violation(value)
        if isinstance(
            plain, AffineSubspace
        ):  # far away no equation contradicts another by more than rounding
            missed = missed | ~_holds(plain.project(torch.zeros_like(value)), plain)
    verdict = Status.INFEASIBLE if set.may_be_empty else Status.MISSED
    status = torch.where(missed, int(verdict), solution.status)
    status = torch.where(empty, int(Status.INFEASIBLE), status).to(torch.int8)
    return replace(solution, status=status, violation=violation)


def _holds(value: Tensor, set: ConstraintSet) -> Tensor:
    """Whether every residual is rounding of its terms at `value`; NaN and infinity are not.

    Below the smallest normal number rounding is absolute.
    """
    info = torch.finfo(value.dtype)
    rtol = 1e-9 if value.dtype == torch.float64 else 1e-4
    residual, scale = set.residual(value).abs(), set.scale(value)
    underflow = 4 * set.dim * info.tiny * info.eps
    return ((residual <= rtol * scale + underflow) & (scale < torch.inf)).all(-1) & value.isfinite().all(-1)


@torch.no_grad()
def _may_contradict_itself(value: Tensor, set: AffineSubspace) -> bool:
    """Whether an equation is missed by more than a share of its right-hand side, which a far point may hide."""
    off = (set.value(value) - set.b).abs()
    return not bool((torch.sub(off, set.b.abs(), alpha=1e-9) <= 0).all())


def _is_empty(set: ConstraintSet) -> Tensor:
    """Whether two bounds of a row are crossed, by however little: no point satisfies such a row."""
    if isinstance(set, IntervalSet):
        return (set.lower > set.upper).any(-1)
    empty = torch.zeros((), dtype=torch.bool, device=next(iter(tensors_of(set))).device)
    for _, part in set.parts():
        if part is not set:
            empty = empty | _is_empty(part)
    return empty


def _joined(blocks: list[Solution]) -> Solution:
    """One solution of a product: the worst status, the most steps, the largest violation."""
    return Solution(
        torch.cat([b.value for b in blocks], -1),
        torch.stack([b.status for b in blocks]).amax(0),
        torch.stack([b.steps for b in blocks]).amax(0),
        torch.stack([b.violation for b in blocks]).amax(0),
    )
