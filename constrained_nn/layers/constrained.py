"""A network whose output satisfies its constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.errors import SetTypeError
from constrained_nn.layers.contract import ProjectionLayer
from constrained_nn.layers.fixed import Fixed
from constrained_nn.linalg import without_autocast
from constrained_nn.sets import ConstraintSet
from constrained_nn.solvers import Solution


@dataclass(frozen=True, eq=False)
class Enforced:
    """Raw output, enforced output and how far apart they are.

    A penalty on the enforced output has zero gradient, because it satisfies the constraints; penalize
    `distance` instead.

    Args:
        raw: Output of the backbone `(*batch, n)`.
        value: Enforced output `(*batch, n)`.
        solution: Per-element status, steps and violation.
    """

    raw: Float[Tensor, "*batch n"]
    value: Float[Tensor, "*batch n"]
    solution: Solution

    @property
    def distance(self) -> Float[Tensor, "*batch"]:
        """Euclidean distance between raw and enforced output; its subgradient where they agree is 0."""
        return torch.linalg.vector_norm(self.value - self.raw, dim=-1)


torch.export.register_dataclass(Enforced, serialized_type_name="constrained_nn.Enforced")


@runtime_checkable
class Returns(Protocol):
    """What the forward of a network returns of a raw output, its set and the layer."""

    def __call__(self, layer: ProjectionLayer, raw: Tensor, set: ConstraintSet, factor: Any) -> Any: ...


@dataclass(frozen=True)
class Value:
    """The enforced output alone; elements that fail go to the layer's failure policy."""

    def __call__(self, layer: ProjectionLayer, raw: Tensor, set: ConstraintSet, factor: Any) -> Tensor:
        return layer(raw, set, factor=factor)


@dataclass(frozen=True)
class Report:
    """An `Enforced`: raw output, enforced output and status, for a loss on the distance; never raises for a value.

    A wrapper such as `DistributedDataParallel` has no other method than `forward`.
    """

    def __call__(self, layer: ProjectionLayer, raw: Tensor, set: ConstraintSet, factor: Any) -> Enforced:
        solution = layer.solve(raw, set, factor=factor)
        layer.count(solution)
        return Enforced(raw, solution.value, solution)


_VALUE = Value()


class Constrained(nn.Module):
    """Network whose every output satisfies its constraints.

    `layer(backbone(context), constraint(context))`.

    Guarantee: that of the layer, for every parameter of the backbone, trained or not.

    Args:
        backbone: Module `context -> y`, `(*batch, k) -> (*batch, n)`.
        constraint: Function `context -> ConstraintSet`, or `Fixed(set)`.
        layer: The layer that enforces it.
        returns: `Value()`, the enforced output, or `Report()`, an `Enforced` with raw output and status.

    Returns:
        `forward(context)`: enforced output `(*batch, n)`, or what `returns` says.

    Example:
        >>> import torch
        >>> from constrained_nn import Box, Constrained, Fixed, HardNetAffine
        >>> box = Fixed(Box(torch.zeros(2), torch.ones(2)))
        >>> net = Constrained(torch.nn.Linear(3, 2), box, HardNetAffine())
        >>> bool(((y := net(100 * torch.randn(8, 3))) >= 0).all() and (y <= 1).all())
        True

    References:
        HardNet (arXiv 2410.10807), section 4, the composition of network and enforcement layer.
    """

    def __init__(
        self,
        backbone: nn.Module,
        constraint: Callable[[Tensor], ConstraintSet],
        layer: ProjectionLayer,
        *,
        returns: Returns = _VALUE,
    ) -> None:
        super().__init__()
        if isinstance(layer, type):
            raise TypeError(
                f"Constrained: expected a layer, got the class {layer.__name__}. Write {layer.__name__}()."
            )
        if not callable(constraint) or isinstance(constraint, ProjectionLayer):
            raise SetTypeError(
                f"Constrained: expected constraint to be a function of the input, got {type(constraint).__name__}. "
                f"Wrap a constant set as Fixed(set)."
            )
        self.backbone = backbone
        self.constraint = constraint
        self.layer = layer
        self.returns = returns
        if isinstance(constraint, Fixed):
            constraint.prepare(layer)

    @property
    def _factor(self) -> Any:
        return self.constraint.factor if isinstance(self.constraint, Fixed) else None

    @without_autocast
    def _set(self, context: Tensor) -> ConstraintSet:
        return self.constraint(context)

    def evaluate(self, context: Float[Tensor, "*batch k"]) -> Enforced:
        """Raw and enforced output with status; for penalties, logs and statistics."""
        raw = self.backbone(context)
        solution = self.layer.solve(raw, self._set(context), factor=self._factor)
        return Enforced(raw, solution.value, solution)

    def forward(self, context: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch n"] | Enforced:
        return self.returns(self.layer, self.backbone(context), self._set(context), self._factor)
