"""The correction step of DC3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.control import Controller
from constrained_nn.linalg import matvec, rmatvec
from constrained_nn.sets import IntervalSet


class DC3Controller(Controller):
    """A controller corrected by gradient steps on its violated rows (DC3).

    `y ← y − step Δ`, `Δ ← Aᵀ (A y − clamp(A y)) + momentum Δ`, a fixed number of times, unrolled.

    Guarantee: none; violations shrink, they do not vanish. That is the published method.

    Args:
        controller: The controller to be corrected.
        condition: Function `(t, x) -> IntervalSet` with linear rows.
        corrections: Number of steps.
        step: Step size; in units of `1 / |A|²` of each element where `normalized`.
        momentum: Share of the last correction that is kept.
        normalized: Whether to divide the step by the squared Frobenius norm of `A`.

    Returns:
        `forward(t, x)`: corrected input `(*batch, m)`.

    Example:
        >>> import torch
        >>> from constrained_nn import Halfspace
        >>> from constrained_nn.control import FunctionController
        >>> wall = lambda t, x: Halfspace(torch.ones_like(x), x.new_tensor(1.0))
        >>> dc3 = DC3Controller(FunctionController(lambda t, x: 3 - x), wall, corrections=1, step=1.0)
        >>> dc3(0.0, torch.zeros(1, 1))
        tensor([[1.]])

    References:
        DC3 (ICLR 2021), section 3.3; its gradient of a lower-bound row has the right sign here.
    """

    def __init__(
        self,
        controller: Controller,
        condition: Callable[[Any, Tensor], IntervalSet],
        *,
        corrections: int,
        step: float,
        momentum: float = 0.0,
        normalized: bool = True,
    ) -> None:
        super().__init__()
        self.controller = controller
        self.condition = condition
        self.corrections = corrections
        self.step = step
        self.momentum = momentum
        self.normalized = normalized

    def forward(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        y = self.controller(t, x)
        rows = self.condition(t, x)
        A = rows.jacobian(y)
        step: Tensor | float = self.step
        if self.normalized:
            squared = A.square().sum((-2, -1)).unsqueeze(-1)
            step = self.step / torch.where(squared > 0, squared, 1.0)
        correction = torch.zeros_like(y)
        for _ in range(self.corrections):
            Ay = matvec(A, y)
            gradient = rmatvec(A, Ay - torch.clamp(Ay, rows.lower, rows.upper))
            correction = gradient + self.momentum * correction
            y = y - step * correction
        return y
