"""Inequalities that hold with zero tolerance for the floating-point value that is returned."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import SetTypeError
from constrained_nn.layers.contract import ProjectionLayer, detached, same_dtype
from constrained_nn.layers.nearest import Parts
from constrained_nn.linalg import branchless, matvec, min_norm_solve
from constrained_nn.sets import (
    AffineSubspace,
    Box,
    ConstraintSet,
    Halfspace,
    Intersection,
    Polyhedron,
    Product,
    Simplex,
)
from constrained_nn.solvers import Solution, Status, project_polyhedron

# Distances from the faces at which an interior point is looked for, relative to the size of the data.
_DEPTHS = (1e-1, 1e-3, 1e-6, 1e-9, 1e-12)
# Pull-backs that are tried, each with this many times the rounding of the one before.
_ATTEMPTS, _GROWTH = 4, 8.0


class InteriorPoint(NamedTuple):
    """A point well inside of a constant set, `(n,)`."""

    point: Float[Tensor, " n"]


class StrictInterior(ProjectionLayer[ConstraintSet]):
    """Last pull-back towards an interior point, after which inequalities hold exactly.

    `x + t (c − x)`, `x = layer(y)`, `c` inside of the set, with the smallest `t` in [0, 1] that rounding allows.

    Guarantee: the returned floating-point value satisfies every inequality row with zero tolerance in exact
    arithmetic, and every equality row to `4 n u (|A||y| + |b|)` (`u` the unit of rounding of its dtype). That is
    checked on the value itself with a rigorous bound on the rounding of the check; an element for which it
    cannot be had (a set thinner than rounding) is flagged `SINGULAR`. A value that is safely inside already is
    returned bit for bit. `c` and `t` carry no derivative: the derivative is that of the layer times `1 − t`, and
    `t` is of the size of rounding.

    Args:
        layer: The layer that enforces the set; its failures stay failures.
        margin: Distance in row units by which the layer is asked to stay inside; 0 for rounding only.
        on_failure: `Raise() | Nan() | LeastViolation()`; default as in `ProjectionLayer`.

    Returns:
        `forward(y, set)`: the strictly feasible decision `(*batch, n)`.

    Raises:
        SetTypeError: The set has a curved member, or the layer cannot enforce it.
        InfeasibleError: In eval mode, an element has no feasible point.
        ConvergenceError: In eval mode, an element failed for another reason.

    Example:
        >>> import torch
        >>> from constrained_nn import EuclideanProjection, Halfspace, StrictInterior
        >>> third = Halfspace(torch.tensor([0.1, 0.7]), torch.tensor(0.3))
        >>> y = StrictInterior(EuclideanProjection())(torch.tensor([1.0, 1.0]), third)
        >>> from fractions import Fraction as F
        >>> sum(F(float(a)) * F(float(b)) for a, b in zip(third.normal, y)) <= F(float(third.offset))
        True

    References:
        Higham, Accuracy and Stability of Numerical Algorithms (2002), Eq. 3.5, the rounding of an inner product.
    """

    accepts: ClassVar[tuple[type[ConstraintSet], ...]] = (
        Polyhedron,
        AffineSubspace,
        Halfspace,
        Box,
        Simplex,
        Intersection,
        Product,
    )
    rounds = True
    composes: ClassVar[bool] = True
    guarantee: ClassVar[str] = "inequality rows with zero tolerance, equality rows to 4 n u (|A||y| + |b|)"

    def __init__(self, layer: ProjectionLayer, margin: float = 0.0, *, on_failure=None) -> None:
        super().__init__(on_failure=on_failure)
        self.layer = layer
        self.margin = margin

    def factor(self, set: ConstraintSet) -> InteriorPoint | None:
        """The Chebyshev center of a constant set, by a linear program; `None` if there is none."""
        point = _chebyshev_center(_linear(set)) if set.batch_shape == () else None
        return None if point is None else InteriorPoint(point)

    def enforce(
        self,
        y: Float[Tensor, "*batch n"],
        set: ConstraintSet,
        factor: InteriorPoint | None,
        warm_start: Solution | None,
    ) -> Solution:
        asked = set
        if self.margin:
            with torch.no_grad():
                asked = set.shrink(torch.full_like(detached(set).scale(y.detach()), self.margin))
        solution = self.layer.solve(y, asked, warm_start=warm_start)
        x = solution.value
        with torch.no_grad():
            rows = _linear(detached(set))
            value, strict = _pulled_back(x.detach(), rows, factor)
            moved = value - x.detach()
            violation = detached(set).violation(value)
        status = torch.where(strict | ~solution.ok, solution.status.to(torch.int32), int(Status.SINGULAR)).to(
            torch.int8
        )
        changed = (moved != 0).any(-1, keepdim=True) & solution.ok.unsqueeze(-1)
        # the value to the bit, with the derivative of the layer
        exact = value + (x - x.detach())
        return replace(
            solution,
            value=torch.where(changed, exact, x),
            status=status,
            violation=torch.where(solution.ok, violation, solution.violation),
        )


def _linear(set: ConstraintSet) -> Polyhedron:
    """All rows of the set in float64, where the products of float32 numbers are exact; bounds become rows."""
    parts = Parts(set.dim).add(same_dtype(set, torch.float64))
    if parts.curved:
        raise SetTypeError(
            f"StrictInterior: expected linear constraints, got {type(parts.curved[0][1]).__name__}. Rounding is "
            f"bounded for rows only; shrink a curved set by hand and use EuclideanProjection."
        )
    if parts.box is not None:
        eye = torch.eye(set.dim, dtype=torch.float64, device=parts.box[0].device)
        parts.rows.append((eye, *parts.box))
    assert parts.stacked is not None
    return Polyhedron(*parts.stacked)


def _slack(x: Tensor, rows: Polyhedron, unit: float) -> tuple[Tensor, Tensor, Tensor]:
    """Smallest slack of each inequality row, rounding of that number, and whether all rows hold for certain.

    The inner product of `n` numbers in float64 is off by at most `n u |a||x|`; twice that covers the rest.
    """
    n, wide = x.shape[-1], torch.finfo(torch.float64).eps / 2
    x = x.double()
    equality = rows.lower == rows.upper
    value, size = matvec(rows.A, x), matvec(rows.A.abs(), x.abs())
    slack = torch.minimum(rows.upper - value, value - rows.lower)
    bound = torch.where(rows.upper - value <= value - rows.lower, rows.upper, rows.lower)
    size = size + torch.where(bound.isfinite(), bound, 0.0).abs()
    doubt = 2 * (n + 2) * (wide * size + _underflow(x, rows.A))
    holds = torch.where(
        equality, slack.abs() + doubt <= 4 * n * unit * size + doubt * (unit == wide), slack >= doubt
    )
    # bounds on single components need no products: they are compared exactly
    single = (rows.A != 0).sum(-1) <= 1
    unit_row = single & (rows.A.abs().sum(-1) == 1.0)
    holds = torch.where(unit_row & ~equality, (value <= rows.upper) & (value >= rows.lower), holds)
    return slack, doubt + unit * size, holds.all(-1)


def _underflow(x: Tensor, A: Tensor) -> Tensor:
    """What a product below the smallest normal number may be off by; 0 for rows that have none."""
    tiny = torch.finfo(torch.float64).tiny
    if not x.shape[-1]:
        return A.new_zeros(())
    a, least = (torch.where(t != 0, t.abs(), torch.inf).amin(-1) for t in (A, x))
    return torch.where(a * least.unsqueeze(-1) < tiny, tiny, 0.0)


def _pulled_back(x: Tensor, rows: Polyhedron, factor: InteriorPoint | None) -> tuple[Tensor, Tensor]:
    """The value moved inside as little as rounding allows, and whether it is there for certain."""
    unit = torch.finfo(x.dtype).eps / 2
    _, _, strict = _slack(x, rows, unit)
    if not branchless(x, rows.A) and bool(strict.all()):
        return x, strict
    center = _inner_points(x, rows) if factor is None else factor.point.double().expand_as(x)
    equality = rows.lower == rows.upper
    start, growth, value = x.double(), 1.0, x
    for _ in range(_ATTEMPTS):
        slack, doubt, _ = _slack(start, rows, unit)
        inner, _, _ = _slack(center, rows, unit)
        short = torch.where(equality, 0.0, 2.0 * growth * doubt - slack)
        gain = inner - slack
        t = torch.where((short > 0) & (gain > 0), short / torch.where(gain > 0, gain, 1.0), 0.0).amax(-1)
        trial = start + t.clamp(0.0, 1.0).unsqueeze(-1) * (center - start)
        trial = trial + _to_equalities(trial, rows, equality)
        rounded = trial.to(x.dtype)
        value = torch.where(strict.unsqueeze(-1), value, rounded)
        strict = strict | _slack(rounded, rows, unit)[2]
        growth *= _GROWTH
    return value, strict


def _to_equalities(x: Tensor, rows: Polyhedron, equality: Tensor) -> Tensor:
    """Correction by which the equality rows hold to rounding (one step of refinement)."""
    A = torch.where(equality.unsqueeze(-1), rows.A, 0.0)
    gap = torch.where(equality, rows.upper - matvec(rows.A, x), 0.0)
    return min_norm_solve(A, gap)


def _inner_points(x: Tensor, rows: Polyhedron) -> Tensor:
    """For each element, the nearest point to `x` among those as deep inside the set as can be had."""
    norm = torch.linalg.vector_norm(rows.A, dim=-1)
    equality = rows.lower == rows.upper
    wide = x.double()
    size = wide.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    if branchless(x, rows.A):  # all depths at once: one graph
        depths = torch.tensor(_DEPTHS, dtype=wide.dtype, device=wide.device)
        inset = depths.reshape(-1, *(1 for _ in wide.shape)) * torch.where(equality, 0.0, size * norm)
        center, usable = _inside_by(wide.expand(len(_DEPTHS), *wide.shape), rows, inset)
        first = usable.to(torch.int8).argmax(0, keepdim=True)
        center = center.gather(0, first.unsqueeze(-1).expand(1, *wide.shape)).squeeze(0)
        return torch.where(usable.any(0).unsqueeze(-1), center, wide)
    center, found = wide, torch.zeros_like(wide[..., 0], dtype=torch.bool)
    for depth in _DEPTHS:
        point, usable = _inside_by(wide, rows, torch.where(equality, 0.0, depth * size * norm))
        center = torch.where((usable & ~found).unsqueeze(-1), point, center)
        found = found | usable
        if bool(found.all()):
            break
    return center


def _inside_by(x: Tensor, rows: Polyhedron, inset: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest point with every inequality row held with room `inset`, and whether there is one."""
    lower, upper = rows.lower + inset, rows.upper - inset
    solution = project_polyhedron(x, rows.A, lower, upper)
    return solution.value, solution.ok & (lower <= upper).all(-1)


def _chebyshev_center(rows: Polyhedron) -> Tensor | None:
    """Center of the largest ball (of radius at most 1) in the inequalities and on the equalities."""
    import numpy as np
    from scipy.optimize import linprog

    A, lower, upper = (t.detach().cpu().numpy() for t in (rows.A, rows.lower, rows.upper))
    equality = lower == upper
    norm = np.linalg.norm(A, axis=-1)
    above, below = np.isfinite(upper) & ~equality, np.isfinite(lower) & ~equality
    sides = np.concatenate([np.c_[A, norm][above], np.c_[-A, norm][below]])
    held = np.c_[A, 0.0 * norm][equality]
    result = linprog(
        np.r_[np.zeros(A.shape[1]), -1.0],
        A_ub=sides if len(sides) else None,
        b_ub=np.concatenate([upper[above], -lower[below]]) if len(sides) else None,
        A_eq=held if len(held) else None,
        b_eq=upper[equality] if len(held) else None,
        bounds=[(None, None)] * A.shape[1] + [(0.0, 1.0)],
    )
    if result.status != 0 or result.x[-1] <= 0.0:
        return None
    return torch.from_numpy(result.x[:-1]).to(rows.A.device)
