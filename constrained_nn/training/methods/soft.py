"""A penalty, and no enforcement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from constrained_nn.control import Controller
from constrained_nn.sets import IntervalSet
from constrained_nn.settings import require_integer, require_real
from constrained_nn.training.methods.base import Condition, Method, Running, running_excess, squared_excess


@dataclass(frozen=True)
class Soft(Method):
    """The network with a penalty `weight |residual|²` on its violations (in a closed loop its time integral).

    Without a warm-up, training on the unicycle among obstacles ends in a local optimum between the obstacles, at
    cost 573 instead of 480.

    Args:
        weight: Weight of the penalty.
        warmup: Steps without it.
    """

    weight: float = 0.01
    warmup: int = 0

    name: ClassVar[str] = "soft"
    summary: ClassVar[str] = "the network with a penalty on violated rows"

    def __post_init__(self) -> None:
        require_real("Soft", "weight", self.weight, least=0.0)
        require_integer("Soft", "warmup", self.warmup)

    def decide(self, raw: Tensor, set: IntervalSet, step: int | None = None) -> Tensor:
        return raw

    def penalty(self, raw: Tensor, y: Tensor, set: IntervalSet, step: int | None = None) -> Tensor:
        on = step is None or step > self.warmup
        return squared_excess(self.weight if on else 0.0, y, set)

    def controller(self, network: Controller, condition: Condition, step: int | None = None) -> Controller:
        return network

    def penalties(self, network: Controller, condition: Condition, step: int) -> Running:
        return running_excess(self.weight, condition) if step > self.warmup else {}
