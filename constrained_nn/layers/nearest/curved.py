"""Euclidean projection onto nonlinear sets."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.layers.contract import Absolute, ProjectionLayer, refuse_transforms
from constrained_nn.layers.hardnet import flat_rows, widen
from constrained_nn.sets import (
    ConstraintSet,
    Intersection,
    IntervalSet,
    NonlinearSet,
    Product,
    ProjectableSet,
)
from constrained_nn.solvers import Solution, Status
from constrained_nn.solvers.gauss_newton import (
    GaussNewton,
    descend,
    differentiable,
    find_nearest,
    into_box,
    reachable,
)


class NearestPoint(ProjectionLayer[Any]):
    """Nearest point of a nonlinear set, by sequential quadratic programming on the exact projection of rows.

    `argmin |x − y|²` subject to `x ∈ set`, locally.

    It starts from the result of the steps of `HardNetPlusPlus` and stays feasible: each of its own steps is a
    Euclidean projection onto the linearized rows in the metric of the Lagrangian's Hessian, and is restored to the
    rows by such steps. More costly than `HardNetPlusPlus` (dense Jacobians, second derivatives of the rows), for the
    user who wants the distance minimal. Boxes in an `Intersection` bound the variables at every step. Narrower dtypes
    are computed in float64 if the functions of the set compute in it.

    A warm start is ignored.

    Guarantee: `OK` means that no row of the returned value is violated by more than `atol`, or by 64 roundings of its
    terms `|J||y| + |bound|` where that is more, and that the first-order optimality conditions held to 1e-8 relative
    before the result was rounded: a stationary point of the distance, the nearest point where the set is convex, and
    in general the nearest one of its neighborhood. Everything else is flagged; a flagged element is feasible wherever
    `HardNetPlusPlus` solves it. Differentiable in `y` and in every tensor of the set to second order, by the implicit
    function theorem on the active rows; at kinks one element of the generalized Jacobian. Not for `torch.func` and
    `torch.compile`.

    Args:
        max_steps: Steps before an element is given up.
        atol: Largest violated row of a solution, in row units.
        on_failure: `Raise() | Nan() | LeastViolation()`; default as in `ProjectionLayer`.
        compute_dtype: Compute in this dtype and round the result back.

    Returns:
        `forward(y, set)`: the nearest point `(*batch, n)`.

    Raises:
        SetTypeError: The set, or a member of it, has neither rows nor a projection.
        ShapeError: `y` does not fit the set.
        InfeasibleError: In eval mode, an element has crossed bounds.
        ConvergenceError: In eval mode, an element failed for another reason.

    Example:
        >>> import torch
        >>> from constrained_nn import NonlinearSet, SmoothFunction
        >>> circle = SmoothFunction(lambda y, context: (y * y).sum(-1, keepdim=True), 2)
        >>> outside = NonlinearSet(circle, torch.ones(1).double(), torch.tensor([torch.inf]).double())
        >>> NearestPoint()(torch.tensor([0.3, 0.4]).double(), outside)
        tensor([0.6000, 0.8000], dtype=torch.float64)

    References:
        Nocedal and Wright, Numerical Optimization (2006), chapter 18; HardNet++ (arXiv 2604.19669) for the set.
    """

    accepts: ClassVar[tuple[type[ConstraintSet], ...]] = (
        NonlinearSet,
        IntervalSet,
        ProjectableSet,
        Intersection,
        Product,
    )
    composes: ClassVar[bool] = True
    guarantee: ClassVar[str] = "nearest point of the neighborhood, every row to atol, or flagged"

    def __init__(
        self, *, max_steps: int = 50, atol: float = 1e-10, on_failure=None, compute_dtype=None
    ) -> None:
        super().__init__(on_failure=on_failure, compute_dtype=compute_dtype)
        self.max_steps = max_steps
        self.atol = atol
        self.tolerance = Absolute(atol)

    def enforce(
        self, y: Float[Tensor, "*batch n"], set: Any, factor: None, warm_start: Solution | None
    ) -> Solution:
        refuse_transforms("NearestPoint", y)
        batch = y.shape[:-1]
        y, set = widen("NearestPoint", y, set)
        build, tensors = flat_rows("NearestPoint", set, batch)
        points = y.reshape(-1, y.shape[-1])
        problem, fixed = build(*(t.detach() for t in tensors)), points.detach()
        method = reachable(GaussNewton(atol=self.atol), y.dtype)
        feasible = descend(problem, into_box(problem, fixed), method, keep=False)
        found = find_nearest(problem, fixed, feasible, method, self.max_steps)
        value = differentiable(build, found, points, tensors).reshape(y.shape)
        crossed = problem.crossed
        crossed = crossed.reshape(batch) if crossed.ndim else crossed
        status = torch.where(crossed, int(Status.INFEASIBLE), found.status.reshape(batch))
        return Solution(value, status, found.steps.reshape(batch), value.new_zeros(batch))
