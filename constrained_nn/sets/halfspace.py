"""Halfspace: one linear inequality."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.linalg import power_of_two
from constrained_nn.sets.base import (
    ConstraintSet,
    IntervalSet,
    ProjectableSet,
    are_tensors,
    check_point,
    constraint_set,
)
from constrained_nn.sets.polyhedron import Polyhedron


@constraint_set
class Halfspace(IntervalSet, ProjectableSet):
    """Half-space on one side of a hyperplane.

    `{y : normal·y <= offset}`.

    Guarantee: `project` is exact in real arithmetic, to a few rounding errors of `|normal||y| + |offset|` in
    floating point. On the hyperplane its derivative is the identity. A zero normal leaves `y` unchanged.

    Args:
        normal: Outward normal `(*batch, n)`, of any length, in row units per unit of `y`.
        offset: Right-hand side `(*batch)`, in row units.

    Raises:
        ShapeError: `normal` has no last dimension, or dtype, device or batch shapes do not match.

    Example:
        >>> import torch
        >>> half = Halfspace(torch.tensor([0.0, 2.0]), torch.tensor(2.0))
        >>> half.project(torch.tensor([3.0, 5.0]))
        tensor([3., 1.])

    References:
        Boyd and Vandenberghe, Convex Optimization (2004), section 8.1.1.
    """

    may_be_empty = True
    normal: Float[Tensor, "*#batch n"]
    offset: Float[Tensor, "*#batch"]

    def __post_init__(self) -> None:
        if are_tensors(self.normal, self.offset):
            advice = "Give it one entry for each component of y."
            check_point("Halfspace", "normal", self.normal, advice, offset=self.offset)

    @property
    def dim(self) -> int:
        return self.normal.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(self.normal.shape[:-1], self.offset.shape)

    @property
    def lower(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return torch.full_like(self.offset, -torch.inf).unsqueeze(-1)

    @property
    def upper(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.offset.unsqueeze(-1)

    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1"]:
        return (self.normal * y).sum(-1, keepdim=True)

    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*#batch 1 n"]:
        return self.normal.unsqueeze(-2)

    def parts(self) -> list[tuple[int, ConstraintSet]]:
        return [(0, Polyhedron(self.normal.unsqueeze(-2), self.lower, self.upper))]

    def shrink(self, margin: Float[Tensor, "*#batch 1"]) -> Halfspace:
        return Halfspace(self.normal, self.offset - margin.squeeze(-1))

    def project(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        # a normal of about 1, whose square neither overflows nor vanishes
        size = power_of_two(self.normal.detach().abs().amax(-1, keepdim=True))
        normal, offset = self.normal / size, self.upper / size
        squared = (normal * normal).sum(-1, keepdim=True)
        inverse = normal / torch.where(squared > 0, squared, 1.0)
        excess = (normal * y).sum(-1, keepdim=True) - offset
        outside = excess > 0
        x = y - inverse * torch.where(outside, excess, 0.0)
        with torch.no_grad():  # rounding of a far point; the derivative is there already
            missing = (normal * x).sum(-1, keepdim=True).detach() - offset.detach()
        return torch.where(outside, x - inverse.detach() * missing, x)
