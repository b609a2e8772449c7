"""Features of adaptive controllers: functions of the plant's state."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TanhFeatures(nn.Module):
    """Network features `y(x) = tanh(W_1 tanh(W_0 x + b_0) + b_1)`.

    Args:
        inputs: Size of the state.
        widths: Widths of the layers; the last is the number of features.
        generator: Source of the weights, normal of standard deviation 0.1; None: all zero, to be loaded.
        dtype: Type of the weights.
    """

    def __init__(
        self,
        inputs: int,
        widths: tuple[int, ...] = (32, 32),
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        sizes = (inputs, *widths)
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, a, b, dtype=dtype) for a, b in zip(sizes[:-1], widths, strict=True)
        )
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(
                    torch.zeros_like(parameter)
                    if generator is None
                    else 0.1 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
                )

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch p"]:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


class ConstantFeature(nn.Module):
    """The single feature `y = 1`: an adaptive controller with it has a PID law with gravity compensation."""

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch 1"]:
        return torch.ones_like(x[..., :1])


def count_features(features: nn.Module, inputs: int, dtype: torch.dtype) -> int:
    """How many features a module has, found by evaluating it once."""
    device = next((p.device for p in features.parameters()), None)
    with torch.no_grad():
        return features(torch.zeros(1, inputs, dtype=dtype, device=device)).shape[-1]
