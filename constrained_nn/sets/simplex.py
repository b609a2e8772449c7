"""Simplex: amounts that add up."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import ShapeError
from constrained_nn.linalg import project_simplex
from constrained_nn.sets.base import (
    ConstraintSet,
    IntervalSet,
    ProjectableSet,
    are_tensors,
    check_point,
    constraint_set,
)
from constrained_nn.sets.box import Box
from constrained_nn.sets.polyhedron import Polyhedron


@constraint_set
class Simplex(IntervalSet, ProjectableSet):
    """Amounts above a floor with a given total.

    `{y : y >= floor, Σ yᵢ = total}`; the probability simplex has `floor = 0`, `total = 1`.

    Guarantee: `project` is exact to a few rounding errors of `|y| + |floor| + |total|`, by sorting. At a kink its
    derivative is that of the face with more free entries. A total below the sum of the smallest amounts is the
    empty set.

    Args:
        floor: Smallest amounts `(*batch, n)`, finite, in the unit of `y`.
        total: Sum of all amounts `(*batch)`, in the unit of `y`.

    Raises:
        ShapeError: `floor` has no last dimension, or dtype, device or batch shapes do not match.

    Example:
        >>> import torch
        >>> Simplex(torch.zeros(3), torch.tensor(1.0)).project(torch.tensor([1.0, 0.5, -3.0]))
        tensor([0.7500, 0.2500, 0.0000])

    References:
        Duchi, Shalev-Shwartz, Singer and Chandra, Efficient projections onto the l1-ball (2008), Eq. 3.
    """

    may_be_empty = True
    floor: Float[Tensor, "*#batch n"]
    total: Float[Tensor, "*#batch"]

    def __post_init__(self) -> None:
        if are_tensors(self.floor, self.total):
            advice = "Give it one entry for each component of y; zeros for the usual simplex."
            check_point("Simplex", "floor", self.floor, advice, total=self.total)
            if self.floor.shape[-1] == 0:
                raise ShapeError(
                    "Simplex: expected floor of shape (*batch, n) with n >= 1, got one without components. Nothing "
                    "adds up to the total; leave the set out."
                )

    @property
    def dim(self) -> int:
        return self.floor.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(self.floor.shape[:-1], self.total.shape)

    @property
    def lower(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._with_total(self.floor)

    @property
    def upper(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._with_total(torch.full_like(self.floor, torch.inf))

    def _with_total(self, side: Tensor) -> Tensor:
        batch = self.batch_shape
        return torch.cat([side.expand(*batch, self.dim), self.total.expand(batch).unsqueeze(-1)], -1)

    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        return torch.cat([y, y.sum(-1, keepdim=True)], -1)

    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "m n"]:
        eye = torch.eye(self.dim, dtype=y.dtype, device=y.device)
        return torch.cat([eye, torch.ones_like(eye[:1])])

    def parts(self) -> list[tuple[int, ConstraintSet]]:
        total = self.total.unsqueeze(-1)
        row = Polyhedron(self.floor.new_ones(1, self.dim), total, total)
        return [(0, Box(self.floor, torch.full_like(self.floor, torch.inf))), (0, row)]

    def shrink(self, margin: Float[Tensor, "*#batch m"]) -> Simplex:
        return Simplex(self.floor + margin[..., :-1], self.total)

    def project(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        spare = (self.total - self.floor.sum(-1)).clamp_min(0.0)
        return self.floor + project_simplex(y - self.floor, spare)

    def validate(self) -> None:
        super().validate()
        if (bad := self.floor.sum(-1) > self.total).any():
            index = tuple(bad.nonzero()[0].tolist())
            raise ValueError(
                f"Simplex.validate: expected total >= the sum of floor, got a total too small by "
                f"{(self.floor.sum(-1) - self.total)[index].item():g} at index {list(index)}. No point satisfies "
                f"it; raise total or lower the floor."
            )
