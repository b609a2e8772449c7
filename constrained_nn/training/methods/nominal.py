"""The nominal controller alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from constrained_nn.control import Controller, FunctionController
from constrained_nn.sets import IntervalSet
from constrained_nn.training.methods.base import Condition, Method
from control_envs.tasks import Task


@dataclass(frozen=True)
class Nominal(Method):
    """The nominal controller alone; nothing is learned."""

    name: ClassVar[str] = "nominal"
    summary: ClassVar[str] = "the nominal controller alone, nothing learned"
    learns: ClassVar[bool] = False
    constrains: ClassVar[bool] = False

    def decide(self, raw: Tensor, set: IntervalSet, step: int | None = None) -> Tensor:
        return raw

    def network(self, task: Task, backbone: nn.Module) -> Controller:
        return FunctionController(task.nominal)

    def controller(self, network: Controller, condition: Condition, step: int | None = None) -> Controller:
        return network
