"""HardNet++: nonlinear constraints by damped Gauss-Newton steps."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.layers.contract import Absolute, ProjectionLayer, detached
from constrained_nn.layers.hardnet.adjoints import Adjoint, Retraced
from constrained_nn.layers.hardnet.smooth_rows import SetRows, flat_rows, widen
from constrained_nn.linalg import branchless
from constrained_nn.sets import (
    ConstraintSet,
    Intersection,
    IntervalSet,
    NonlinearSet,
    Product,
    ProjectableSet,
    tensors_of,
)
from constrained_nn.solvers import Solution, Status
from constrained_nn.solvers.gauss_newton import GaussNewton, descend, descend_traced, into_box, reachable

_METHOD, _ADJOINT = GaussNewton(), Retraced()


class HardNetPlusPlus(ProjectionLayer[Any]):
    """Enforcement of nonlinear constraints by damped Gauss-Newton steps (HardNet++).

    `y ← y − t J_aᵀ (J_a J_aᵀ + δ S²)⁻¹ r_a(y)` until `max |r| <= atol`.

    `r` is the signed distance of the rows to their intervals, `J` their Jacobian, `S` the lengths of its rows, so that
    the units of the rows do not matter. By default `a` are the equalities and the violated inequalities,
    `δ = min(0.1, 0.01 |S⁻¹r|)`, and `t` is halved until `|S⁻¹r|` falls; each element stops by itself, and one that
    fails is tried again with another damping, then with steps on all rows at once. Boxes in an `Intersection` bound
    the variables: `y` is clamped to them first, and the functions are evaluated nowhere else. Members that have a
    projection and no rows enter by their distance. Rows of one `TrajectoryMap` are solved by a banded factorization.
    `GaussNewton.published()` is the iteration of the paper: all rows as written, `δ = 0.3`, 500 full steps. Narrower
    dtypes are computed in float64 if the functions of the set compute in it.

    A warm start is ignored.

    Guarantee: `OK` means that no row of the returned value is violated by more than `atol` (1e-10), or by 64 roundings
    of its terms `|J||y| + |bound|` where that is more, checked on that value. Whether it is reached depends on rows
    and start; every other element is flagged: `STATIONARY` where the violation has no descent direction, `STAGNATED`,
    `MAX_STEPS`, `SINGULAR`, or `INFEASIBLE` for crossed bounds. The result is feasible and near, not nearest
    (`NearestPoint`). The derivative is that of the map as it is computed, at kinks that of one side; where equalities
    hold from the start it is that of the neighborhood, tangent to them. `adjoint=Implicit()` trades the part along
    the constraints for speed.

    Args:
        method: Settings of the iteration.
        adjoint: `Retraced()`, exact at the memory of the iterates; `Taped()`, exact on the tape; `Implicit()`.
        on_failure: `Raise() | Nan() | LeastViolation()`; default as in `ProjectionLayer`.
        compute_dtype: Compute in this dtype and round the result back.

    Returns:
        `forward(y, set)`: enforced decision `(*batch, n)`.

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
        >>> y = HardNetPlusPlus()(torch.tensor([0.3, 0.4]).double(), outside)
        >>> bool(y.norm() >= 1 - 1e-9)
        True

    References:
        HardNet++ (arXiv 2604.19669), the damped iteration of its layer.
    """

    accepts: ClassVar[tuple[type[ConstraintSet], ...]] = (
        NonlinearSet,
        IntervalSet,
        ProjectableSet,
        Intersection,
        Product,
    )
    composes: ClassVar[bool] = True
    guarantee: ClassVar[str] = "every row to atol, or flagged; feasible and near, not nearest"

    def __init__(
        self,
        *,
        method: GaussNewton = _METHOD,
        adjoint: Adjoint = _ADJOINT,
        on_failure=None,
        compute_dtype=None,
    ) -> None:
        super().__init__(on_failure=on_failure, compute_dtype=compute_dtype)
        self.method = method
        self.adjoint = adjoint
        # the published iteration takes a fixed number of steps: its result is judged by the usual tolerance
        self.tolerance = Absolute((_METHOD if method.atol is None else method).atol or 0.0)

    def enforce(
        self, y: Float[Tensor, "*batch n"], set: Any, factor: None, warm_start: Solution | None
    ) -> Solution:
        traced = branchless(y, *tensors_of(set))
        if not traced:
            y, set = widen("HardNetPlusPlus", y, set)
        run = self._traced if traced else self._eager
        value, status, steps, crossed = run(y, set, reachable(self.method, y.dtype))
        if self.method.atol is None:  # a fixed number of steps promises nothing
            with torch.no_grad():
                held = self.tolerance(value.detach(), detached(set)).held
            status = torch.where((status == int(Status.OK)) & ~held, int(Status.MAX_STEPS), status)
        status = torch.where(crossed.expand(status.shape), int(Status.INFEASIBLE), status)
        return Solution(value, status, steps, value.new_zeros(status.shape))

    def _traced(self, y: Tensor, set: Any, method: GaussNewton):
        rows = SetRows("HardNetPlusPlus", set, bounded=method.bounded)
        return *descend_traced(rows, into_box(rows, y), method), rows.crossed

    def _eager(self, y: Tensor, set: Any, method: GaussNewton):
        batch = y.shape[:-1]
        build, tensors = flat_rows("HardNetPlusPlus", set, batch, bounded=method.bounded)
        differentiate = torch.is_grad_enabled() and any(t.requires_grad for t in (y, *tensors))
        problem = build(*(t.detach() for t in tensors))
        points = into_box(build(*tensors), y.reshape(-1, y.shape[-1]))
        outcome = descend(problem, points.detach(), method, keep=differentiate)
        value = outcome.y
        if differentiate:
            value = self.adjoint(build, outcome, points, tensors)
        crossed = problem.crossed
        crossed = crossed.reshape(batch) if crossed.ndim else crossed
        return value.reshape(y.shape), outcome.status.reshape(batch), outcome.steps.reshape(batch), crossed
