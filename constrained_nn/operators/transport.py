"""Operators made of products of a field with its velocity and its derivatives, as vorticity is transported."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.operators.fields import check_field
from constrained_nn.operators.fourier import SpectralConv, SpectralScaling, to_grid, to_modes


class TransportOperator(nn.Module):
    """Residual operator with products of known linear maps of a field, on a periodic grid of two directions.

    `h₀ = C w`, `f_l = (h_l, ∂ Z_l h_l)`, `p_l = M_l (A_l f_l ∘ B_l f_l)`, `h_{l+1} = h_l + scale p_l`,
    `G(w) = T Σ_l D_l p_l + R w`, with matrices `A, B, C, D, M, Z` at each point, the five maps
    `∂ = (∂x, ∂y, Δ, −∂xΔ⁻¹, −∂yΔ⁻¹)`, each of a part of the channels of `Z_l h_l`, `SpectralScaling` `T` and, of one
    channel, `SpectralConv` `R`.

    A layer can hold a stage of a Runge-Kutta method for two-dimensional Navier-Stokes equations, whose nonlinear term
    is `∂x w ∂yΔ⁻¹ w − ∂y w ∂xΔ⁻¹ w`. What is known is that velocities and gradients matter, not the equation: its
    coefficients, the force, the viscosity and the step are learned. With few weights, it learns in a tenth of the
    time of a `GatedOperator`, which learns the maps too.

    Guarantee: translation-equivariant, a polynomial of degree `2^depth`. The grid must resolve `modes`.

    Args:
        modes: Number of frequencies `0, 1, ...` that `T` and `R` scale, in each direction; others of the output are 0.
        width: Channels of the hidden fields, and of the products.
        depth: Number of layers.
        inputs: Channels of the input; the first one is the field.
        scale: Size of the change of a layer; that of an increment of the data in their standard deviations.

    Raises:
        ShapeError: The input does not have the channels.

    Example:
        >>> import torch
        >>> TransportOperator((6, 6), width=8, depth=2)(torch.zeros(3, 1, 16, 16)).shape
        torch.Size([3, 1, 16, 16])

    References:
        Chandler and Kerswell, Invariant recurrent solutions embedded in a turbulent two-dimensional Kolmogorov flow
        (2013), section 2, for the equation; He et al., Deep residual learning (2016).
    """

    maps: Tensor

    def __init__(
        self, modes: tuple[int, int], *, width: int, depth: int, inputs: int = 1, scale: float = 0.1
    ) -> None:
        super().__init__()
        self.inputs, self.scale, self.modes = inputs, scale, modes
        self.lift = nn.Conv2d(inputs, width, 1)
        self.before = nn.ModuleList(nn.Conv2d(width, 10, 1) for _ in range(depth))
        self.pairs = nn.ModuleList(nn.Conv2d(width + 10, 2 * width, 1) for _ in range(depth))
        self.mix = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(depth))
        self.drop = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in range(depth))
        self.filters = nn.ParameterList(torch.ones(10, 2 * modes[0] - 1, modes[1]) for _ in range(depth))
        # real and in float64, so that .to(dtype) changes neither the maps nor, for weights in float64, their digits
        self.register_buffer("maps", torch.view_as_real(derivatives(modes)), persistent=False)
        self.shaping = SpectralScaling(1, modes)
        self.linear = SpectralConv(inputs, 1, modes)
        with torch.no_grad():
            self.shaping.weight.copy_(torch.tensor([1.0, 0.0]))
            self.linear.weight.zero_()

    def forward(self, w: Float[Tensor, "batch inputs rows columns"]) -> Float[Tensor, "batch 1 rows columns"]:
        check_field("TransportOperator", w, self.inputs, 2)
        maps = torch.view_as_complex(self.maps.to(w.dtype))
        h, total = at_points(self.lift, w), None
        layers = zip(self.before, self.filters, self.pairs, self.mix, self.drop, strict=True)
        for before, filter, pair, mix, drop in layers:
            f = apply_symbols(at_points(before, h), maps * filter)
            a, b = at_points(pair, torch.cat([h, f], 1)).chunk(2, 1)
            p = at_points(mix, a * b)
            h = h + self.scale * p
            dropped = at_points(drop, p)
            total = dropped if total is None else total + dropped
        assert total is not None, "depth is one or more"
        return self.shaping(total) + self.linear(w)


def at_points(layer: nn.Module, w: Float[Tensor, "batch i ..."]) -> Float[Tensor, "batch o ..."]:
    """A convolution of width 1 as the product of matrices that it is: faster for few channels."""
    assert isinstance(layer, nn.Conv2d), "a module list says no more than that they are modules"
    assert layer.bias is not None
    weight = layer.weight.flatten(1).expand(len(w), -1, -1)
    return torch.baddbmm(layer.bias.unsqueeze(-1), weight, w.flatten(2)).unflatten(2, w.shape[2:])


def apply_symbols(w: Float[Tensor, "... rows columns"], symbols: Tensor) -> Float[Tensor, "... rows columns"]:
    """The field with its coefficients multiplied by `symbols` `(..., 2 modes − 1, modes)`; the others are 0."""
    modes = ((symbols.shape[-2] + 1) // 2, symbols.shape[-1])
    return to_grid(symbols * to_modes(w, modes), tuple(w.shape[-2:]))


def derivatives(modes: tuple[int, int]) -> Tensor:
    """Symbols `(10, 2 modes − 1, modes)` of `(∂x, ∂y, Δ, −∂xΔ⁻¹, −∂yΔ⁻¹)`, twice each, of size about 1 at 4 periods."""
    kx = torch.arange(2 * modes[0] - 1, dtype=torch.float64).unsqueeze(-1)
    kx = torch.where(kx < modes[0], kx, kx - (2 * modes[0] - 1))
    ky = torch.arange(modes[1], dtype=torch.float64)
    square = kx**2 + ky**2
    inverse = torch.where(square > 0, 1.0 / square.clamp_min(1.0), 0.0)
    gradient, velocity = (kx / 4.0 + 0.0 * ky, ky / 4.0 + 0.0 * kx), (2.0 * kx * inverse, 2.0 * ky * inverse)
    maps = [1j * gradient[0], 1j * gradient[1], -square / 16.0 + 0.0j, 1j * velocity[0], 1j * velocity[1]]
    return torch.stack(maps).repeat_interleave(2, 0)
