"""HardNet-Aff: linear constraints by a closed form."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn._linalg import (
    ThinQR,
    branchless,
    matvec,
    min_norm_adjoint,
    min_norm_solve,
    nearest_between,
    outer_sum_to,
    pinv_apply,
    product,
    recording,
    rmatvec,
    thin_qr,
)
from constrained_nn.layers._base import ProjectionLayer
from constrained_nn.layers._metrics import Euclidean, Metric, Parallel
from constrained_nn.sets import AffineSubspace, Box, ConstraintSet, Halfspace, Polyhedron
from constrained_nn.sets._base import check_batch
from constrained_nn.solvers import FoundBy, Solution, Status, project_polyhedron

_PARALLEL = Parallel()
LinearSet = Polyhedron | AffineSubspace | Halfspace | Box


def feasibility_rtol(dtype: torch.dtype) -> float:
    """Largest `residual / |A||y|` that counts as satisfied: 1e-9 in float64, 1e-4 in float32."""
    return 1e-9 if dtype == torch.float64 else 1e-4


class HardNetAffine(ProjectionLayer[LinearSet]):
    """Closed-form enforcement of linear constraints (HardNet-Aff).

    `y + A⁺ (clamp(A y, lower, upper) − A y)`: every violated row moves to its nearest bound, every satisfied row
    keeps its value. It is the Euclidean projection for one row, for orthogonal rows and for equalities only;
    otherwise it is oblique, with a Jacobian as large as `cond(A)`.

    Guarantee: rows of full rank are satisfied to `1e-9 |A||y|` in float64 and `1e-4 |A||y|` in float32, checked on
    the value that is returned. Where the rank condition fails (dependent, opposite or near-parallel rows, more
    rows than outputs) the element is the exact Euclidean projection (`found_by`: `ACTIVE_SET`). Crossed bounds and
    empty sets are flagged `INFEASIBLE`. Piecewise affine in `y`; at a bound the derivative is that of the
    inside (the row counts as satisfied). The derivative of a fallback element is that of the projection onto
    its active rows.

    Args:
        on_failure: `Raise() | Nan() | LeastViolation()`; default as in `ProjectionLayer`.
        compute_dtype: Compute in this dtype and round the result back.
        rank_rtol: Sine of the angle to the span of the rows above under which a row counts as dependent;
            default 1000 units of rounding. Neither this decision nor the result depends on the scaling of rows.
        metric: `Parallel()`, the closed form of the paper, or `Euclidean()`, the orthogonal projection for every
            element, whose Jacobian is at most 1 where that of the closed form grows as `cond(A)`.

    Returns:
        `forward(y, set)`: enforced decision `(*batch, n)`.

    Raises:
        SetTypeError: The set is not linear.
        ShapeError: `y` does not fit the set.
        InfeasibleError: In eval mode, an element has no feasible point.
        ConvergenceError: In eval mode, an element failed for another reason.

    Example:
        >>> import torch
        >>> A = torch.tensor([[0.0, 2.0]])
        >>> HardNetAffine()(torch.tensor([3.0, 5.0]), Polyhedron(A, upper=torch.tensor([2.0])))
        tensor([3., 1.])

    References:
        HardNet (arXiv 2410.10807), Eq. 5; Propositions 6 and 7 for its geometry.
    """

    accepts: ClassVar[tuple[type[ConstraintSet], ...]] = (Polyhedron, AffineSubspace, Halfspace, Box)
    guarantee: ClassVar[str] = "exact for rows of full rank, else exact Euclidean projection"

    def __init__(
        self,
        *,
        on_failure=None,
        compute_dtype=None,
        rank_rtol: float | None = None,
        metric: Metric = _PARALLEL,
    ) -> None:
        super().__init__(on_failure=on_failure, compute_dtype=compute_dtype)
        self.rank_rtol = rank_rtol
        self.metric = metric

    def condition_number(self, set: LinearSet) -> Float[Tensor, "*batch"]:
        """`cond(A)`, the largest by the smallest singular value: how much the closed form can stretch a step.

        Above 1e15 for dependent rows in float64, infinite for more rows than outputs, NaN where `A` is not finite.
        Scaling the rows changes this number, but not what the layer returns.
        """
        A = _rows(set).A.detach()
        finite = A.isfinite().all(-1).all(-1)
        values = torch.linalg.svdvals(torch.where(finite[..., None, None], A, 0.0))
        smallest = values[..., -1] if A.shape[-2] <= A.shape[-1] else torch.zeros_like(values[..., -1])
        ratio = torch.where(smallest > 0, values[..., 0] / smallest, torch.inf)
        return torch.where(finite, ratio, torch.nan)

    def factor(self, set: LinearSet) -> ThinQR | None:
        """Thin QR of `Aᵀ`, computed once for a constant matrix; `None` where the metric has no use for it."""
        if isinstance(self.metric, Euclidean):
            return None
        return thin_qr(_rows(set).A.detach(), rank_rtol=self.rank_rtol)

    def enforce(self, y: Float[Tensor, "*#batch n"], set: LinearSet, factor: ThinQR | None) -> Solution:
        rows = _rows(set)
        batch = check_batch("HardNetAffine", y=y.shape[:-1], set=rows.batch_shape)
        y = y if y.shape[:-1] == batch else y.expand(*batch, y.shape[-1])
        if isinstance(self.metric, Euclidean):
            return project_polyhedron(y, rows.A, rows.lower, rows.upper)
        if branchless(y, rows.A):
            return self._careful(y, rows, factor)
        if rows.A.shape[-2] <= rows.A.shape[-1]:
            qr = self._factor(rows.A) if factor is None else factor
            value = _closed_form(y, rows, qr)
            violation, satisfied = _audit(value, rows)
            if bool((satisfied & qr.independent.all(-1)).all()):
                status, steps = _no_steps(batch, y.device)
                return Solution(value, status, steps, violation, torch.zeros_like(status))
        return self._careful(y, rows, factor)

    def _factor(self, A: Tensor) -> ThinQR:
        return thin_qr(A.detach(), rank_rtol=self.rank_rtol)

    def _careful(self, y: Tensor, rows: Polyhedron, factor: ThinQR | None) -> Solution:
        """Closed form where it applies, projection elsewhere; bad elements replaced before any kernel."""
        batch = y.shape[:-1]
        finite = _finite(y, rows)
        sane_y = torch.where(finite.unsqueeze(-1), y, 0.0)
        sane = rows
        if branchless(y, rows.A) or not bool(finite.all()):
            sane = Polyhedron(
                torch.where(finite[..., None, None], rows.A, 0.0),
                torch.where(finite.unsqueeze(-1), rows.lower, -torch.inf),
                torch.where(finite.unsqueeze(-1), rows.upper, torch.inf),
            )
            factor = None
        status, steps = _no_steps(batch, y.device)
        if rows.A.shape[-2] <= rows.A.shape[-1]:
            qr = self._factor(sane.A) if factor is None else factor
            value = _closed_form(sane_y, sane, qr)
            violation, satisfied = _audit(value, sane)
            closed = satisfied & qr.independent.all(-1).expand(batch)
        else:
            value, closed = sane_y, torch.zeros(batch, dtype=torch.bool, device=y.device)
            violation = sane.violation(sane_y.detach())
        rest = ~closed & finite
        if branchless(y, rows.A):  # which elements need it is not known while tracing: project all of them
            solution = project_polyhedron(sane_y, sane.A, sane.lower, sane.upper)
            merge = torch.where
        elif bool(rest.any()):
            solution = project_polyhedron(*_pick(rest, sane_y, sane))
            merge = _scatter
        else:
            solution = None
        if solution is not None:
            value = merge(rest.unsqueeze(-1), solution.value, value)
            status = merge(rest, solution.status, status)
            steps = merge(rest, solution.steps, steps)
            violation = merge(rest, solution.violation, violation)
        status = torch.where(finite, status, int(Status.NONFINITE_INPUT)).to(torch.int8)
        found_by = torch.where(rest, int(FoundBy.ACTIVE_SET), int(FoundBy.CLOSED_FORM)).to(torch.int8)
        return Solution(value, status, steps, torch.where(finite, violation, torch.inf), found_by)


def _scatter(mask: Tensor, compact: Tensor, full: Tensor) -> Tensor:
    """`full` with its masked elements replaced by those of `compact`, in order."""
    return full.masked_scatter(mask, compact)


def _rows(set: LinearSet) -> Polyhedron:
    return set if isinstance(set, Polyhedron) else Polyhedron.of(set)


def _closed_form(y: Tensor, rows: Polyhedron, qr: ThinQR) -> Tensor:
    """Eq. 5: `y + A⁺ (clamp(A y, lower, upper) − A y)`."""
    if recording():
        Ay = matvec(rows.A, y)
        return y + min_norm_solve(rows.A, nearest_between(Ay, rows.lower, rows.upper) - Ay, qr)
    if not torch.is_grad_enabled():
        return _ClosedForm.forward(y, rows.A, rows.lower, rows.upper, *qr)[0]
    function = _ClosedForm if branchless(y, rows.A) else _EagerClosedForm
    return function.apply(y, rows.A, rows.lower, rows.upper, *qr)[0]  # pyright: ignore[reportReturnType]


class _ClosedForm(torch.autograd.Function):
    """Eq. 5 as one node: with `w = A⁺ᵀ g`, `x = P(y) − y` and `V` the violated rows,

    `ȳ = g − Aᵀ V w`, `bound̄ = V w`, `Ā = −w xᵀ − V w yᵀ + A⁺ᵀx (g − Aᵀ w)ᵀ`.

    Returns the value and, without derivative, which rows were below and above their bounds.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(y, A, lower, upper, Q, R, independent):
        Ay = product(A, y)
        value = y + pinv_apply(ThinQR(Q, R, independent), torch.clamp(Ay, lower, upper) - Ay)
        below = Ay < lower
        # an equality has no inside: it takes its direction even where it holds already
        return value, below, (Ay > upper) | ((lower >= upper) & below.logical_not())

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output)
        ctx.save_for_forward(*inputs, *output)

    @staticmethod
    def backward(ctx, grad, *_):  # pyright: ignore[reportIncompatibleMethodOverride]
        y, A, lower, upper, Q, R, independent, value, below, above = ctx.saved_tensors
        qr = ThinQR(Q, R, independent)
        w = min_norm_adjoint(A, grad, qr)
        violated = w * (below | above)
        grad_A = None
        if ctx.needs_input_grad[1]:
            step = value - y
            grad_A = -outer_sum_to(w, step, A.shape) - outer_sum_to(violated, y, A.shape)
            if A.shape[-2] < A.shape[-1]:  # for a square A the last term is zero
                rest = grad - rmatvec(A, w)
                grad_A = grad_A + outer_sum_to(min_norm_adjoint(A, step, qr), rest, A.shape)
        return (
            (grad - product(A.mT, violated)).sum_to_size(y.shape),
            grad_A,
            (w * below).sum_to_size(lower.shape) if ctx.needs_input_grad[2] else None,
            (w * above).sum_to_size(upper.shape) if ctx.needs_input_grad[3] else None,
            None,
            None,
            None,
        )

    @staticmethod
    def jvp(ctx, dy, dA, dlower, dupper, *_):  # pyright: ignore[reportIncompatibleMethodOverride]
        y, A, _, _, Q, R, independent, value, below, above = ctx.saved_tensors
        qr = ThinQR(Q, R, independent)
        dy = torch.zeros_like(y) if dy is None else dy
        dr = -product(A, dy)  # of the violated rows, whose residual is bound − A y
        if dlower is not None:
            dr = dr + dlower * below
        if dupper is not None:
            dr = dr + dupper * above
        if dA is None:
            return dy + min_norm_solve(A, dr * (below | above), qr), None, None
        dr = (dr - matvec(dA, y)) * (below | above)
        step = value - y
        tilt = rmatvec(dA, min_norm_adjoint(A, step, qr))
        tangent = dy + tilt + min_norm_solve(A, dr - matvec(dA, step) - matvec(A, tilt), qr)
        return tangent, None, None


class _EagerClosedForm(torch.autograd.Function):
    """The same node in the form without `setup_context`, whose call costs 50 µs less outside of `torch.func`."""

    @staticmethod
    def forward(ctx, *inputs):  # pyright: ignore[reportIncompatibleMethodOverride]
        output = _ClosedForm.forward(*inputs)
        _ClosedForm.setup_context(ctx, inputs, output)
        return output

    backward = _ClosedForm.backward
    jvp = _ClosedForm.jvp


@torch.no_grad()
def _audit(value: Tensor, rows: Polyhedron) -> tuple[Tensor, Tensor]:
    """Violation of what is returned, and whether it is within rounding. NaN compares as not satisfied."""
    Ay = product(rows.A, value)
    excess = torch.maximum(Ay - rows.upper, rows.lower - Ay)
    limit = product(rows.A.abs(), value.abs()) * feasibility_rtol(value.dtype)
    return excess.amax(-1).clamp_min(0.0), (excess <= limit).all(-1)


def _finite(y: Tensor, rows: Polyhedron) -> Tensor:
    """Elements without NaN, with finite `y` and `A`, and no bound at the wrong infinity."""
    bounds = (rows.lower < torch.inf) & (rows.upper > -torch.inf)
    return y.isfinite().all(-1) & rows.A.isfinite().all(-1).all(-1) & bounds.all(-1)


def _no_steps(batch: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    return (
        torch.zeros(batch, dtype=torch.int8, device=device),
        torch.zeros(batch, dtype=torch.int32, device=device),
    )


def _pick(mask: Tensor, y: Tensor, rows: Polyhedron) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The masked elements as one flat batch; a shared matrix stays shared."""
    batch = mask.shape

    def take(t: Tensor, core: int) -> Tensor:
        return t if t.ndim == core else t.expand(*batch, *t.shape[t.ndim - core :])[mask]

    return take(y, 1), take(rows.A, 2), take(rows.lower, 1), take(rows.upper, 1)
