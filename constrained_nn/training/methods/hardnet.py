"""Enforcement by a projection layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from constrained_nn.control import Controller, SafetyFilter, rule_of
from constrained_nn.layers import HardNetAffine, ProjectionLayer
from constrained_nn.sets import IntervalSet
from constrained_nn.settings import require_integer, require_real
from constrained_nn.training.methods.base import (
    Condition,
    Method,
    MethodController,
    Running,
    running_excess,
    squared_excess,
)


@dataclass(frozen=True)
class HardNet(Method):
    """A projection layer behind the network, from the start, after a warm-up, or faded in.

    In training `y = raw + share (layer(raw) − raw)`, where `share` is 0 for the first `warmup` steps and grows to 1
    over the next `fade` steps. The penalty `weight |residual|²` of the decision vanishes with the layer on;
    `distance_weight |y − raw|²` does not, and pulls the raw output inside.

    Args:
        layer: The layer; default: `HardNetAffine()`.
        factor: Result of `layer.factor(set)` for sets with the same matrix.
        warmup: Steps without it.
        fade: Steps over which it comes in.
        weight: Weight of the squared residual of the decision.
        distance_weight: Weight of the squared distance between raw output and decision.
    """

    layer: ProjectionLayer | None = None
    factor: Any = field(default=None, compare=False)
    warmup: int = 0
    fade: int = 0
    weight: float = 0.0
    distance_weight: float = 0.0
    enforcer: ProjectionLayer = field(init=False, repr=False, compare=False)

    name: ClassVar[str] = "hardnet"
    summary: ClassVar[str] = "HardNet-Aff: closed-form enforcement of the barrier rows"

    def __post_init__(self) -> None:
        if not isinstance(self.layer, ProjectionLayer | None):
            raise TypeError(f"HardNet: expected layer as a ProjectionLayer, got {self.layer!r}.")
        if self.factor is not None and self.layer is None:
            raise TypeError("HardNet: expected a factor with the layer that made it, got a factor alone.")
        require_integer("HardNet", "warmup", self.warmup)
        require_integer("HardNet", "fade", self.fade)
        require_real("HardNet", "weight", self.weight, least=0.0)
        require_real("HardNet", "distance_weight", self.distance_weight, least=0.0)
        # beside `layer`, so that two methods with the default are equal
        object.__setattr__(self, "enforcer", HardNetAffine() if self.layer is None else self.layer)

    def share(self, step: int | None) -> float:
        """How much of the layer is on."""
        if step is None or step > self.warmup + self.fade:
            return 1.0
        return max(0.0, (step - self.warmup) / (self.fade + 1))

    def decide(self, raw: Tensor, set: IntervalSet, step: int | None = None) -> Tensor:
        share = self.share(step)
        if share == 0.0:
            return raw
        value = self.enforcer(raw, set, factor=self.factor)
        return value if share == 1.0 else raw + share * (value - raw)

    def penalty(self, raw: Tensor, y: Tensor, set: IntervalSet, step: int | None = None) -> Tensor:
        total = squared_excess(self.weight, y, set)
        if self.distance_weight:
            total = total + self.distance_weight * (y - raw).square().sum(-1)
        return total

    def controller(self, network: Controller, condition: Condition, step: int | None = None) -> Controller:
        if self.share(step) == 1.0 and self.factor is None:
            return SafetyFilter(network, condition, self.enforcer, on_conflict=rule_of(condition))
        return MethodController(network, condition, self, step)

    def penalties(self, network: Controller, condition: Condition, step: int) -> Running:
        found = dict(running_excess(self.weight, condition)) if self.weight else {}
        if self.distance_weight:
            found["distance"] = lambda t, x, u: self.distance_weight * (u - network(t, x)).square().sum(-1)
        return found
