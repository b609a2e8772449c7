"""What a method is: how the output of a network becomes a decision, and what is added to the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.control import Controller, ResidualController
from constrained_nn.sets import IntervalSet
from control_envs.tasks import Task

Condition = Callable[[Any, Tensor], IntervalSet]
Running = Mapping[str, Callable[[Any, Tensor, Tensor], Tensor]]


@dataclass(frozen=True)
class Method(ABC):
    """A way to respect constraints while learning, with its options as fields.

    Problems without a plant ask for `decide` and `penalty`. A closed loop asks for `network`, `controller` and
    `penalties`, whose defaults are made of these two: `decide` is all that a method of one's own must write. A step is
    an epoch there and a gradient step here, counted from 1, or None in evaluation.

    A training works on a copy of its own, so that layers that a method holds count one run each.

    Attributes:
        name: Name on the command line and in tables.
        summary: One line for `constrained-nn list`.
        learns: Whether there is anything to train.
        constrains: Whether it asks for the constraint set.
    """

    name: ClassVar[str] = "own"
    summary: ClassVar[str] = ""
    learns: ClassVar[bool] = True
    constrains: ClassVar[bool] = True

    @abstractmethod
    def decide(
        self, raw: Float[Tensor, "*batch n"], set: IntervalSet, step: int | None = None
    ) -> Float[Tensor, "*batch n"]:
        """The decision."""

    def penalty(
        self, raw: Tensor, y: Tensor, set: IntervalSet, step: int | None = None
    ) -> Float[Tensor, "*batch"]:
        """What is added to the loss of each element; this hook's default is nothing."""
        return y.new_zeros(y.shape[:-1])

    def network(self, task: Task, backbone: nn.Module) -> Controller:
        """What proposes inputs; this hook's default adds the backbone to the nominal controller."""
        return ResidualController(task.nominal, task.features, backbone)

    def controller(self, network: Controller, condition: Condition, step: int | None = None) -> Controller:
        """The policy; this hook's default applies `decide` to what the network proposes."""
        return MethodController(network, condition, self, step)

    def penalties(self, network: Controller, condition: Condition, step: int) -> Running:
        """Functions `(t, x, u) -> (*batch)` whose time integrals are added to the cost; default: `penalty`."""
        if type(self).penalty is Method.penalty:
            return {}
        return {"penalty": lambda t, x, u: self.penalty(network(t, x), u, condition(t, x), step)}


class MethodController(Controller):
    """What a network proposes, made a decision by a method.

    `u = decide(network(t, x), condition(t, x))`.

    Args:
        network: What proposes inputs.
        condition: The set of each state.
        method: What decides.
        step: Step of the training; None: evaluation.
    """

    def __init__(
        self, network: Controller, condition: Condition, method: Method, step: int | None = None
    ) -> None:
        super().__init__()
        self.controller, self.condition, self.method, self.step = network, condition, method, step
        # modules inside of a dataclass are not found by themselves
        self.parts = nn.ModuleList(part for part in vars(method).values() if isinstance(part, nn.Module))

    def forward(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        return self.method.decide(self.controller(t, x), self.condition(t, x), self.step)


def squared_excess(weight: float, y: Tensor, set: IntervalSet) -> Float[Tensor, "*batch"]:
    """`weight |residual|²`."""
    return weight * set.residual(y).square().sum(-1)


def running_excess(weight: float, condition: Condition) -> Running:
    """`squared_excess` of the input along a closed loop."""
    return {"rows": lambda t, x, u: squared_excess(weight, u, condition(t, x))}
