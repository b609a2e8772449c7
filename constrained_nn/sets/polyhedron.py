"""Polyhedron in two-sided interval form, and its special case of equalities."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import SetTypeError, ShapeError
from constrained_nn.linalg import matvec, min_norm_solve, power_of_two, safe_norm, thin_qr
from constrained_nn.sets.base import (
    ConstraintSet,
    IntervalSet,
    ProjectableSet,
    are_tensors,
    check_batch,
    check_match,
    constraint_set,
    joined,
    shrink_bounds,
    take_apart,
)
from constrained_nn.sets.box import Box


def _check_rows(where: str, A: Tensor, **sides: Tensor) -> None:
    if A.ndim < 2:
        raise ShapeError(
            f"{where}: expected A of shape (*batch, m, n), got {tuple(A.shape)}. "
            f"A single row is `A.unsqueeze(0)`, or a Halfspace."
        )
    for name, side in sides.items():
        if side.ndim < 1 or side.shape[-1] != A.shape[-2]:
            raise ShapeError(
                f"{where}: expected {name} of shape (*batch, {A.shape[-2]}) for the {A.shape[-2]} rows of A, "
                f"got {tuple(side.shape)}. Give it one entry for each row; use ±inf where a side is free."
            )
    check_match(where, "A", A, **sides)
    shapes = {name: side.shape[:-1] for name, side in sides.items()}
    check_batch(where, A=A.shape[:-2], **shapes)


def _as_rows(start: int, part: ConstraintSet, n: int) -> Polyhedron:
    """A part on the components from `start` on, as rows of the whole decision."""
    if isinstance(part, Box):
        A = part.jacobian(part.lower)
    elif isinstance(part, Polyhedron):
        A = part.A
    else:
        raise SetTypeError(
            f"Polyhedron.of: expected a set of bounds and rows, got {type(part).__name__}. A set that is made of them "
            f"says so in `parts()`."
        )
    after = n - start - part.dim
    if start or after:
        A = torch.nn.functional.pad(A, (start, after))
    elif isinstance(part, Polyhedron):
        return part
    return Polyhedron(A, part.lower, part.upper)


def _free_side(A: Tensor, other: Tensor | None, infinity: float) -> Tensor:
    """A bound that is nowhere, with the batch of the rows and of the other bound: `vmap` goes over all of them."""
    batch = A.shape[:-2]
    if isinstance(other, Tensor):
        _check_rows("Polyhedron", A, **{"upper" if infinity < 0 else "lower": other})
        batch = torch.broadcast_shapes(batch, other.shape[:-1])
    return A.new_full((), infinity).expand(*batch, A.shape[-2])


@constraint_set
class Polyhedron(IntervalSet):
    """Polyhedron of two-sided rows.

    `{y : lower <= A y <= upper}`; entries of the bounds may be `-inf` and `+inf`; `lower = upper` is an equality.

    Guarantee: a description only; nothing is solved. Rows may be dependent and the set may be empty: the
    layer that enforces it reports that for each element. Use `merged()` for opposite or duplicate rows.

    Args:
        A: Rows `(*batch, m, n)` or shared `(m, n)`, in row units per unit of `y`.
        lower: Lower bounds `(*batch, m)`, in row units; `None` for no lower bound.
        upper: Upper bounds `(*batch, m)`, in row units; `None` for no upper bound.

    Raises:
        ShapeError: `A` has fewer than two dimensions, a bound does not have one entry a row, or dtype,
            device or batch shapes do not match.

    Example:
        >>> import torch
        >>> A = torch.tensor([[1.0, 1.0]])
        >>> Polyhedron(A, upper=torch.tensor([1.0])).violation(torch.tensor([2.0, 0.5]))
        tensor(1.5000)

    References:
        HardNet (arXiv 2410.10807), Eq. 4, the two-sided form of its constraint.
    """

    A: Float[Tensor, "*#batch m n"]
    lower: Float[Tensor, "*#batch m"] = None  # pyright: ignore[reportAssignmentType]
    upper: Float[Tensor, "*#batch m"] = None  # pyright: ignore[reportAssignmentType]

    def __post_init__(self) -> None:
        if not are_tensors(self.A):
            return
        _check_rows("Polyhedron", self.A)
        for name, other, infinity in (("lower", "upper", -torch.inf), ("upper", "lower", torch.inf)):
            if getattr(self, name) is None:
                free = _free_side(self.A, getattr(self, other), infinity)
                object.__setattr__(self, name, free)
        if are_tensors(self.lower, self.upper):
            _check_rows("Polyhedron", self.A, lower=self.lower, upper=self.upper)

    @property
    def dim(self) -> int:
        return self.A.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return check_batch(
            "Polyhedron", A=self.A.shape[:-2], lower=self.lower.shape[:-1], upper=self.upper.shape[:-1]
        )

    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        return matvec(self.A, y)

    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*#batch m n"]:
        return self.A

    def shrink(self, margin: Float[Tensor, "*#batch m"]) -> Polyhedron:
        return Polyhedron(self.A, *shrink_bounds(self.lower, self.upper, margin))

    @classmethod
    def of(cls, other: ConstraintSet) -> Polyhedron:
        """The same set written as rows, in the order of its parts.

        Raises:
            SetTypeError: The set has a part that is neither a `Box` nor a `Polyhedron`.
        """
        rows = [_as_rows(start, part, other.dim) for start, part in take_apart(other)]
        if len(rows) == 1:
            return rows[0]
        batch = torch.broadcast_shapes(*(r.A.shape[:-2] for r in rows))
        A = torch.cat([r.A.expand(*batch, *r.A.shape[-2:]) for r in rows], -2)
        return cls(A, joined([r.lower for r in rows]), joined([r.upper for r in rows]))

    def merged(self, *, rtol: float | None = None) -> Polyhedron:
        """The same set with parallel rows merged into one two-sided row (shared `A` only).

        A row and its negative, or a duplicate with other bounds, make `A` rank-deficient although the set
        is harmless. Reads the values of `A`, and so synchronises a GPU; do it once, outside `forward`.

        Args:
            rtol: Sine of the angle under which two rows are parallel; default 8 units of rounding.

        Raises:
            ShapeError: `A` differs between batch elements.
        """
        if self.A.ndim != 2:
            raise ShapeError(
                f"Polyhedron.merged: expected a shared A of shape (m, n), got {tuple(self.A.shape)}. Rows that "
                f"differ between elements cannot be merged; EuclideanProjection takes them as they are."
            )
        rtol = 8 * torch.finfo(self.A.dtype).eps if rtol is None else rtol
        norm = safe_norm(self.A)
        unit = self.A / torch.where(norm > 0, norm, 1.0).unsqueeze(-1)
        groups: list[list[tuple[int, float]]] = []  # (row, factor): row_i = factor * row_of_group
        for i in range(self.A.shape[0]):
            for group in groups:
                first = group[0][0]
                sign = 1.0 if float(unit[first] @ unit[i]) >= 0 else -1.0
                if float(safe_norm(unit[i] - sign * unit[first])) <= rtol and norm[i] > 0:
                    group.append((i, sign * float(norm[i] / norm[first])))
                    break
            else:
                groups.append([(i, 1.0)])
        lower, upper = [], []
        for group in groups:
            sides = [
                (self.lower[..., i] / c, self.upper[..., i] / c)[:: 1 if c > 0 else -1] for i, c in group
            ]
            lower.append(torch.stack([low for low, _ in sides]).amax(0))
            upper.append(torch.stack([up for _, up in sides]).amin(0))
        rows = [group[0][0] for group in groups]
        return Polyhedron(self.A[rows], torch.stack(lower, -1), torch.stack(upper, -1))


@constraint_set
class AffineSubspace(IntervalSet, ProjectableSet):
    """Affine subspace of linear equalities.

    `{y : A y = b}`.

    Guarantee: `project` is exact for rows of full rank, to a few rounding errors of `|A||y| + |b|`; a row that
    depends on the rows above it is left out, so that it holds only if the equations are consistent.

    Args:
        A: Rows `(*batch, m, n)` or shared `(m, n)`, in row units per unit of `y`.
        b: Right-hand sides `(*batch, m)`, in row units.

    Raises:
        ShapeError: `A` has fewer than two dimensions, `b` does not have one entry a row, or dtype, device
            or batch shapes do not match.

    Example:
        >>> import torch
        >>> line = AffineSubspace(torch.tensor([[0.0, 2.0]]), torch.tensor([2.0]))
        >>> line.project(torch.tensor([3.0, 5.0]))
        tensor([3., 1.])

    References:
        Boyd and Vandenberghe, Convex Optimization (2004), section 8.1.1.
    """

    may_be_empty = True
    A: Float[Tensor, "*#batch m n"]
    b: Float[Tensor, "*#batch m"]

    def __post_init__(self) -> None:
        if are_tensors(self.A, self.b):
            _check_rows("AffineSubspace", self.A, b=self.b)

    @property
    def dim(self) -> int:
        return self.A.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(self.A.shape[:-2], self.b.shape[:-1])

    @property
    def lower(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.b

    @property
    def upper(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.b

    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        return matvec(self.A, y)

    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*#batch m n"]:
        return self.A

    def parts(self) -> list[tuple[int, ConstraintSet]]:
        return [(0, Polyhedron(self.A, self.b, self.b))]

    def project(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        size = power_of_two(self.A.detach().abs().amax(-1))
        A, b = self.A / size.unsqueeze(-1), self.b / size
        factor = thin_qr(A.detach())
        x = y + min_norm_solve(A, b - matvec(A, y), factor)
        with torch.no_grad():  # rounding of a far point; the derivative is there already
            refinement = min_norm_solve(A.detach(), (b - matvec(A, x)).detach(), factor)
        return x + refinement
