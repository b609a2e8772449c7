"""Networks that plan around the ellipse, each with its way to respect the constraints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from constrained_nn.files import read_tensors
from constrained_nn.layers import HardNetPlusPlus, Implicit
from constrained_nn.solvers import GaussNewton
from constrained_nn.training import copy_weights, make_backbone
from constrained_nn.training.supervised import (
    mirrored_plan,
    mirrored_state,
    plan_cost,
    plan_map,
    plan_set,
    roll_out,
)

HORIZON = 10


class Planner(ABC):
    """A method of the table: its network, its loss, and the plan that it makes."""

    outputs: ClassVar[int] = 50
    batch: ClassVar[int] = 500
    learning_rate: ClassVar[float] = 1e-3

    def network(self, seed: int) -> nn.Sequential:
        """Two hidden layers of 200 with ReLU, in float64."""
        return make_backbone(3, self.outputs, (200, 200), seed, torch.float64)

    def load(self, path: Path) -> nn.Sequential:
        """The network of a checkpoint that `constrained-nn reproduce mpc-obstacle` left.

        Raises:
            FileFormatError: The file is missing, damaged, or of another network.
        """
        network, (tensors, _) = self.network(0), read_tensors(path)
        weights = {n.removeprefix("weights."): t for n, t in tensors.items() if n.startswith("weights.")}
        copy_weights(path, weights, network.state_dict())
        return network

    def settings(self) -> dict[str, Any]:
        """What determines the numbers, as JSON values."""
        known = (
            "batch",
            "learning_rate",
            "distance_weights",
            "mirror_margin",
            "weight",
            "corrections",
            "training_corrections",
            "step",
        )
        found = {name: getattr(self, name) for name in known if hasattr(self, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    @abstractmethod
    def loss(self, network: nn.Module, x0: Tensor, done: float) -> Tensor:
        """Loss of a batch of start states, summed, when the share `done` of the training is over."""

    @abstractmethod
    def plan(self, network: nn.Module, x0: Tensor) -> tuple[Tensor, int]:
        """Plans, and the largest number of steps that their layer took."""


class HardNetPlanner(Planner):
    """The network behind HardNet++.

    The squared distance between raw and enforced output is penalized, with a weight that falls
    linearly: few steps then suffice, and the derivative at the solution is close to the exact one.
    No gradient leads from a plan on one side of the ellipse to one on the other; therefore every
    state is trained together with its mirror image, and where the mirrored plan of the image is
    cheaper, the raw output is drawn to it.
    """

    batch: ClassVar[int] = 250
    distance_weights: ClassVar[tuple[float, float]] = (1.0, 0.1)
    mirror_margin: ClassVar[float] = 0.02

    def __init__(self) -> None:
        self.trained = HardNetPlusPlus(method=GaussNewton(atol=1e-6), adjoint=Implicit())
        self.layer = HardNetPlusPlus(method=GaussNewton(max_steps=30))

    def loss(self, network: nn.Module, x0: Tensor, done: float) -> Tensor:
        x0 = torch.cat([x0, mirrored_state(x0)])
        raw = network(x0)
        y = self.trained(raw, plan_set(x0, HORIZON))
        cost = plan_cost(y, HORIZON)
        first, last = self.distance_weights
        weight = first + done * (last - first)
        other = torch.cat([*reversed(mirrored_plan(y.detach(), HORIZON).chunk(2))])
        dearer = cost.detach() > (1.0 + self.mirror_margin) * plan_cost(other, HORIZON)
        target = torch.where(dearer.unsqueeze(-1), other, y)
        distance = torch.where(dearer, first, weight) * (target - raw).square().sum(-1)
        return 0.5 * (cost + distance).sum()

    def plan(self, network: nn.Module, x0: Tensor) -> tuple[Tensor, int]:
        solution = self.layer.solve(network(x0), plan_set(x0, HORIZON))
        return solution.value, int(solution.steps.max())


class SoftPlanner(Planner):
    """The network alone; the norms of the violations of each kind are penalized, as published."""

    weight: ClassVar[float] = 1000.0

    def loss(self, network: nn.Module, x0: Tensor, done: float) -> Tensor:
        raw = network(x0)
        return (plan_cost(raw, HORIZON) + self.weight * _norms(raw, x0)).sum()

    def plan(self, network: nn.Module, x0: Tensor) -> tuple[Tensor, int]:
        return network(x0), 0


class DC3Planner(Planner):
    """The network outputs the inputs, the states follow (completion); gradient steps on violations correct them."""

    outputs: ClassVar[int] = 20
    weight: ClassVar[float] = 10.0
    corrections: ClassVar[int] = 100
    training_corrections: ClassVar[int] = 5
    step: ClassVar[float] = 0.1

    def loss(self, network: nn.Module, x0: Tensor, done: float) -> Tensor:
        y = self._corrected(network(x0), x0, self.training_corrections)
        return (plan_cost(y, HORIZON) + self.weight * _norms(y, x0)).sum()

    def plan(self, network: nn.Module, x0: Tensor) -> tuple[Tensor, int]:
        return self._corrected(network(x0), x0, self.corrections).detach(), self.corrections

    def _corrected(self, flat: Tensor, x0: Tensor, corrections: int) -> Tensor:
        learning = torch.is_grad_enabled()
        with torch.enable_grad():
            inputs = flat.unflatten(-1, (HORIZON, 2))
            if not learning:
                inputs = inputs.detach().requires_grad_()
            for _ in range(corrections):
                missed = plan_set(x0, HORIZON).residual(_completed(inputs, x0)).square().sum()
                (slope,) = torch.autograd.grad(missed, inputs, create_graph=learning)
                inputs = inputs - self.step * slope
                if not learning:
                    inputs = inputs.detach().requires_grad_()
        return _completed(inputs, x0)


def _completed(inputs: Tensor, x0: Tensor) -> Tensor:
    return plan_map(HORIZON).join(roll_out(x0, inputs), inputs)


def _norms(y: Tensor, x0: Tensor) -> Tensor:
    """Sum of the Euclidean norms of the violations of dynamics, obstacle and limits."""
    residual = plan_set(x0, HORIZON).residual(y).unflatten(-1, (HORIZON, 6))
    kinds = (residual[..., :3], residual[..., 3:4], residual[..., 4:])
    return torch.stack([_safe_norm(kind.flatten(-2)) for kind in kinds]).sum(0)


def _safe_norm(x: Tensor) -> Tensor:
    squared = x.square().sum(-1)
    return torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).sqrt(), squared)


PLANNERS: dict[str, type[Planner]] = {"hardnet++": HardNetPlanner, "dc3": DC3Planner, "soft": SoftPlanner}
