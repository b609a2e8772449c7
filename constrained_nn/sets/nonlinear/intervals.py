"""Smooth nonlinear constraints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils import _pytree

from constrained_nn.errors import SetTypeError, ShapeError
from constrained_nn.sets.base import IntervalSet, are_tensors, check_batch, check_match, shrink_bounds
from constrained_nn.sets.nonlinear.smooth import SmoothMap, StageJacobian, TrajectoryMap

_CORE = {"lower": 1, "upper": 1, "context": 1}


@dataclass(frozen=True, eq=False)
class NonlinearSet(IntervalSet):
    """Points at which smooth functions stay within bounds.

    `{y : lower <= c(y, context) <= upper}`; entries of the bounds may be `-inf` and `+inf`; `lower = upper` is an
    equality.

    Guarantee: a description only; nothing is solved. The set may be empty, not convex and not connected. Tensors
    that vary between elements or carry derivatives (bounds, context) are its fields; what the function captures
    by itself is a constant.

    Args:
        rows: The functions `c`, a `SmoothFunction` or a `TrajectoryMap`.
        lower: Lower bounds `(*batch, m)`, in the units of the rows.
        upper: Upper bounds `(*batch, m)`, in the units of the rows.
        context: Second argument of the functions `(*batch, k)`; default empty.

    Raises:
        SetTypeError: `rows` is not a `SmoothMap`.
        ShapeError: Bounds or context do not match in size, dtype, device or batch shape.

    Example:
        >>> import torch
        >>> from constrained_nn import SmoothFunction
        >>> circle = SmoothFunction(lambda y, context: (y * y).sum(-1, keepdim=True) - context, 2)
        >>> outside = NonlinearSet(circle, torch.zeros(1), torch.tensor([torch.inf]), torch.ones(1))
        >>> outside.residual(torch.tensor([0.6, 0.0]))
        tensor([-0.6400])

    References:
        HardNet++ (arXiv 2604.19669), the nonlinear constraints of its problem statement.
    """

    rows: SmoothMap
    lower: Float[Tensor, "*#batch m"]
    upper: Float[Tensor, "*#batch m"]
    context: Float[Tensor, "*#batch k"] = None  # pyright: ignore[reportAssignmentType]

    widens = False
    core_ndims = _CORE  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]

    def __post_init__(self) -> None:
        if not isinstance(self.rows, SmoothMap):
            raise SetTypeError(
                f"NonlinearSet: expected rows of type SmoothMap, got {type(self.rows).__name__}. Wrap a function "
                f"as SmoothFunction(function, size)."
            )
        if self.context is None and isinstance(self.lower, Tensor):
            # a context of nothing, with the batch of the bounds, which vmap maps over
            object.__setattr__(self, "context", self.lower.new_zeros(*self.lower.shape[:-1], 0))
        if not are_tensors(self.lower, self.upper, self.context):
            return
        for name, tensor in (("lower", self.lower), ("upper", self.upper), ("context", self.context)):
            if tensor.ndim < 1 or (name == "upper" and tensor.shape[-1] != self.lower.shape[-1]):
                raise ShapeError(
                    f"NonlinearSet: expected {name} of shape (*batch, {'k' if name == 'context' else 'm'}) with one "
                    f"entry for each row, got {tuple(tensor.shape)} beside lower {tuple(self.lower.shape)}. Use ±inf "
                    f"where a side is free."
                )
        check_match("NonlinearSet", "lower", self.lower, upper=self.upper, context=self.context)
        _ = self.batch_shape

    @property
    def dim(self) -> int:
        return self.rows.dim

    @property
    def batch_shape(self) -> torch.Size:
        shapes = {name: getattr(self, name).shape[:-1] for name in _CORE}
        return check_batch("NonlinearSet", **shapes)

    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        y, context = self._together(y)
        value, m = self.rows.value(y, context), self.lower.shape[-1]
        if value.shape != (*y.shape[:-1], m):
            raise ShapeError(
                f"NonlinearSet: expected the function to return {(*y.shape[:-1], m)}, one number for each of the {m} "
                f"bounds, got {tuple(value.shape)}. Stack the rows along the last dimension; keep the batch."
            )
        return value

    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m n"]:
        # a function with constants in float64 gives those for any y
        return self.rows.jacobian(*self._together(y), self.lower.shape[-1]).to(y.dtype)

    def stage_jacobian(self, y: Float[Tensor, "*batch n"]) -> StageJacobian | None:
        if not isinstance(self.rows, TrajectoryMap):
            return None
        return self.rows.stage_jacobian(*self._together(y))

    def shrink(self, margin: Float[Tensor, "*#batch m"]) -> NonlinearSet:
        return NonlinearSet(self.rows, *shrink_bounds(self.lower, self.upper, margin), self.context)

    def _together(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """`y` and the context with the batch shape of both."""
        batch = torch.broadcast_shapes(y.shape[:-1], self.context.shape[:-1])
        return y.expand(*batch, y.shape[-1]), self.context.expand(*batch, self.context.shape[-1])


def _flatten(set: NonlinearSet) -> tuple[list[Any], SmoothMap]:
    return [getattr(set, name) for name in _CORE], set.rows


def _unflatten(tensors: Any, rows: SmoothMap) -> NonlinearSet:
    return NonlinearSet(rows, *tensors)


def _keys(set: NonlinearSet) -> tuple[list[Any], SmoothMap]:
    return [(_pytree.GetAttrKey(name), getattr(set, name)) for name in _CORE], set.rows


_pytree.register_pytree_node(
    NonlinearSet,
    _flatten,
    _unflatten,
    flatten_with_keys_fn=_keys,
    serialized_type_name="constrained_nn.NonlinearSet",
)
