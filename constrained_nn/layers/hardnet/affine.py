"""HardNet-Aff: linear constraints by a closed form."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.layers.contract import AtOnce, ProjectionLayer, detached
from constrained_nn.layers.hardnet.closed_form import closed_form
from constrained_nn.layers.hardnet.metrics import Euclidean, Metric, Parallel
from constrained_nn.linalg import ThinQR, branchless, nearest_between, product, safe_norm, thin_qr
from constrained_nn.sets import (
    AffineSubspace,
    Box,
    ConstraintSet,
    Halfspace,
    Polyhedron,
    check_batch,
    take_apart,
)
from constrained_nn.solvers import FoundBy, Solution, Status, project_polyhedron

_PARALLEL = Parallel()
# Units of rounding of the proposal that may be left of an entry that is 0.
_CLEAR = 64
LinearSet = Polyhedron | AffineSubspace | Halfspace | Box


def feasibility_rtol(dtype: torch.dtype) -> float:
    """Largest `residual / |A||y|` that counts as satisfied: 1e-9 in float64, 1e-4 in float32."""
    return 1e-9 if dtype == torch.float64 else 1e-4


class FactoredRows(NamedTuple):
    """A constant matrix with its factor.

    Args:
        A: The matrix, in the dtype of the computation.
        qr: Thin QR of `Aᵀ`.
        covers: Whether its rows are so far from dependent that the closed form needs no fallback.
    """

    A: Float[Tensor, "*batch m n"]
    qr: ThinQR
    covers: bool

    def fits(self, A: Tensor) -> bool:
        """Whether this is the factor of `A`; where values cannot be looked at, the layer compares them in its graph."""
        if A.shape != self.A.shape or A.dtype != self.A.dtype or A.device != self.A.device:
            return False
        return branchless(A) or torch.equal(A, self.A)


class HardNetAffine(ProjectionLayer[LinearSet]):
    """Closed-form enforcement of linear constraints (HardNet-Aff).

    `y + A⁺ (clamp(A y, lower, upper) − A y)`: every violated row moves to its nearest bound, every satisfied row
    keeps its value. It is the Euclidean projection for one row, for orthogonal rows and for equalities only;
    otherwise it is oblique, with a Jacobian as large as `cond(A)`.

    A warm start is ignored but with `metric=Euclidean()`.

    Guarantee: rows of full rank are satisfied to `1e-9` in float64 and `1e-4` in float32 of `|A||x| + |bound|`, checked
    on the value that is returned. Where the rank condition fails (dependent, opposite or near-parallel rows, more
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
    composes: ClassVar[bool] = True
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

    def condition_number(self, set: ConstraintSet) -> Float[Tensor, "*batch"]:
        """`cond(A)`, the largest by the smallest singular value: how much the closed form can stretch a step.

        Above 1e15 for dependent rows in float64, infinite for more rows than outputs, 1 without rows, NaN where `A` is
        not finite. Scaling the rows changes this number, but not what the layer returns.
        """
        A = Polyhedron.of(set).A.detach()
        if not A.numel():
            return A.new_full(A.shape[:-2], torch.inf if A.shape[-2] > A.shape[-1] else 1.0)
        finite = A.isfinite().all(-1).all(-1)
        values = torch.linalg.svdvals(torch.where(finite[..., None, None], A, 0.0))
        smallest = values[..., -1] if A.shape[-2] <= A.shape[-1] else torch.zeros_like(values[..., -1])
        ratio = torch.where(smallest > 0, values[..., 0] / smallest, torch.inf)
        return torch.where(finite, ratio, torch.nan)

    def factor(self, set: ConstraintSet) -> FactoredRows | None:
        """Thin QR of `Aᵀ`, computed once for a constant matrix; `None` where there is no use for it.

        That is with `metric=Euclidean()`, for a `Box`, and for a matrix that has a gradient, and so will change.
        """
        rows = _bounds_or_rows(set)
        if isinstance(self.metric, Euclidean) or isinstance(rows, Box):
            return None
        A = rows.A
        if A.requires_grad or not A.numel():
            return None
        A = A.detach().to(self.compute_dtype or A.dtype, copy=True)  # it is to notice when the matrix changes
        return FactoredRows(A, self._factor(A), self._covers(A))

    def _covers(self, A: Tensor) -> bool:
        """Whether the closed form enforces these rows whatever `y` and bounds are: they are far from dependent."""
        if branchless(A) or not A.numel() or A.shape[-2] > A.shape[-1] or not bool(A.isfinite().all()):
            return False
        norm = safe_norm(A).unsqueeze(-1)
        values = torch.linalg.svdvals(A / torch.where(norm > 0, norm, 1.0))
        limit = 0.1 * feasibility_rtol(A.dtype) / torch.finfo(A.dtype).eps
        return bool((values[..., 0] <= limit * values[..., -1]).all())

    def at_once(self, y: Tensor, set: ConstraintSet, factor: FactoredRows | None) -> AtOnce | None:
        batch = y.shape[:-1]
        rows = _bounds_or_rows(set)
        if isinstance(rows, Box):
            details = lambda: {"found_by": _no_steps(batch, y.device)[0]}  # noqa: E731
            return AtOnce(nearest_between(y, rows.lower, rows.upper), details)
        m, n = rows.A.shape[-2:]
        if not 0 < m <= n or isinstance(self.metric, Euclidean):
            return None
        qr = factor.qr if factor is not None and factor.fits(rows.A) else self._factor(rows.A)
        if not bool(qr.independent.all()):
            return None
        value = closed_form(y, rows, qr)
        if not _all_land(value, y, rows):
            return None
        return AtOnce(
            value, lambda: {"found_by": _no_steps(batch, y.device)[0], "condition": _condition(qr, batch)}
        )

    def enforce(
        self,
        y: Float[Tensor, "*#batch n"],
        set: ConstraintSet,
        factor: FactoredRows | None,
        warm_start: Solution | None,
    ) -> Solution:
        batch = check_batch("HardNetAffine", y=y.shape[:-1], set=set.batch_shape)
        y = y if y.shape[:-1] == batch else y.expand(*batch, y.shape[-1])
        rows = _bounds_or_rows(set)
        if isinstance(rows, Box) or rows.lower.shape[-1] == 0 or rows.dim == 0:
            return _clamped(y, rows)
        if isinstance(self.metric, Euclidean):
            return project_polyhedron(
                y, rows.A, rows.lower, rows.upper, warm_start=_of_rows(warm_start, rows)
            )
        factor = factor if factor is not None and factor.fits(rows.A) else None
        if branchless(y, rows.A):
            if rows.A.shape[-2] == 1 or (factor is not None and factor.covers):
                return self._closed_form_alone(y, rows, factor)
            return self._careful(y, rows, factor)
        return self._careful(y, rows, factor)

    def _factor(self, A: Tensor) -> ThinQR:
        return thin_qr(A.detach(), rank_rtol=self.rank_rtol)

    def _closed_form_alone(self, y: Tensor, rows: Polyhedron, factor: FactoredRows | None) -> Solution:
        """One row, or rows that are known to be far from dependent: no search enters the graph."""
        lower, upper, crossed = _uncrossed(rows)
        open_rows = Polyhedron(rows.A, lower, upper)
        qr = self._factor(rows.A) if factor is None else factor.qr
        value = closed_form(y, open_rows, qr)
        with torch.no_grad():  # what the rounding of a far proposal has left; its derivative is zero
            point = value.detach()
            rest = closed_form(point, detached(open_rows), qr) - point
        zero_row = qr.independent.logical_not() & ((lower > 0) | (upper < 0))
        status = torch.where((crossed | zero_row).any(-1), int(Status.INFEASIBLE), int(Status.OK))
        if factor is not None:
            status = torch.where((factor.A == rows.A).all(), status, int(Status.SINGULAR))
        return _at_once(value + rest, status)

    def _careful(self, y: Tensor, rows: Polyhedron, factor: FactoredRows | None) -> Solution:
        """Closed form where it applies, projection elsewhere."""
        batch, traced = y.shape[:-1], branchless(y, rows.A)
        status, steps = _no_steps(batch, y.device)
        if rows.A.shape[-2] <= rows.A.shape[-1]:
            qr = self._factor(rows.A) if factor is None or traced else factor.qr
            value = closed_form(y, rows, qr)
            value, violation, satisfied = _audit(value, y, rows)
            rest = ~(satisfied & qr.independent.all(-1).expand(batch))
            condition = _condition(qr, batch)
        else:
            value, rest = y, torch.ones(batch, dtype=torch.bool, device=y.device)
            violation = rows.violation(y.detach())
            condition = torch.ones_like(violation)
        if traced:  # which elements need it is not known while tracing: project all of them
            solution = project_polyhedron(y, rows.A, rows.lower, rows.upper)
            merge = torch.where
        elif not bool(rest.any()):
            return Solution(value, status, steps, violation, torch.zeros_like(status), condition)
        else:
            solution = project_polyhedron(*_pick(rest, y, rows))
            merge = _scatter
        value = merge(rest.unsqueeze(-1), solution.value, value)
        status = merge(rest, solution.status, status)
        steps = merge(rest, solution.steps, steps)
        violation = merge(rest, solution.violation, violation)
        found_by = torch.where(rest, int(FoundBy.ACTIVE_SET), int(FoundBy.CLOSED_FORM)).to(torch.int8)
        condition = torch.where(rest, 1.0, condition)  # the projection enlarges nothing
        return Solution(value, status, steps, violation, found_by, condition)


@torch.no_grad()
def _condition(qr: ThinQR, batch: torch.Size) -> Tensor:
    """By how much the closed form may enlarge a step of `y` `(*batch)`, from the sines of the angles between rows.

    A row's distance to the span of the rows above, by its norm, is `|R_jj| / |R_j|`.
    """
    sine = qr.R.diagonal(dim1=-2, dim2=-1).abs() / torch.linalg.vector_norm(qr.R, dim=-2)
    least = torch.where(qr.independent, sine, 0.0).amin(-1)
    return (1.0 / least).expand(batch)


def _clamped(y: Tensor, set: Box | Polyhedron) -> Solution:
    """A box, and a set without rows or in no dimension: nothing to solve."""
    lower, upper, crossed = _uncrossed(set)
    if isinstance(set, Box):
        y = nearest_between(y, lower, upper)
    elif not set.dim:
        crossed = crossed | (lower > 0) | (upper < 0)
    return _at_once(y, torch.where(crossed.any(-1), int(Status.INFEASIBLE), int(Status.OK)))


def _uncrossed(set: Box | Polyhedron) -> tuple[Tensor, Tensor, Tensor]:
    """The bounds, both in the middle where they cross, which is the least violation; and where that is."""
    crossed = set.lower > set.upper
    middle = 0.5 * set.lower + 0.5 * set.upper
    return torch.where(crossed, middle, set.lower), torch.where(crossed, middle, set.upper), crossed


def _at_once(value: Tensor, status: Tensor) -> Solution:
    """What a closed form has found; elements that fail have no derivative."""
    batch = value.shape[:-1]
    none, steps = _no_steps(batch, value.device)
    status = status.to(torch.int8).expand(batch)
    value = torch.where((status == int(Status.OK)).unsqueeze(-1), value, value.detach())
    return Solution(value, status, steps, value.new_zeros(batch), none)


def _scatter(mask: Tensor, compact: Tensor, full: Tensor) -> Tensor:
    """`full` with its masked elements replaced by those of `compact`, in order."""
    return full.masked_scatter(mask, compact)


def _of_rows(warm_start: Solution | None, rows: Polyhedron) -> Solution | None:
    """An earlier projection, if it is one onto as many rows."""
    duals = None if warm_start is None else warm_start.duals
    return warm_start if duals is not None and duals.shape[-1] == rows.A.shape[-2] else None


def _bounds_or_rows(set: ConstraintSet) -> Box | Polyhedron:
    """The set as one of the two forms in which it is enforced."""
    if isinstance(set, Box | Polyhedron):
        return set
    parts = [part for _, part in take_apart(set)]
    alone = len(parts) == 1 and parts[0].dim == set.dim  # no other component of the decision is left free
    return parts[0] if alone and isinstance(parts[0], Box) else Polyhedron.of(set)


def _audit(value: Tensor, y: Tensor, rows: Polyhedron) -> tuple[Tensor, Tensor, Tensor]:
    """The value, its violation, and whether every row is where Eq. 5 puts it, to rounding. NaN is not.

    Rounding is that of `|A||x| + |bound|`, but not of an `x` that nearly dependent rows drive far beyond `y` and the
    bounds; nor of a `y` far beyond `x`. Entries that are rounding of `y` become 0 where only that makes rows hold.
    """
    with torch.no_grad():
        x, rows = value.detach(), Polyhedron(rows.A.detach(), rows.lower.detach(), rows.upper.detach())
        in_order = (rows.lower <= rows.upper).all(-1)
        rounding = _CLEAR * torch.finfo(x.dtype).eps * y.abs().amax(-1, keepdim=True)
        cleared = torch.where(x.abs() <= rounding, 0.0, x)
        held, better = (_lands(point, y, rows) for point in (x, cleared))
        x = torch.where((better & held.logical_not()).unsqueeze(-1), cleared, x)
        held = in_order & (held | better)
        violation = rows.violation(x)
    return value + (x - value.detach()), violation, held


@torch.no_grad()
def _all_land(value: Tensor, y: Tensor, rows: Polyhedron) -> bool:
    """Whether `_lands` holds for every element; most often a share of `|target|` is enough to tell."""
    off, target, A = _miss(value, y, rows)
    if bool((torch.sub(off, target.abs(), alpha=feasibility_rtol(y.dtype)) <= 0).all()):
        return True
    return bool((off <= _allowance(value, y, A, target)).all())


def _lands(x: Tensor, y: Tensor, rows: Polyhedron) -> Tensor:
    """Whether `A x` is `clamp(A y, lower, upper)`, to rounding of the smaller of `|A||x|` and `|A||y|`."""
    off, target, A = _miss(x, y, rows)
    return (off <= _allowance(x, y, A, target)).all(-1)


def _miss(x: Tensor, y: Tensor, rows: Polyhedron) -> tuple[Tensor, Tensor, Tensor]:
    """`|A x − target|`, `target = clamp(A y, lower, upper)` and `A`, in float64: rounding must not hide a miss."""
    A = rows.A.double()
    target = torch.clamp(product(A, y.double()), rows.lower.double(), rows.upper.double())
    return (product(A, x.double()) - target).abs(), target, A


def _allowance(x: Tensor, y: Tensor, A: Tensor, target: Tensor) -> Tensor:
    """By how much `A x` may miss its target: the tolerance of the dtype, of the smaller of `|A||x|` and `|A||y|`."""
    x_size, y_size = (product(A.abs(), t.double().abs()) for t in (x, y))
    return feasibility_rtol(x.dtype) * (torch.minimum(x_size, y_size) + target.abs())


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
