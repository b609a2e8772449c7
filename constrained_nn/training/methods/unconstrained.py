"""No constraint at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from constrained_nn.control import Controller
from constrained_nn.sets import IntervalSet
from constrained_nn.training.methods.base import Condition, Method


@dataclass(frozen=True)
class Unconstrained(Method):
    """The network alone."""

    name: ClassVar[str] = "none"
    summary: ClassVar[str] = "the network alone, trained on cost only"
    constrains: ClassVar[bool] = False

    def decide(self, raw: Tensor, set: IntervalSet, step: int | None = None) -> Tensor:
        return raw

    def controller(self, network: Controller, condition: Condition, step: int | None = None) -> Controller:
        return network
