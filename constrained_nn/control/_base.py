"""The contract of controllers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


class Controller(nn.Module):
    """A static feedback law `u = controller(t, x)`, a module with parameters or without."""

    @abstractmethod
    def forward(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """Input `(*batch, m)` at time `t` [s] and state `x`."""


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
