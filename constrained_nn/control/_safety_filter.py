"""A constraint layer behind any controller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from constrained_nn.control._base import Controller
from constrained_nn.layers import Enforced, ProjectionLayer
from constrained_nn.sets import ConstraintSet


class SafetyFilter(Controller):
    """A controller whose every input satisfies a state-dependent constraint.

    `u = layer(controller(t, x), condition(t, x))`.

    With `EuclideanProjection` and a barrier's condition this is the CBF filter (the exact minimum-norm QP); with
    `HardNetAffine` behind a trained network it is HardNet-Aff.

    Guarantee: that of the layer, for every parameter of the controller. An input that could not be enforced
    raises in eval mode, and is counted in training mode (`layer.counts`).

    Args:
        controller: The controller to be filtered.
        condition: Function `(t, x) -> ConstraintSet`, such as `ControlBarrier(...).condition`.
        layer: The layer that enforces it.

    Returns:
        `forward(t, x)`: the enforced input `(*batch, m)`.

    Raises:
        InfeasibleError: In eval mode, no input satisfies the condition of an element.

    Example:
        >>> import torch
        >>> from constrained_nn import Halfspace, HardNetAffine
        >>> wall = lambda t, x: Halfspace(torch.ones_like(x), x.new_tensor(1.0))
        >>> from constrained_nn.control import FunctionController
        >>> safe = SafetyFilter(FunctionController(lambda t, x: 4 - x), wall, HardNetAffine())
        >>> safe(0.0, torch.zeros(1, 1))
        tensor([[1.]])

    References:
        Ames et al., Control Barrier Functions: Theory and Applications (2019), section II-C.
    """

    def __init__(
        self,
        controller: Controller,
        condition: Callable[[Any, Tensor], ConstraintSet],
        layer: ProjectionLayer,
    ) -> None:
        super().__init__()
        self.controller = controller
        self.condition = condition
        self.layer = layer

    def solve(self, t: Any, x: Float[Tensor, "*batch n"]) -> Enforced:
        """Raw and enforced input with per-element status; never raises for a value."""
        raw = self.controller(t, x)
        solution = self.layer.solve(raw, self.condition(t, x))
        return Enforced(raw, solution.value, solution)

    def forward(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        return self.layer(self.controller(t, x), self.condition(t, x))
