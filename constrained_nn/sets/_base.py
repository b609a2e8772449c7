"""Contracts of constraint sets: what a constraint is, never how it is enforced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import ClassVar, TypeVar, dataclass_transform

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn._linalg import nearest_between
from constrained_nn.errors import ShapeError


class ConstraintSet(ABC):
    """Set of admissible decisions `y`, a frozen value of tensors built afresh in `forward`.

    Guarantee: `residual(y)` is zero exactly on the set. Constructors check dimensions, dtype and device
    only; `validate()` checks values and so synchronises a GPU.
    """

    core_ndims: ClassVar[dict[str, int]]  # field -> dimensions without batch; filled in by `constraint_set`

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension `n` of the decision."""

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size:
        """Broadcast batch shape of the tensors that define the set."""

    @abstractmethod
    def residual(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        """Signed amounts by which the constraints are missed, zero exactly on the set."""

    @abstractmethod
    def scale(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        """Size of the terms in each residual, `|A||y| + |b|` for affine rows; the unit of rounding."""

    def violation(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch"]:
        """Largest `|residual|`, in the units of the rows."""
        return _max_abs(self.residual(y))

    def relative_violation(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch"]:
        """Largest `|residual| / scale`, without unit."""
        residual = self.residual(y).abs()
        return _max_abs(residual / self.scale(y).clamp_min(torch.finfo(residual.dtype).tiny))

    def contains(self, y: Float[Tensor, "*#batch n"], *, atol: float) -> Bool[Tensor, "*batch"]:
        """Whether `violation(y) <= atol`; NaN is never contained. The tolerance has no default on purpose."""
        return self.violation(y) <= atol

    def validate(self) -> None:
        """Check the values (finite data, lower <= upper); raises `ValueError`. Synchronises a GPU."""
        for field in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and value.isnan().any():
                where = value.isnan().nonzero()[0].tolist()
                raise ValueError(
                    f"{type(self).__name__}.validate: expected {field.name} without NaN, got NaN at index "
                    f"{where}. Check the function that builds the set."
                )


SetT = TypeVar("SetT", bound=ConstraintSet)


@dataclass_transform(frozen_default=True, eq_default=False)
def constraint_set(cls: type[SetT]) -> type[SetT]:
    """Class decorator: a frozen dataclass of tensors, registered as a pytree (vmap, compile and export)."""
    cls = dataclass(frozen=True, eq=False)(cls)
    cls.core_ndims = {f.name: _core_ndim(str(f.type)) for f in fields(cls)}  # pyright: ignore[reportArgumentType]
    torch.export.register_dataclass(cls, serialized_type_name=f"constrained_nn.{cls.__name__}")
    return cls


def _core_ndim(annotation: str) -> int:
    """Dimensions of a tensor without its batch, from its annotation: 2 for `Float[Tensor, "*#batch m n"]`."""
    _, _, shape = annotation.replace("'", '"').partition('"')
    return sum(not name.startswith("*") for name in shape.rstrip('"]').split())


def _max_abs(rows: Tensor) -> Tensor:
    if rows.shape[-1] == 0:
        return rows.new_zeros(rows.shape[:-1])
    return rows.abs().amax(-1)


class ProjectableSet(ConstraintSet):
    """A set whose Euclidean projection is a closed form or a one-dimensional root."""

    @abstractmethod
    def project(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        """The nearest point of the set in the Euclidean norm."""


class IntervalSet(ConstraintSet):
    """{y : lower <= value(y) <= upper}: equalities, boxes, polyhedra and smooth nonlinear sets.

    A bound that is NaN holds nowhere: the residual of its row is NaN, and no point is contained.
    """

    lower: Tensor
    upper: Tensor

    @abstractmethod
    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        """The constrained quantities."""

    @abstractmethod
    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m n"]:
        """Derivative of `value` at `y`."""

    def residual(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        value = self.value(y)
        above, below = value - self.upper, value - self.lower
        residual = value - nearest_between(value, self.lower, self.upper)
        # crossed bounds hold nowhere: the side that is missed by more; neither do bounds that are NaN
        missed = torch.where((above > -below) | above.isnan(), above, below)
        return torch.where(self.lower <= self.upper, residual, missed)

    def scale(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        value = self.value(y)
        bound = torch.where(value < self.lower, self.lower, self.upper)
        bound = torch.where(bound.isfinite(), bound, 0.0).abs()
        return (self.jacobian(y).abs() @ y.abs().unsqueeze(-1)).squeeze(-1) + bound

    def validate(self) -> None:
        super().validate()
        crossed = self.lower > self.upper
        if crossed.any():
            index = tuple(crossed.nonzero()[0].tolist())
            lower, upper = (t.expand(crossed.shape)[index].item() for t in (self.lower, self.upper))
            raise ValueError(
                f"{type(self).__name__}.validate: expected lower <= upper, got lower = {lower:g} and upper = "
                f"{upper:g} at index {list(index)}. No point satisfies such a row; swap or widen the bounds."
            )


class CenteredSet(IntervalSet, ProjectableSet):
    """`{y : value(y) <= upper}` around a center, with `value` at least 0: balls and ellipsoids.

    Subclasses give `value`, its `jacobian`, `project`, and `upper`, the radius or the level as one row.
    """

    center: Tensor

    @property
    def dim(self) -> int:
        return self.center.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        tensors = ((getattr(self, name), core) for name, core in self.core_ndims.items())
        return torch.broadcast_shapes(*(t.shape[: t.ndim - core] for t, core in tensors))

    @property
    def lower(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return torch.zeros_like(self.upper)


def map_tensors(set: SetT, change: Callable[[Tensor, str, int], Tensor]) -> SetT:
    """The same kind of set with `change(tensor, field, core_ndim)` for every tensor, members included."""
    values = {}
    for name, core in set.core_ndims.items():
        value = getattr(set, name)
        if not isinstance(value, tuple):
            values[name] = change(value, name, core)
        elif isinstance(core, tuple):  # plain tensors, each with its own dimensions
            values[name] = tuple(change(t, name, c) for t, c in zip(value, core, strict=True))
        else:
            values[name] = tuple(map_tensors(member, change) for member in value)
    return replace(set, **values)  # pyright: ignore[reportArgumentType, reportReturnType]


def tensors_of(set: ConstraintSet) -> list[Tensor]:
    """All tensors of a set, members included."""
    found: list[Tensor] = []
    for name in set.core_ndims:
        value = getattr(set, name)
        members = value if isinstance(value, tuple) else (value,)
        found += [t for m in members for t in (tensors_of(m) if isinstance(m, ConstraintSet) else [m])]
    return found


def are_tensors(*values: object) -> bool:
    """False inside a pytree transform, which rebuilds the class around placeholders."""
    return all(isinstance(v, Tensor) for v in values)


def check_match(where: str, first: str, reference: Tensor, /, **others: Tensor) -> None:
    """Same dtype and device for all tensors of a set, and floating point."""
    if not reference.is_floating_point():
        raise ShapeError(
            f"{where}: expected {first} of a floating dtype, got {reference.dtype}. "
            f"Convert it, for example with `.double()`."
        )
    for name, tensor in others.items():
        if tensor.dtype != reference.dtype:
            raise ShapeError(
                f"{where}: expected {name} of dtype {reference.dtype} like {first}, got {tensor.dtype}. "
                f"Convert one of them with `.to(...)`."
            )
        if tensor.device != reference.device:
            raise ShapeError(
                f"{where}: expected {name} on device {reference.device} like {first}, got {tensor.device}. "
                f"Move one of them with `.to(...)`."
            )


def check_point(where: str, name: str, point: Tensor, /, advice: str, **scalars: Tensor) -> None:
    """A point `(*batch, n)` that defines a set, and numbers `(*batch)` that go with it."""
    if point.ndim < 1:
        raise ShapeError(f"{where}: expected {name} of shape (*batch, n), got {tuple(point.shape)}. {advice}")
    check_match(where, name, point, **scalars)
    shapes = {name: t.shape for name, t in scalars.items()}
    check_batch(where, **{name: point.shape[:-1]}, **shapes)


def check_batch(where: str, **shapes: torch.Size) -> torch.Size:
    """The common batch shape; raises `ShapeError` when the shapes do not broadcast."""
    batched = [shape for shape in shapes.values() if shape]
    if not batched:
        return torch.Size()
    if all(shape == batched[0] for shape in batched):  # the common case, and ten times faster
        return batched[0]
    try:
        return torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        listing = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ShapeError(
            f"{where}: expected batch shapes that broadcast, got {listing}. "
            f"Batch dimensions come first; add one with `.unsqueeze(0)`."
        ) from None
