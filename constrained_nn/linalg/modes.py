"""Real fields on periodic grids of one or two dimensions in orthonormal Fourier coordinates."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def to_modes(d: Float[Tensor, "*batch n"], rows: int) -> Float[Tensor, "*batch modes"]:
    """Isometry from a field on a grid of `rows × n / rows` points to its Fourier coordinates.

    Real and imaginary parts of the half spectrum, each mode times the root of the number of times that it occurs in
    the whole one, so that `|z|² = |d|²` (Parseval). One dimension is one row.
    """
    grid = d.unflatten(-1, (rows, d.shape[-1] // rows))
    if not d.numel():  # which the library of transforms refuses
        return d.new_zeros(*d.shape[:-1], 2 * rows * (grid.shape[-1] // 2 + 1))
    modes = torch.view_as_real(torch.fft.rfft2(grid, norm="ortho"))
    return (modes * multiplicity(grid.shape[-1], d).sqrt().unsqueeze(-1)).flatten(-3)


def from_modes(z: Float[Tensor, "*batch modes"], rows: int, n: int) -> Float[Tensor, "*batch n"]:
    """The adjoint of `to_modes`, and its inverse on the coordinates of real fields."""
    columns = n // rows
    if not z.numel():
        return z.new_zeros(*z.shape[:-1], n)
    modes = z.unflatten(-1, (rows, columns // 2 + 1, 2)) / multiplicity(columns, z).sqrt().unsqueeze(-1)
    grid = torch.fft.irfft2(torch.view_as_complex(modes.contiguous()), s=(rows, columns), norm="ortho")
    return grid.flatten(-2)


def multiplicity(columns: int, like: Tensor) -> Float[Tensor, " half"]:
    """How often each column of the half spectrum of a real field occurs in the whole spectrum."""
    count = torch.full((columns // 2 + 1,), 2.0, dtype=like.dtype, device=like.device)
    paired = [0, columns // 2] if columns % 2 == 0 else [0]
    place = torch.arange(columns // 2 + 1, device=like.device)
    for k in paired:
        count = torch.where(place == k, 1.0, count)
    return count


def even_spectrum(spectrum: Float[Tensor, "*batch rows half"], columns: int) -> Tensor:
    """The spectrum with the mean of `k` and `−k` in the columns that hold both."""
    mirrored = spectrum.flip(-2).roll(1, -2)
    single = multiplicity(columns, spectrum) == 1
    return torch.where(single, 0.5 * (spectrum + mirrored), spectrum)
