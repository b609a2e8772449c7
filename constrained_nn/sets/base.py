"""Contracts of constraint sets: what a constraint is, never how it is enforced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar, dataclass_transform

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils import _pytree

from constrained_nn.errors import ShapeError
from constrained_nn.linalg import matvec, nearest_between, without_autocast
from constrained_nn.sets.fields import batched, core_ndim

SetT = TypeVar("SetT", bound="ConstraintSet")


class ConstraintSet(ABC):
    """Set of admissible decisions `y`, a frozen value of tensors built afresh in `forward`.

    Guarantee: `residual(y)` is zero exactly on the set. Constructors check dimensions, dtype and device
    only; `validate()` checks values and so synchronises a GPU.
    """

    core_ndims: ClassVar[dict[str, int]]  # field -> dimensions without batch; filled in by `constraint_set`
    # Whether the residual may be computed in a wider dtype than the tensors have: not with a user's function in it.
    widens: ClassVar[bool] = True
    # Whether it may have no point although no bounds are crossed; a closed-form projection misses the set only then.
    may_be_empty: ClassVar[bool] = False

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

    def equality(self, y: Float[Tensor, "*#batch n"]) -> Bool[Tensor, "*#batch m"]:
        """Which entries of the residual belong to equalities, which rounding cannot meet exactly."""
        return torch.zeros_like(self.residual(y), dtype=torch.bool)

    def parts(self) -> Iterable[tuple[int, ConstraintSet]]:
        """What the set is made of: pairs `(start, part)`, a part being a set of the components from `start` on.

        A set that is made of simpler ones lists them, down to a `Box` and a `Polyhedron`, and every layer that enforces
        those enforces it. By default a set stands for itself.
        """
        return [(0, self)]

    def shrink(self: SetT, margin: Float[Tensor, "*#batch m"]) -> SetT:
        """The set with its inequalities moved inwards by `margin`, in the units of the residual; equalities stay.

        Where it is thinner than twice the margin, its middle. A set that cannot be moved comes back as it is.
        """
        return self

    @without_autocast
    def violation(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch"]:
        """Largest `|residual|`, in the units of the rows."""
        return _max_abs(self.residual(y))

    @without_autocast
    def relative_violation(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch"]:
        """Largest `|residual| / scale`, without unit."""
        residual = self.residual(y).abs()
        return _max_abs(residual / self.scale(y).clamp_min(torch.finfo(residual.dtype).tiny))

    def contains(self, y: Float[Tensor, "*#batch n"], *, atol: float) -> Bool[Tensor, "*batch"]:
        """Whether `violation(y) <= atol`; NaN is never contained. The tolerance has no default on purpose."""
        return self.violation(y) <= atol

    def validate(self) -> None:
        """Check the values (finite data, lower <= upper); raises `ValueError`. Synchronises a GPU."""
        for declared in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, declared.name)
            if isinstance(value, Tensor) and value.isnan().any():
                where = value.isnan().nonzero()[0].tolist()
                raise ValueError(
                    f"{type(self).__name__}.validate: expected {declared.name} without NaN, got NaN at index "
                    f"{where}. Check the function that builds the set."
                )


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(field, batched))
def constraint_set(cls: type[SetT]) -> type[SetT]:
    """Class decorator: a frozen dataclass of tensors, registered as a pytree (vmap, compile and export).

    A tensor is a field whose annotation gives its shape, `Float[Tensor, "*#batch m n"]`: the dimensions behind the
    batch are those of one element. `A: Tensor = batched(core=2)` says the same in numbers. A tuple holds sets. Every
    other field is a setting that all elements share.
    Numbers, lists and NumPy arrays in place of tensors are converted when a set is built.

    Raises:
        TypeError: A field is a tensor of unknown shape.
    """
    check = cls.__dict__.get("__post_init__")

    def convert_and_check(self: SetT) -> None:
        _convert(self)
        if check is not None:
            check(self)

    if "__init__" not in cls.__dict__:
        cls.__post_init__ = convert_and_check  # pyright: ignore[reportAttributeAccessIssue]
    cls = dataclass(frozen=True, eq=False)(cls)
    ndims = {f.name: core_ndim(cls, f) for f in fields(cls)}  # pyright: ignore[reportArgumentType]
    cls.core_ndims = {name: ndim for name, ndim in ndims.items() if ndim is not None}
    _register(cls, tuple(name for name, ndim in ndims.items() if ndim is None))
    return cls


def _register(cls: type, settings: tuple[str, ...]) -> None:
    """The class as a pytree of its tensors; settings go along as they are."""
    name = f"constrained_nn.{cls.__name__}"
    if not settings:
        torch.export.register_dataclass(cls, serialized_type_name=name)
        return
    tensors = tuple(cls.core_ndims)  # pyright: ignore[reportAttributeAccessIssue]

    def flatten(set: Any) -> tuple[list[Any], tuple]:
        return [getattr(set, key) for key in tensors], tuple(getattr(set, key) for key in settings)

    def unflatten(leaves: Any, context: tuple) -> Any:
        return cls(**dict(zip(tensors, leaves)), **dict(zip(settings, context)))  # noqa: B905

    def with_keys(set: Any) -> tuple[list[Any], tuple]:
        leaves, context = flatten(set)
        return [(_pytree.GetAttrKey(k), v) for k, v in zip(tensors, leaves, strict=True)], context

    _pytree.register_pytree_node(
        cls, flatten, unflatten, flatten_with_keys_fn=with_keys, serialized_type_name=name
    )


def _convert(set: ConstraintSet) -> None:
    """Numbers, lists and arrays become tensors of the dtype and on the device of the tensors beside them.

    Integers alone stay: they are placeholders of a pytree transform, and a layer refuses them.
    """
    values = {name: getattr(set, name) for name in set.core_ndims}
    beside = next((v for v in values.values() if isinstance(v, Tensor)), None)
    if beside is None:
        array = next((v for v in values.values() if isinstance(v, np.ndarray)), None)
        dtype = torch.get_default_dtype()
        if array is not None and array.dtype.kind == "f":
            dtype = torch.as_tensor(array[..., :0]).dtype
        options: dict[str, Any] = {"dtype": dtype}
    else:
        options = {"dtype": beside.dtype, "device": beside.device}
    numbers = (float, list, np.ndarray, np.generic)
    if beside is not None or any(isinstance(v, numbers) for v in values.values()):
        numbers = (int, *numbers)
    for name, value in values.items():
        if isinstance(value, numbers) and not isinstance(value, bool):
            try:
                object.__setattr__(set, name, torch.as_tensor(value, **options))
            except (TypeError, ValueError, RuntimeError) as error:
                raise ShapeError(
                    f"{type(set).__name__}: expected {name} to be a tensor, or numbers that make one, got "
                    f"{type(value).__name__} ({error}). Build it with torch.tensor(...)."
                ) from None


def is_half(t: Tensor) -> bool:
    """Whether a tensor is of 16 bits, in which nothing is computed here."""
    return t.dtype in (torch.float16, torch.bfloat16)


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

    def stage_jacobian(self, y: Float[Tensor, "*batch n"]) -> tuple[Tensor, ...] | None:
        """The blocks of a Jacobian that is banded by stages (`StageJacobian`); `None` where it is not."""
        return None

    def residual(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        value = self.value(y)
        above, below = value - self.upper, value - self.lower
        residual = value - nearest_between(value, self.lower, self.upper)
        # crossed bounds hold nowhere: the side that is missed by more; neither do bounds that are NaN
        missed = torch.where((above > -below) | above.isnan(), above, below)
        return torch.where(self.lower <= self.upper, residual, missed)

    def equality(self, y: Float[Tensor, "*#batch n"]) -> Bool[Tensor, "*#batch m"]:
        return self.lower == self.upper

    def scale(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        value = self.value(y)
        bound = torch.where(value < self.lower, self.lower, self.upper)
        bound = torch.where(bound.isfinite(), bound, 0.0).abs()
        return matvec(self.jacobian(y).abs(), y.abs()) + bound

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

    @property
    def coordinate_count(self) -> int:
        """Length of the coordinates `z` of an ellipsoid, in which `value(y) = |z|²`."""
        return self.dim


def joined(rows: Sequence[Tensor]) -> Tensor:
    """Rows side by side, with the batch that all of them have together."""
    batch = torch.broadcast_shapes(*(r.shape[:-1] for r in rows))
    return torch.cat([r.expand(*batch, r.shape[-1]) for r in rows], -1)


def shrink_bounds(lower: Tensor, upper: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """Both bounds moved inwards, at most to their middle; equal bounds stay."""
    low, up = lower + margin, upper - margin
    middle = torch.where((lower > -torch.inf) & (upper < torch.inf), lower / 2 + upper / 2, 0.0)
    crossed, equal = (low > up) & (lower < upper), lower >= upper
    low = torch.where(equal, lower, torch.where(crossed, middle, low))
    return low, torch.where(equal, upper, torch.where(crossed, middle, up))


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


def take_apart(set: ConstraintSet, start: int = 0) -> Iterator[tuple[int, ConstraintSet]]:
    """The parts of a set, of its parts and so on, down to sets that stand for themselves."""
    for offset, part in set.parts():
        if part is set:
            yield start, set
        else:
            yield from take_apart(part, start + offset)


def tensors_of(set: ConstraintSet) -> list[Tensor]:
    """All tensors of a set, members included."""
    return [t for t, _ in named_tensors(set)]


def named_tensors(set: ConstraintSet) -> list[tuple[Tensor, str]]:
    """All tensors of a set with the names of their fields, members included, in the order of `map_tensors`."""
    found: list[tuple[Tensor, str]] = []
    for name in set.core_ndims:
        value = getattr(set, name)
        if not isinstance(value, tuple):
            found.append((value, name))
            continue
        for member in value:
            found += named_tensors(member) if isinstance(member, ConstraintSet) else [(member, name)]
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
    """The common batch shape; raises `ShapeError` where it is not that of one of them.

    Shapes like (8,) and (8, 1), which broadcast to (8, 8), are refused: nobody asked for 64 elements.
    """
    batched = [shape for shape in shapes.values() if shape]
    if not batched:
        return torch.Size()
    if all(shape == batched[0] for shape in batched):  # the common case, and ten times faster
        return batched[0]
    listing = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    try:
        common = torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        raise ShapeError(
            f"{where}: expected batch shapes that broadcast, got {listing}. "
            f"Batch dimensions come first; add one with `.unsqueeze(0)`."
        ) from None
    if any(shape == common for shape in batched):
        return common
    raise ShapeError(
        f"{where}: expected batch shapes of which one has all dimensions, got {listing}. Together they would make a "
        f"batch of {tuple(common)}. One number for each element has the shape of the batch (`x.norm(dim=-1)` without "
        f"keepdim); where every pair is meant, expand one of them first."
    )
