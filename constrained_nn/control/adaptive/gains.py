"""Positive gains as unconstrained parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PositiveDefinite(nn.Module):
    """A symmetric positive definite matrix as `n (n + 1) / 2` free numbers.

    `X = R Rᵀ`; the numbers fill the lower triangle of `R` row by row, the diagonal through `exp`.

    Args:
        value: The matrix to begin with `(n, n)`, symmetric positive definite.

    Raises:
        ValueError: `value` is not.
    """

    def __init__(self, value: Float[Tensor, "n n"]) -> None:
        super().__init__()
        factor, info = torch.linalg.cholesky_ex(value)
        if bool(info > 0) or not bool((value - value.mT).abs().amax() <= 1e-4 * value.abs().amax()):
            raise ValueError(
                f"PositiveDefinite: expected a symmetric positive definite matrix, got {value.tolist()}. Try a "
                f"positive multiple of the identity."
            )
        n = len(value)
        rows, columns = torch.tril_indices(n, n)
        self.raw = nn.Parameter(
            torch.where(rows == columns, factor.diagonal()[rows].log(), factor[rows, columns])
        )
        self.n = n

    @classmethod
    def random(
        cls, n: int, *, scale: float = 0.1, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> PositiveDefinite:
        """Near the identity: normal free numbers of standard deviation `scale`."""
        gain = cls(torch.eye(n, dtype=dtype))
        with torch.no_grad():
            gain.raw.copy_(scale * torch.randn(len(gain.raw), generator=generator, dtype=dtype))
        return gain

    def forward(self) -> Float[Tensor, "n n"]:
        rows, columns = torch.tril_indices(self.n, self.n, device=self.raw.device)
        values = torch.where(rows == columns, self.raw.exp(), self.raw)
        factor = self.raw.new_zeros(self.n, self.n).index_put((rows, columns), values)
        return factor @ factor.mT


class Fixed(nn.Module):
    """A gain that is not learned.

    Args:
        value: Its value.
    """

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self) -> Tensor:
        return self.value


def as_gain(gain: Tensor | float | nn.Module, n: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    """A module as it is; a matrix or a number (times the identity) as a fixed gain."""
    if isinstance(gain, nn.Module):
        return gain
    if isinstance(gain, Tensor):
        return Fixed(gain)
    return Fixed(gain * torch.eye(n, dtype=dtype))
