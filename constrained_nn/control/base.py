"""The contract of controllers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.errors import ShapeError


class Controller(nn.Module):
    """A feedback law, a module with parameters or without.

    A static one (`state_dim` 0) is called as `u = controller(t, x)`. One with a state `z` `(*batch, state_dim)` of its
    own is a `DynamicController`.

    Attributes:
        state_dim: Size of the controller's own state; 0 for a static one.
    """

    state_dim: int = 0

    @abstractmethod
    def forward(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Input `(*batch, m)` at time `t` [s] and state `x`."""


class DynamicController(Controller, ABC):
    """A controller with a state of its own: `(u, z_dot) = controller(t, x, reference, z)`.

    A rollout starts `z` at zero and integrates it together with the plant.
    """

    @abstractmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        t: Any,
        x: Float[Tensor, "*batch n"],
        reference: Float[Tensor, "*batch k p"],
        z: Float[Tensor, "*batch s"],
    ) -> tuple[Float[Tensor, "*batch m"], Float[Tensor, "*batch s"]]:
        """Input and rate of the controller's state; row i of `reference` is the i-th derivative."""

    def prepared(self) -> Callable[[Any, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The same function with all that is constant over a rollout worked out; this hook's default is itself."""
        return self

    def advance(self, z: Tensor, rate: Tensor, next_rate: Tensor, dt: float) -> Tensor:
        """`z` one sample later, from its rate at both samples; this hook's default is the trapezoid rule."""
        return z + (0.5 * dt) * (rate + next_rate)


def check_reference(controller: Controller, reference: Any, rows: int, columns: int) -> None:
    """Refuse a reference that is missing, or has too few derivatives or other coordinates.

    Raises:
        ShapeError: It does.
    """
    shape = tuple(reference.shape) if isinstance(reference, Tensor) else ()
    if len(shape) < 2 or shape[-2] < rows or shape[-1] != columns:
        name = type(controller).__name__
        raise ShapeError(
            f"{name}: expected reference of shape (*batch, {rows}, {columns}) (value and {rows - 1} derivatives), got "
            f"{shape or type(reference).__name__}. Pass `rollout(..., reference=...)` a function of time, such as "
            f"`reference.table(dt, horizon).to(x)`."
        )


class FunctionController(Controller):
    """A plain function as a controller.

    `u = function(t, x)`.

    Guarantee: none beyond the function's own.

    Args:
        function: `(t, x) -> u`, `(*batch, n) -> (*batch, m)`.

    Returns:
        `forward(t, x)`: the input `(*batch, m)`.

    Example:
        >>> import torch
        >>> FunctionController(lambda t, x: -x)(0.0, torch.ones(2))
        tensor([-1., -1.])

    References:
        Khalil, Nonlinear Systems (2002), section 12.1, state feedback.
    """

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        return self.function(t, x)


class SaturatedController(Controller):
    """A controller whose inputs end at the limits of the actuators.

    `u = min(max(controller(t, x), low), high)`.

    Guarantee: `low <= u <= high`; beyond a limit the gradient is zero.

    Args:
        controller: The controller.
        low: Lower limits `(m,)`, in the units of the inputs.
        high: Upper limits `(m,)`.

    Returns:
        `forward(t, x)`: the input `(*batch, m)`.

    Example:
        >>> import torch
        >>> far = FunctionController(lambda t, x: 9 * x)
        >>> SaturatedController(far, -torch.ones(2), torch.ones(2))(0.0, torch.tensor([1.0, -0.1]))
        tensor([ 1.0000, -0.9000])

    References:
        Khalil, Nonlinear Systems (2002), section 1.2.7, saturation.
    """

    def __init__(self, controller: Controller, low: Float[Tensor, " m"], high: Float[Tensor, " m"]) -> None:
        super().__init__()
        self.controller = controller
        self.low, self.high = low, high

    def forward(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        u = self.controller(t, x)
        return torch.minimum(torch.maximum(u, self.low.to(u)), self.high.to(u))


class ResidualController(Controller):
    """A network added to a nominal controller.

    `u = nominal(t, x) + backbone(features(t, x))`.

    Guarantee: none; put a `SafetyFilter` behind it.

    Args:
        nominal: Function `(t, x) -> u`.
        features: Function `(t, x) -> (*batch, k)`, the network's input.
        backbone: Network `(*batch, k) -> (*batch, m)`.

    Returns:
        `forward(t, x)`: the input `(*batch, m)`.

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(2, 2)
        >>> policy = ResidualController(lambda t, x: -x, lambda t, x: x, net)
        >>> policy(0.0, torch.ones(5, 2)).shape
        torch.Size([5, 2])

    References:
        HardNet (arXiv 2410.10807), section 5.4: the network outputs the residual of a nominal control.
    """

    def __init__(
        self,
        nominal: Callable[[Any, Tensor], Tensor],
        features: Callable[[Any, Tensor], Tensor],
        backbone: nn.Module,
    ) -> None:
        super().__init__()
        self.nominal = nominal
        self.features = features
        self.backbone = backbone

    def forward(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        return self.nominal(t, x) + self.backbone(self.features(t, x))
