"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn


class MLP(nn.Sequential):
    """Fully connected network, for states of few dimensions.

    `y = W_k σ(... σ(W_1 x + b_1) ...) + b_k`

    Guarantee: none; the weights are drawn by torch's default initialization from its global generator.

    Args:
        inputs: Size of the input.
        outputs: Size of the output.
        hidden: Widths of the hidden layers.
        activation: Makes `σ`.

    Example:
        >>> import torch
        >>> MLP(3, 3, (150, 150))(torch.zeros(7, 3)).shape
        torch.Size([7, 3])

    References:
        Hendrycks and Gimpel, Gaussian error linear units (2016), for the default `σ`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int],
        activation: Callable[[], nn.Module] = nn.GELU,
    ) -> None:
        sizes = (inputs, *hidden)
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), activation()]
        super().__init__(*layers, nn.Linear(sizes[-1], outputs))

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        return super().forward(x)
