"""A network whose output satisfies its constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.errors import SetTypeError
from constrained_nn.layers.contract import ProjectionLayer
from constrained_nn.layers.fixed import Fixed
from constrained_nn.linalg import without_autocast
from constrained_nn.sets import ConstraintSet
from constrained_nn.solvers import Solution


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
    """The `Solution` with the raw output beside it, for a loss on the distance; never raises for a value.

    A wrapper such as `DistributedDataParallel` has no other method than `forward`.
    """

    def __call__(self, layer: ProjectionLayer, raw: Tensor, set: ConstraintSet, factor: Any) -> Solution:
        solution = layer.solve(raw, set, factor=factor)
        layer.count(solution)
        return replace(solution, raw=raw)


_VALUE = Value()


class Constrained(nn.Module):
    """Network whose every output satisfies its constraints.

    `layer(backbone(context), constraint(context))`.

    Guarantee: that of the layer, for every parameter of the backbone, trained or not.

    Args:
        backbone: Module `context -> y`, `(*batch, k) -> (*batch, n)`.
        constraint: Function `context -> ConstraintSet`, or `Fixed(set)`.
        layer: The layer that enforces it.
        returns: `Value()`, the enforced output, or `Report()`, the `Solution` with the raw output.

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

    def solve(self, context: Float[Tensor, "*batch k"], *, warm_start: Solution | None = None) -> Solution:
        """Enforced output with its status and the raw output; for penalties, logs and statistics.

        Args:
            context: Input of the backbone `(*batch, k)`.
            warm_start: What `solve` returned for a context nearby, from which the layer starts.
        """
        raw = self.backbone(context)
        found = self.layer.solve(raw, self._set(context), factor=self._factor, warm_start=warm_start)
        return replace(found, raw=raw)

    def forward(self, context: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch n"] | Solution:
        return self.returns(self.layer, self.backbone(context), self._set(context), self._factor)
