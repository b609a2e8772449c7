"""Sets made of sets: intersection and product."""

from __future__ import annotations

from itertools import accumulate

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn.errors import SetTypeError, ShapeError
from constrained_nn.sets.base import (
    ConstraintSet,
    check_batch,
    check_match,
    constraint_set,
    joined,
    tensors_of,
)


def _check_members(where: str, members: tuple) -> bool:
    """False inside a pytree transform, where members are placeholders."""
    if not members:
        raise ShapeError(f"{where}: expected at least one set, got none. Pass the sets as arguments.")
    sets = [m for m in members if isinstance(m, ConstraintSet)]
    if not sets:
        return False
    for position, member in enumerate(members):
        if not isinstance(member, ConstraintSet):
            raise SetTypeError(
                f"{where}: expected sets, got {type(member).__name__} at position {position}. "
                f"Pass each set as one argument: {where}(first, second)."
            )
    tensors = [t for m in sets for t in tensors_of(m)]
    if not all(isinstance(t, Tensor) for t in tensors):
        return False
    check_match(where, "the first set", tensors[0], **{f"tensor {i}": t for i, t in enumerate(tensors)})
    check_batch(where, **{f"set {i}": m.batch_shape for i, m in enumerate(sets)})
    return True


def _shrunk(sets: tuple, margin: Tensor) -> list[ConstraintSet]:
    """The members, each shrunk by its part of the margin."""
    sizes = [m.equality(margin.new_zeros(m.dim)).shape[-1] for m in sets]
    return [m.shrink(part) for m, part in zip(sets, margin.split(sizes, -1), strict=True)]


@constraint_set
class Intersection(ConstraintSet):
    """Intersection of sets.

    `{y : y ∈ sets[0], y ∈ sets[1], ...}`.

    Guarantee: a description only; nothing is solved, and it may be empty: the layer that enforces it reports that
    for each element.

    Args:
        sets: The sets, of the same dimension, dtype and device.

    Raises:
        ShapeError: There is no set, or dimensions, dtypes, devices or batch shapes do not match.
        SetTypeError: An argument is not a set.

    Example:
        >>> import torch
        >>> from constrained_nn import Ball, Box, Intersection
        >>> box = Box(torch.zeros(2), torch.ones(2))
        >>> cap = Intersection(box, Ball(torch.zeros(2), torch.tensor(1.0)))
        >>> cap.violation(torch.tensor([0.0, 3.0]))
        tensor(2.)

    References:
        Boyd and Vandenberghe, Convex Optimization (2004), section 2.3.1.
    """

    sets: tuple[ConstraintSet, ...]

    def __init__(self, *members: ConstraintSet, sets: tuple[ConstraintSet, ...] = ()) -> None:
        object.__setattr__(self, "sets", members or tuple(sets))
        if _check_members("Intersection", self.sets) and len({m.dim for m in self.sets}) > 1:
            raise ShapeError(
                f"Intersection: expected sets of one dimension, got {[m.dim for m in self.sets]}. "
                f"Sets on different components are a Product."
            )

    @property
    def widens(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return all(m.widens for m in self.sets)

    @property
    def dim(self) -> int:
        return self.sets[0].dim

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(*(m.batch_shape for m in self.sets))

    def parts(self) -> list[tuple[int, ConstraintSet]]:
        return [(0, m) for m in self.sets]

    def residual(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        return joined([m.residual(y) for m in self.sets])

    def scale(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        return joined([m.scale(y) for m in self.sets])

    def equality(self, y: Float[Tensor, "*#batch n"]) -> Bool[Tensor, "*#batch m"]:
        return joined([m.equality(y) for m in self.sets])

    def shrink(self, margin: Float[Tensor, "*batch m"]) -> Intersection:
        return Intersection(*_shrunk(self.sets, margin))

    def validate(self) -> None:
        for member in self.sets:
            member.validate()


@constraint_set
class Product(ConstraintSet):
    """Product of sets on successive components.

    `{y = (y₀, y₁, ...) : y₀ ∈ sets[0], y₁ ∈ sets[1], ...}`.

    Guarantee: a description only; nothing is solved. Its projection is that of its parts.

    Args:
        sets: The sets, of the same dtype and device; the dimension of the product is the sum of theirs.

    Raises:
        ShapeError: There is no set, or dtypes, devices or batch shapes do not match.
        SetTypeError: An argument is not a set.

    Example:
        >>> import torch
        >>> from constrained_nn import Ball, Box, Product
        >>> box = Box(torch.zeros(1), torch.ones(1))
        >>> both = Product(box, Ball(torch.zeros(2), torch.tensor(1.0)))
        >>> both.dim
        3

    References:
        Boyd and Vandenberghe, Convex Optimization (2004), section 2.3.2.
    """

    sets: tuple[ConstraintSet, ...]

    def __init__(self, *members: ConstraintSet, sets: tuple[ConstraintSet, ...] = ()) -> None:
        object.__setattr__(self, "sets", members or tuple(sets))
        _check_members("Product", self.sets)

    @property
    def widens(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return all(m.widens for m in self.sets)

    @property
    def dim(self) -> int:
        return sum(m.dim for m in self.sets)

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(*(m.batch_shape for m in self.sets))

    def parts(self) -> list[tuple[int, ConstraintSet]]:
        starts = accumulate((m.dim for m in self.sets), initial=0)
        return list(zip(starts, self.sets, strict=False))

    def split(self, y: Float[Tensor, "*#batch n"]) -> tuple[Tensor, ...]:
        """The components of `y` that belong to each set."""
        return y.split([m.dim for m in self.sets], -1)

    def residual(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        return joined([m.residual(part) for m, part in zip(self.sets, self.split(y), strict=True)])

    def scale(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        return joined([m.scale(part) for m, part in zip(self.sets, self.split(y), strict=True)])

    def equality(self, y: Float[Tensor, "*#batch n"]) -> Bool[Tensor, "*#batch m"]:
        return joined([m.equality(part) for m, part in zip(self.sets, self.split(y), strict=True)])

    def shrink(self, margin: Float[Tensor, "*batch m"]) -> Product:
        return Product(*_shrunk(self.sets, margin))

    def validate(self) -> None:
        for member in self.sets:
            member.validate()
