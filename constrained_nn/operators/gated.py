"""Operators whose only nonlinearity is a product of fields, as in equations of transport."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.operators.fields import check_field, convolution_in
from constrained_nn.operators.fourier import SpectralConv, SpectralScaling


class GatedOperator(nn.Module):
    """Residual operator with products in place of activations, on a periodic grid of one or two directions.

    `h₀ = C w + S w`, `h_{l+1} = h_l + M_l ((A_l h_l + T_l N_l h_l) ∘ B_l h_l)`, `G(w) = D h_L + R w`, with circular
    convolutions `A, B, C, D` of width `kernel`, matrices `M, N` at each point, and, if `modes` is given,
    `SpectralScaling` `T` and `SpectralConv` `S, R`.

    The nonlinear terms of Kuramoto-Sivashinsky and of Navier-Stokes are products of two linear maps of the state (one
    of them global for the latter): one layer of this operator holds an explicit step of either. It learns them in a
    tenth of the time of an `FNO`, and, being a polynomial, it blows up as soon as it leaves the data: put a constraint
    behind it.

    Guarantee: translation-equivariant, a polynomial of degree `2^depth`. Its convolutions are tied to the grid spacing.

    Args:
        dim: Number of directions, one or two.
        width: Channels of the hidden fields.
        depth: Number of layers.
        kernel: Points of a convolution in each direction, odd.
        modes: Number of frequencies of the spectral maps in each direction; None: no spectral maps.
        inputs: Channels of the input.
        outputs: Channels of the output.

    Raises:
        ShapeError: The input does not have the channels, or `dim` is not 1 or 2.

    Example:
        >>> import torch
        >>> GatedOperator(2, width=8, depth=2, modes=(6, 6))(torch.zeros(3, 1, 16, 16)).shape
        torch.Size([3, 1, 16, 16])

    References:
        Dauphin et al., Language modeling with gated convolutional networks (2017), section 3 (without the sigmoid).
    """

    def __init__(
        self,
        dim: int,
        *,
        width: int,
        depth: int,
        kernel: int = 3,
        modes: tuple[int, ...] | None = None,
        inputs: int = 1,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        kind = convolution_in("GatedOperator", dim)

        def circular(a: int, b: int) -> nn.Module:
            return kind(a, b, kernel, padding=kernel // 2, padding_mode="circular")

        self.dim, self.inputs = dim, inputs
        self.lift, self.drop = circular(inputs, width), circular(width, outputs)
        self.pairs = nn.ModuleList(circular(width, 2 * width) for _ in range(depth))
        self.mix = nn.ModuleList(kind(width, width, 1) for _ in range(depth))
        self.spectral_lift = self.spectral_drop = None
        self.spectral = nn.ModuleList()
        if modes is not None:
            self.spectral_lift = SpectralConv(inputs, width, modes)
            self.spectral_drop = SpectralConv(inputs, outputs, modes)
            self.spectral.extend(
                nn.Sequential(kind(width, width, 1), SpectralScaling(width, modes)) for _ in range(depth)
            )

    def forward(self, w: Float[Tensor, "batch inputs ..."]) -> Float[Tensor, "batch outputs ..."]:
        check_field("GatedOperator", w, self.inputs, self.dim)
        h = self.lift(w)
        if self.spectral_lift is not None:
            h = h + self.spectral_lift(w)
        for i, (pair, mix) in enumerate(zip(self.pairs, self.mix, strict=True)):
            a, b = pair(h).chunk(2, 1)
            if self.spectral:
                a = a + self.spectral[i](h)
            h = h + mix(a * b)
        out: Tensor = self.drop(h)
        return out if self.spectral_drop is None else out + self.spectral_drop(w)
