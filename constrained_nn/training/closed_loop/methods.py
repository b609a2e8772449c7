"""Methods that are compared: one training loop, one strategy each."""

from __future__ import annotations

import difflib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from constrained_nn.certificates import ControlBarrier
from constrained_nn.control import Controller, FunctionController, ResidualController, SafetyFilter
from constrained_nn.errors import UnknownNameError
from constrained_nn.layers import EuclideanProjection, HardNetAffine
from constrained_nn.protocols import BarrierFunction, ControlAffine
from constrained_nn.settings import require_integer, require_real
from constrained_nn.training.closed_loop.dc3 import DC3Controller

Running = Mapping[str, Callable[[Any, Tensor, Tensor], Tensor]]


@runtime_checkable
class BarrierTask(Protocol):
    """A task that can be trained under a barrier: plant, barrier, nominal controller and data."""

    plant: Any
    name: Any

    @property
    def barrier(self) -> BarrierFunction: ...

    @property
    def alpha(self) -> float: ...

    def nominal(self, t: Any, x: Any) -> Any: ...

    def features(self, t: Any, x: Any) -> Any: ...

    def stage_cost(self, t: Any, x: Any, u: Any) -> Any: ...

    def published_starts(self) -> dict[str, np.ndarray]: ...


def barrier_of(task: Any) -> ControlBarrier:
    """The barrier certificate of a task.

    Raises:
        TypeError: The task has no barrier.
    """
    if not isinstance(getattr(task, "barrier", None), BarrierFunction) or not isinstance(
        task.plant, ControlAffine
    ):
        raise TypeError(
            f"training: expected a task with a barrier and a control-affine plant, got '{task.name}'. "
            f"Safe methods need one; 'unicycle-obstacles' has it."
        )
    return ControlBarrier(task.barrier, task.plant, rate=task.alpha)


@dataclass(frozen=True)
class Method(ABC):
    """A way to respect constraints while learning.

    Attributes:
        name: Name on the command line.
        summary: One line for `constrained-nn list`.
        learns: Whether there is anything to train.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    learns: ClassVar[bool] = True

    @abstractmethod
    def controller(self, task: BarrierTask, backbone: nn.Module) -> Controller:
        """The closed-loop policy around the backbone."""

    def penalties(self, task: BarrierTask, controller: Controller, step: int) -> Running:
        """Functions `(t, x, u) -> (*batch)` whose time integrals are added to the cost at gradient step `step`."""
        return {}


@dataclass(frozen=True)
class Unconstrained(Method):
    """The network alone: `u = nominal + residual`, no constraint at all."""

    name: ClassVar[str] = "none"
    summary: ClassVar[str] = "the network alone, trained on cost only"

    def controller(self, task: BarrierTask, backbone: nn.Module) -> Controller:
        return ResidualController(task.nominal, task.features, backbone)


@dataclass(frozen=True)
class Soft(Method):
    """The network with a penalty `weight ∫ |relu(A u − b)|² dt` on violated barrier rows.

    The penalty is off for the first `warmup` steps. Without that, training on the unicycle among obstacles ends
    in a local optimum between the obstacles, at cost 573 instead of 480.
    """

    weight: float = 0.01
    warmup: int = 0

    name: ClassVar[str] = "soft"
    summary: ClassVar[str] = "the network with a penalty on violated rows"

    def __post_init__(self) -> None:
        require_real("Soft", "weight", self.weight, least=0.0)
        require_integer("Soft", "warmup", self.warmup)

    def controller(self, task: BarrierTask, backbone: nn.Module) -> Controller:
        return ResidualController(task.nominal, task.features, backbone)

    def penalties(self, task: BarrierTask, controller: Controller, step: int) -> Running:
        return {"rows": row_penalty(barrier_of(task), self.weight)} if step > self.warmup else {}


@dataclass(frozen=True)
class HardNet(Method):
    """HardNet-Aff behind the network; optionally `distance_weight ∫ |u − raw|² dt` pulls the raw output inside.

    The penalty is on the distance, because one on the enforced output has zero gradient.
    """

    distance_weight: float = 0.0

    name: ClassVar[str] = "hardnet"
    summary: ClassVar[str] = "HardNet-Aff: closed-form enforcement of the barrier rows"

    def __post_init__(self) -> None:
        require_real("HardNet", "distance_weight", self.distance_weight, least=0.0)

    def controller(self, task: BarrierTask, backbone: nn.Module) -> Controller:
        network = ResidualController(task.nominal, task.features, backbone)
        return SafetyFilter(network, barrier_of(task).condition, HardNetAffine())

    def penalties(self, task: BarrierTask, controller: Controller, step: int) -> Running:
        if not self.distance_weight:
            return {}
        assert isinstance(controller, SafetyFilter)
        network = controller.controller

        def distance(t: Any, x: Tensor, u: Tensor) -> Tensor:
            return self.distance_weight * (u - network(t, x)).square().sum(-1)

        return {"distance": distance}


@dataclass(frozen=True)
class CBFQP(Method):
    """The nominal controller behind the exact minimum-norm CBF filter; nothing is learned."""

    name: ClassVar[str] = "cbf-qp"
    summary: ClassVar[str] = "nominal controller and exact CBF-QP filter, nothing learned"
    learns: ClassVar[bool] = False

    def controller(self, task: BarrierTask, backbone: nn.Module) -> Controller:
        return SafetyFilter(
            FunctionController(task.nominal), barrier_of(task).condition, EuclideanProjection()
        )


@dataclass(frozen=True)
class Nominal(Method):
    """The nominal controller alone; nothing is learned."""

    name: ClassVar[str] = "nominal"
    summary: ClassVar[str] = "the nominal controller alone, nothing learned"
    learns: ClassVar[bool] = False

    def controller(self, task: BarrierTask, backbone: nn.Module) -> Controller:
        return FunctionController(task.nominal)


@dataclass(frozen=True)
class DC3(Method):
    """The network followed by gradient corrections of the violated rows, with the soft penalty (DC3).

    The task has no equalities, so there is nothing to complete. With the published `step = 1e-7` the correction
    does nothing; `normalized=True` divides the step by the row norms of each element, and then it works.
    `warmup` as in `Soft`.
    """

    corrections: int = 5
    step: float = 0.5
    momentum: float = 0.5
    normalized: bool = True
    weight: float = 0.01
    warmup: int = 0

    name: ClassVar[str] = "dc3"
    summary: ClassVar[str] = "DC3: gradient correction of violated rows, and a penalty"

    def __post_init__(self) -> None:
        require_integer("DC3", "corrections", self.corrections)
        require_integer("DC3", "warmup", self.warmup)
        require_real("DC3", "step", self.step, above=0.0)
        require_real("DC3", "momentum", self.momentum, least=0.0, below=1.0)
        require_real("DC3", "weight", self.weight, least=0.0)
        if not isinstance(self.normalized, bool):
            raise TypeError(f"DC3: expected normalized as true or false, got {self.normalized!r}.")

    def controller(self, task: BarrierTask, backbone: nn.Module) -> Controller:
        return DC3Controller(
            ResidualController(task.nominal, task.features, backbone),
            barrier_of(task).condition,
            corrections=self.corrections,
            step=self.step,
            momentum=self.momentum,
            normalized=self.normalized,
        )

    def penalties(self, task: BarrierTask, controller: Controller, step: int) -> Running:
        return {"rows": row_penalty(barrier_of(task), self.weight)} if step > self.warmup else {}


def row_penalty(barrier: ControlBarrier, weight: float) -> Callable[[Any, Tensor, Tensor], Tensor]:
    """`weight |relu(A u − b)|²` of the barrier rows."""

    def penalty(t: Any, x: Tensor, u: Tensor) -> Tensor:
        return weight * barrier.condition(t, x).residual(u).square().sum(-1)

    return penalty


METHODS: dict[str, type[Method]] = {
    method.name: method for method in (Unconstrained, Soft, DC3, HardNet, CBFQP, Nominal)
}


def make_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """The method of this name.

    Raises:
        UnknownNameError: No method has this name; the message suggests the nearest.
        TypeError: The method has no such option.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.0)
        raise UnknownNameError(
            f"unknown method '{name}'. Did you mean '{near[0]}'? Methods: {', '.join(METHODS)}."
        )
    method = METHODS[name]
    known = [f.name for f in fields(method)]
    for option in options or {}:
        if option not in known:
            raise TypeError(
                f"method '{name}' has no option '{option}'. Its options: {', '.join(known) or 'none'}."
            )
    return method(**(options or {}))


def make_backbone(
    features: int, outputs: int, hidden: tuple[int, ...], seed: int, dtype: torch.dtype
) -> nn.Sequential:
    """ReLU network with Kaiming-normal weights drawn in order after the default construction, as published."""
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        widths = (features, *hidden, outputs)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            layers += [nn.Linear(a, b, dtype=dtype)] + ([nn.ReLU()] if i < len(hidden) else [])
        network = nn.Sequential(*layers)
        for layer in network:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
    finally:
        torch.random.set_rng_state(state)
    return network
