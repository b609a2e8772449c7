"""The contract of layers that enforce a set."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Generic

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from constrained_nn._linalg import branchless
from constrained_nn.errors import SetTypeError, ShapeError
from constrained_nn.layers._policies import FailurePolicy, LeastViolation, Raise
from constrained_nn.sets import ConstraintSet
from constrained_nn.sets._base import SetT, check_batch, map_tensors, tensors_of
from constrained_nn.solvers import Solution
from constrained_nn.solvers._solution import STATUS_CODES


class ProjectionLayer(nn.Module, Generic[SetT]):
    """Map from a raw decision into a set, differentiable in the decision and in the set.

    Args:
        on_failure: `Raise() | Nan() | LeastViolation()`. Default: `LeastViolation()` in training mode (with
            the statuses counted in `counts`), `Raise()` in eval mode.
        compute_dtype: Compute in this dtype and round the result back; `torch.float64` for float32 networks.
    """

    accepts: ClassVar[tuple[type[ConstraintSet], ...]]
    guarantee: ClassVar[str]
    counts: Tensor

    def __init__(
        self, *, on_failure: FailurePolicy | None = None, compute_dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.on_failure = on_failure
        self.compute_dtype = compute_dtype
        # Statuses met in training mode, indexed by `Status`; not part of the state_dict.
        self.register_buffer("counts", torch.zeros(STATUS_CODES, dtype=torch.int64), persistent=False)

    @abstractmethod
    def enforce(self, y: Tensor, set: Any, factor: Any) -> Solution:
        """The layer's own map, on checked input in the compute dtype."""

    def factor(self, set: SetT) -> Any:
        """Precomputed factor of a constant set (pass it to `solve`), or `None` if the layer has no use for it."""
        return None

    def solve(self, y: Float[Tensor, "*#batch n"], set: SetT, *, factor: Any = None) -> Solution:
        """Enforce and report, element by element; never raises for a value.

        Args:
            y: Raw decision `(*batch, n)`.
            set: The set, batch shape broadcastable to that of `y`.
            factor: Result of `self.factor(set)` for a constant set.

        Raises:
            SetTypeError: The layer cannot enforce this kind of set.
            ShapeError: Size, dtype, device or batch shape of `y` does not fit the set.
        """
        self._check(y, set)
        dtype = self.compute_dtype
        if dtype is None or dtype == y.dtype:
            return self.enforce(y, set, factor)
        if factor is not None:
            factor = tree_map(
                lambda t: t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() else t, factor
            )
        wide = map_tensors(set, lambda t, name, core: t.to(dtype))
        solution = self.enforce(y.to(dtype), wide, factor)
        value = solution.value.to(y.dtype)
        with torch.no_grad():
            violation = set.violation(value)
        return replace(solution, value=value, violation=violation)

    def forward(
        self, y: Float[Tensor, "*#batch n"], set: SetT, *, factor: Any = None
    ) -> Float[Tensor, "*batch n"]:
        """The enforced decision `(*batch, n)`; failed elements go to the failure policy."""
        solution = self.solve(y, set, factor=factor)
        if self.training and not branchless(solution.value):
            self.counts += torch.bincount(solution.status.flatten(), minlength=STATUS_CODES)
        policy = self.on_failure or (LeastViolation() if self.training else Raise())
        return policy(solution, type(self).__name__)

    def _check(self, y: Tensor, set: SetT) -> None:
        name = type(self).__name__
        if not isinstance(set, self.accepts):
            expected = " | ".join(c.__name__ for c in self.accepts)
            raise SetTypeError(
                f"{name}: expected set of type {expected}, got {type(set).__name__}. "
                f"See the table 'how to choose' for the layer that enforces it."
            )
        if y.ndim < 1 or y.shape[-1] != set.dim:
            raise ShapeError(
                f"{name}: expected y of shape (*batch, {set.dim}) for a set of dimension {set.dim}, got "
                f"{tuple(y.shape)}. The last dimension is the decision; batch dimensions come first."
            )
        reference = next(iter(tensors_of(set)), y)
        if y.dtype != reference.dtype or y.device != reference.device:
            raise ShapeError(
                f"{name}: expected y of dtype {reference.dtype} on {reference.device} like the set, got {y.dtype} "
                f"on {y.device}. Convert one with `.to(...)`; to compute in float64 and return float32, pass "
                f"compute_dtype=torch.float64."
            )
        check_batch(name, y=y.shape[:-1], set=set.batch_shape)
