"""Box: bounds on every component."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import ShapeError
from constrained_nn.sets.base import (
    IntervalSet,
    ProjectableSet,
    are_tensors,
    check_batch,
    check_match,
    constraint_set,
    shrink_bounds,
)


@constraint_set
class Box(IntervalSet, ProjectableSet):
    """Box with bounds on every component.

    `{y : lower <= y <= upper}`; entries may be `-inf` and `+inf`.

    Guarantee: `project` is exact (a clamp). At a face its derivative is that of the clamped side.

    Args:
        lower: Lower bounds `(*batch, n)`, in the unit of `y`.
        upper: Upper bounds `(*batch, n)`, in the unit of `y`.

    Raises:
        ShapeError: The bounds have no last dimension, differ in `n`, dtype or device, or do not broadcast.

    Example:
        >>> import torch
        >>> box = Box(torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 1.0]))
        >>> box.project(torch.tensor([3.0, 0.5]))
        tensor([1.0000, 0.5000])

    References:
        Boyd and Vandenberghe, Convex Optimization (2004), section 8.1.1.
    """

    lower: Float[Tensor, "*#batch n"]
    upper: Float[Tensor, "*#batch n"]

    def __post_init__(self) -> None:
        if not are_tensors(self.lower, self.upper):
            return
        if self.lower.ndim < 1 or self.upper.ndim < 1 or self.lower.shape[-1] != self.upper.shape[-1]:
            raise ShapeError(
                f"Box: expected lower and upper of shape (*batch, n), got {tuple(self.lower.shape)} and "
                f"{tuple(self.upper.shape)}. Give both bounds one entry for each component of y."
            )
        check_match("Box", "lower", self.lower, upper=self.upper)
        check_batch("Box", lower=self.lower.shape[:-1], upper=self.upper.shape[:-1])

    @property
    def dim(self) -> int:
        return self.lower.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(self.lower.shape[:-1], self.upper.shape[:-1])

    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        return y

    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "n n"]:
        return torch.eye(self.dim, dtype=y.dtype, device=y.device)

    def shrink(self, margin: Float[Tensor, "*#batch n"]) -> Box:
        return Box(*shrink_bounds(self.lower, self.upper, margin))

    def project(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        return torch.clamp(y, self.lower, self.upper)
