"""The filter of control barrier functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from constrained_nn.control import Controller, FunctionController, SafetyFilter, rule_of
from constrained_nn.layers import EuclideanProjection
from constrained_nn.sets import IntervalSet
from constrained_nn.training.methods.base import Condition, Method
from control_envs.tasks import Task


@dataclass(frozen=True)
class CBFQP(Method):
    """The nominal controller behind the exact minimum-norm CBF filter; nothing is learned."""

    name: ClassVar[str] = "cbf-qp"
    summary: ClassVar[str] = "nominal controller and exact CBF-QP filter, nothing learned"
    learns: ClassVar[bool] = False

    def decide(self, raw: Tensor, set: IntervalSet, step: int | None = None) -> Tensor:
        return EuclideanProjection()(raw, set)

    def network(self, task: Task, backbone: nn.Module) -> Controller:
        return FunctionController(task.nominal)

    def controller(self, network: Controller, condition: Condition, step: int | None = None) -> Controller:
        return SafetyFilter(network, condition, EuclideanProjection(), on_conflict=rule_of(condition))
