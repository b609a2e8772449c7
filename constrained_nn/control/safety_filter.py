"""A constraint layer behind any controller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from constrained_nn.control.base import Controller, DynamicController
from constrained_nn.control.conflicts import ConflictRule, enforce_or_resolve
from constrained_nn.layers import ProjectionLayer
from constrained_nn.sets import ConstraintSet
from constrained_nn.solvers import Solution


class SafetyFilter(Controller):
    """A controller whose every input satisfies a state-dependent constraint.

    `u = layer(controller(t, x), condition(t, x))`.

    With `EuclideanProjection` and a barrier's condition this is the CBF filter (the exact minimum-norm QP); with
    `HardNetAffine` behind a trained network it is HardNet-Aff.

    Guarantee: that of the layer, for every parameter of the controller. An input that could not be enforced
    raises in eval mode, and is counted in training mode (`layer.counts`).

    A controller with a state keeps it: `(u, z_dot) = controller(t, x, reference, z)` becomes `(layer(u), z_dot)`.

    Args:
        controller: The controller to be filtered.
        condition: Function `(t, x) -> ConstraintSet`, such as `ControlBarrier(...).condition`.
        layer: The layer that enforces it.
        on_conflict: What to do where no input satisfies the condition; default: the layer's own policy.

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
        *,
        on_conflict: ConflictRule | None = None,
    ) -> None:
        super().__init__()
        self.controller = controller
        self.state_dim = int(getattr(controller, "state_dim", 0))
        self.condition = condition
        self.layer = layer
        self.on_conflict = on_conflict

    def solve(
        self, t: Any, x: Float[Tensor, "*batch n"], *loop: Any, warm_start: Solution | None = None
    ) -> Solution:
        """Enforced input with its status and the raw input; never raises for a value.

        Along a run, the solution of one step is the `warm_start` of the next.
        """
        raw = self.controller(t, x, *loop)
        raw = raw[0] if self.state_dim else raw
        return replace(self.layer.solve(raw, self.condition(t, x), warm_start=warm_start), raw=raw)

    def forward(self, t: Any, x: Float[Tensor, "*batch n"], *loop: Any) -> Any:
        if not self.state_dim:
            return self._enforce(t, x, self.controller(t, x))
        u, rate = self.controller(t, x, *loop)
        return self._enforce(t, x, u), rate

    def _enforce(self, t: Any, x: Tensor, raw: Tensor) -> Tensor:
        set = self.condition(t, x)
        if self.on_conflict is None:
            return self.layer(raw, set)
        return enforce_or_resolve(self.on_conflict, t, x, raw, set, self.layer)

    def prepared(self) -> Callable[..., Any]:
        """The filter around `controller.prepared()`."""
        if not isinstance(self.controller, DynamicController):
            return self
        inner, layer, condition = self.controller.prepared(), self.layer, self.condition

        def respond(t: Any, x: Tensor, reference: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            u, rate = inner(t, x, reference, z)
            return layer(u, condition(t, x)), rate

        return respond

    def advance(self, z: Tensor, rate: Tensor, next_rate: Tensor, dt: float) -> Tensor:
        """The controller's own discrete form."""
        assert isinstance(self.controller, DynamicController)
        return self.controller.advance(z, rate, next_rate, dt)
