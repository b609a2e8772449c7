"""Fourier neural operators in one and two dimensions, and the linear maps in Fourier space that they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.errors import ShapeError
from constrained_nn.operators.fields import check_field, convolution_in

Multiply = Callable[[Tensor, Tensor], Tensor]


def resample(
    w: Float[Tensor, ...], shape: tuple[int, ...], *, keep: tuple[int, ...] | None = None
) -> Float[Tensor, ...]:
    """The trigonometric interpolant of fields `(..., *grid)` on a grid `(..., *shape)`.

    Frequencies that one of the grids, or the grid `keep`, does not resolve are left out, with those at half of a grid's
    points, whose sign is unknown. Fields of which nothing is left out on the same grid are returned as they are.
    """
    grid, keep = tuple(w.shape[-len(shape) :]), shape if keep is None else keep
    if grid == tuple(shape) == tuple(keep):
        return w
    modes = tuple((min(sizes) + 1) // 2 for sizes in zip(grid, shape, keep, strict=True))
    return to_grid(to_modes(w, modes), tuple(shape))


def to_modes(w: Tensor, modes: tuple[int, ...]) -> Tensor:
    """Coefficients of the frequencies `|j| < modes`, in the order 0, 1, ..., −1; the last direction has `j >= 0`."""
    if not w.numel():  # which the library of transforms refuses
        kept = [*(2 * m - 1 for m in modes[:-1]), modes[-1]]
        return torch.complex(*2 * (w.new_zeros(*w.shape[: w.ndim - len(modes)], *kept),))
    found = torch.fft.rfft(w, norm="forward")[..., : modes[-1]]
    return found if len(modes) == 1 else _low(torch.fft.fft(found, dim=-2, norm="forward"), modes[0])


def to_grid(coefficients: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The field on a grid."""
    if not coefficients.numel():
        return coefficients.real.new_zeros(*coefficients.shape[: coefficients.ndim - len(shape)], *shape)
    if len(shape) == 2:
        modes = (coefficients.shape[-2] + 1) // 2
        gap = [*coefficients.shape[:-2], shape[0] - coefficients.shape[-2], coefficients.shape[-1]]
        parts = (coefficients[..., :modes, :], coefficients.new_zeros(gap), coefficients[..., modes:, :])
        coefficients = torch.fft.ifft(torch.cat(parts, -2), dim=-2, norm="forward")
    return torch.fft.irfft(coefficients, shape[-1], norm="forward")


def _low(coefficients: Tensor, modes: int) -> Tensor:
    """Those of the frequencies `0, 1, ..., −1` of the second last direction with `|j| < modes`."""
    count = coefficients.shape[-2]
    if count == 2 * modes - 1:
        return coefficients
    return torch.cat([coefficients[..., :modes, :], coefficients[..., count - modes + 1 :, :]], -2)


class _Spectral(nn.Module):
    """Weights on the frequencies `|j| < modes`; a coarse grid uses those that it resolves."""

    def __init__(self, weight: Tensor, modes: tuple[int, ...]) -> None:
        super().__init__()
        self.modes = tuple(modes)
        self.weight = nn.Parameter(torch.view_as_real(weight))  # real, so that .double() and optimizers work

    def _map(self, w: Tensor, multiply: Multiply) -> Tensor:
        dim = len(self.modes)
        if w.ndim < dim + 1:
            raise ShapeError(
                f"{type(self).__name__}: expected a field of {dim + 1} or more dimensions (*batch, channels, *grid), "
                f"got {tuple(w.shape)}. Add a direction for the channel."
            )
        shape = tuple(w.shape[-dim:])
        used = tuple(min(m, (n + 1) // 2) for m, n in zip(self.modes, shape, strict=True))
        weight = torch.view_as_complex(self.weight)[..., : used[-1]]
        weight = weight if dim == 1 else _low(weight, used[0])
        return to_grid(multiply(to_modes(w, used), weight), shape)


class SpectralConv(_Spectral):
    """Linear map of fields that is a matrix at each low frequency.

    `ŷ_o(j) = Σ_i W_oi(j) ŵ_i(j)` for `|j| < modes`, and 0 at other frequencies

    Guarantee: linear, translation-equivariant, and the same map of band-limited fields on every grid that resolves
    the modes.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        modes: Number of frequencies `0, 1, ...` in each direction, one or two directions.

    Raises:
        ShapeError: The input has no direction for the channel.

    Example:
        >>> import torch
        >>> SpectralConv(2, 3, (5, 5))(torch.zeros(7, 2, 16, 32)).shape
        torch.Size([7, 3, 16, 32])

    References:
        Li et al., Fourier neural operator for parametric partial differential equations (2021), eq. (4).
    """

    def __init__(self, inputs: int, outputs: int, modes: tuple[int, ...]) -> None:
        scale = 1.0 / math.sqrt(inputs)
        super().__init__(scale * torch.randn(outputs, inputs, *_table(modes), dtype=torch.complex64), modes)

    def forward(self, w: Float[Tensor, "*batch inputs ..."]) -> Float[Tensor, "*batch outputs ..."]:
        grid = "xy"[: len(self.modes)]
        return self._map(w, lambda a, b: torch.einsum(f"...i{grid},oi{grid}->...o{grid}", a, b))


class SpectralScaling(_Spectral):
    """Linear map of fields that scales each low frequency of each channel.

    `ŷ_i(j) = m_i(j) ŵ_i(j)` for `|j| < modes`, and 0 at other frequencies

    A matrix between channels costs `channels` times less beside it than in `SpectralConv`: derivatives, integrals and
    translations are of this form.

    Guarantee: as `SpectralConv`.

    Args:
        channels: Channels of the field.
        modes: Number of frequencies `0, 1, ...` in each direction, one or two directions.

    Raises:
        ShapeError: The input has no direction for the channel.

    Example:
        >>> import torch
        >>> SpectralScaling(2, (9,))(torch.zeros(7, 2, 16)).shape
        torch.Size([7, 2, 16])

    References:
        Tran et al., Factorized Fourier neural operators (2023), section 3, for other economies of the same kind.
    """

    def __init__(self, channels: int, modes: tuple[int, ...]) -> None:
        super().__init__(math.sqrt(0.5) * torch.randn(channels, *_table(modes), dtype=torch.complex64), modes)

    def forward(self, w: Float[Tensor, "*batch channels ..."]) -> Float[Tensor, "*batch channels ..."]:
        return self._map(w, torch.mul)


class FNO(nn.Module):
    """Fourier neural operator on a periodic grid of one or two directions.

    `h₀ = P w`, `h_{l+1} = σ(S_l h_l + W_l h_l)`, `G(w) = Q₂ σ(Q₁ h_L)`, with `S_l` a `SpectralConv`, the others
    matrices at each point, `σ` the Gaussian error unit; no `σ` after the last of the `depth` layers.

    Guarantee: translation-equivariant. The weights do not depend on the grid; on another grid that resolves the modes
    the output differs by the aliasing of `σ` only.

    Args:
        modes: Number of frequencies of the spectral maps in each direction, one or two directions.
        width: Channels of the hidden fields.
        depth: Number of layers.
        inputs: Channels of the input.
        outputs: Channels of the output.
        project: Channels of `Q₁`; default `2 width`.

    Raises:
        ShapeError: The input does not have the channels.

    Example:
        >>> import torch
        >>> net = FNO((12, 12), width=8, depth=2)
        >>> net(torch.zeros(3, 1, 32, 32)).shape, net(torch.zeros(3, 1, 64, 64)).shape
        (torch.Size([3, 1, 32, 32]), torch.Size([3, 1, 64, 64]))

    References:
        Li et al., Fourier neural operator for parametric partial differential equations (2021), section 4.
    """

    def __init__(
        self,
        modes: tuple[int, ...],
        *,
        width: int,
        depth: int = 4,
        inputs: int = 1,
        outputs: int = 1,
        project: int | None = None,
    ) -> None:
        super().__init__()
        convolution = convolution_in("FNO", len(modes))
        self.inputs, self.dim = inputs, len(modes)
        project = 2 * width if project is None else project
        self.lift = convolution(inputs, width, 1)
        self.spectral = nn.ModuleList(SpectralConv(width, width, modes) for _ in range(depth))
        self.local = nn.ModuleList(convolution(width, width, 1) for _ in range(depth))
        self.project = nn.Sequential(
            convolution(width, project, 1), nn.GELU(), convolution(project, outputs, 1)
        )

    def forward(self, w: Float[Tensor, "batch inputs ..."]) -> Float[Tensor, "batch outputs ..."]:
        check_field("FNO", w, self.inputs, self.dim)
        h = self.lift(w)
        last = len(self.local) - 1
        for i, (spectral, local) in enumerate(zip(self.spectral, self.local, strict=True)):
            h = spectral(h) + local(h)
            h = h if i == last else nn.functional.gelu(h)
        return self.project(h)


def _table(modes: tuple[int, ...]) -> tuple[int, ...]:
    """Number of frequencies `|j| < modes`; in the last direction only those with `j >= 0` are stored."""
    return (*(2 * m - 1 for m in modes[:-1]), modes[-1])
