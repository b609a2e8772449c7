"""Ellipsoids in high dimension, whose matrix is never built."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import ShapeError
from constrained_nn.linalg import even_spectrum, from_modes, matvec, project_weighted, rmatvec, to_modes
from constrained_nn.sets.base import (
    CenteredSet,
    are_tensors,
    check_batch,
    check_match,
    check_point,
    constraint_set,
)

_ADVICE = "Give it one entry for each component of y."


@constraint_set
class WeightedEllipsoid(CenteredSet):
    """Ellipsoid with a diagonal matrix, or a diagonal matrix and one of low rank.

    `{y : Σ weightsᵢ dᵢ² + |factorᵀ d|² <= level}`, `d = y − center`.

    Guarantee: `project` solves the secular equation of its multiplier to rounding, at a cost linear in `n`. On the
    boundary its derivative is the identity (that of the inside). A negative level is the empty set.

    Args:
        center: Center `(*batch, n)`, in the unit of `y`.
        weights: Diagonal `(*batch, n)`, not negative, in level units per squared unit of `y`.
        level: Level `(*batch)`.
        factor: Factor of low rank `(*batch, n, r)`; `None` for none.

    Raises:
        ShapeError: `center`, `weights` and `factor` do not have the same size, or dtype, device or batch shapes do
            not match.

    Example:
        >>> import torch
        >>> ellipse = WeightedEllipsoid(torch.zeros(2), torch.tensor([1.0, 4.0]), torch.tensor(4.0))
        >>> ellipse.project(torch.tensor([0.0, 3.0]))
        tensor([0., 1.])

    References:
        Boyd and Vandenberghe, Convex Optimization (2004), exercise 4.22 (secular equation); appendix C.4.3 (inverse
        of a diagonal matrix plus one of low rank).
    """

    center: Float[Tensor, "*#batch n"]
    weights: Float[Tensor, "*#batch n"]
    level: Float[Tensor, "*#batch"]
    factor: Float[Tensor, "*#batch n r"] = None  # pyright: ignore[reportAssignmentType]

    def __post_init__(self) -> None:
        if not are_tensors(self.center, self.weights, self.level):
            return
        if self.factor is None:
            object.__setattr__(self, "factor", self.weights.new_zeros(*self.weights.shape[-1:], 0))
        if not are_tensors(self.factor):
            return
        check_point("WeightedEllipsoid", "center", self.center, _ADVICE, level=self.level)
        n = self.center.shape[-1]
        if self.weights.shape[-1:] != (n,) or self.factor.ndim < 2 or self.factor.shape[-2] != n:
            raise ShapeError(
                f"WeightedEllipsoid: expected weights of shape (*batch, {n}) and factor of shape (*batch, {n}, r) for "
                f"a center with {n} components, got {tuple(self.weights.shape)} and {tuple(self.factor.shape)}. For "
                f"a dense matrix use Ellipsoid."
            )
        check_match("WeightedEllipsoid", "center", self.center, weights=self.weights, factor=self.factor)
        check_batch(
            "WeightedEllipsoid",
            center=self.center.shape[:-1],
            weights=self.weights.shape[:-1],
            factor=self.factor.shape[:-2],
            level=self.level.shape,
        )

    @property
    def upper(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.level.unsqueeze(-1)

    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1"]:
        d = y - self.center
        value = (self.weights * d.square()).sum(-1, keepdim=True)
        if self.factor.shape[-1]:
            value = value + rmatvec(self.factor, d).square().sum(-1, keepdim=True)
        return value

    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1 n"]:
        d = y - self.center
        half = self.weights * d
        if self.factor.shape[-1]:
            half = half + matvec(self.factor, rmatvec(self.factor, d))
        return 2.0 * half.unsqueeze(-2)

    def shrink(self, margin: Float[Tensor, "*#batch 1"]) -> WeightedEllipsoid:
        return replace(self, level=(self.level - margin.squeeze(-1)).clamp_min(0.0))

    def project(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        level = self.level.clamp_min(0.0)
        nearest = self.center + project_weighted(y - self.center, self.weights, self.factor, level)
        return torch.where(self.value(y) <= self.upper, y, nearest)

    def coordinates(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch k"]:
        """`z = (√weights d, factorᵀ d)`, `k = n + r`, in which `value(y) = |z|²`."""
        d = y - self.center
        z = self.weights.sqrt() * d
        return torch.cat([z, rmatvec(self.factor, d)], -1) if self.factor.shape[-1] else z

    @property
    def coordinate_count(self) -> int:
        return self.dim + self.factor.shape[-1]

    def from_coordinates(self, z: Float[Tensor, "*#batch k"]) -> Float[Tensor, "*batch n"]:
        """The inverse of `coordinates`, for positive weights; `value <= |z|²` for every `z` (with `r = 0`, equal)."""
        n, rank = self.dim, self.factor.shape[-1]
        d = z[..., :n] / self.weights.sqrt()
        if rank:  # Q⁻¹ (√weights z₁ + factor z₂), by the inverse of a diagonal plus a low rank
            scaled = self.factor / self.weights.unsqueeze(-1)
            d = d + matvec(scaled, z[..., n:])
            small = torch.linalg.cholesky_ex(
                torch.eye(rank, dtype=z.dtype, device=z.device) + self.factor.mT @ scaled
            ).L
            inner = torch.cholesky_solve(rmatvec(self.factor, d).unsqueeze(-1), small).squeeze(-1)
            d = d - matvec(scaled, inner)
        return self.center + d

    def validate(self) -> None:
        super().validate()
        if (bad := self.weights < 0).any():
            index = bad.nonzero()[0].tolist()
            raise ValueError(
                f"WeightedEllipsoid.validate: expected weights >= 0, got {self.weights[tuple(index)].item():g} at "
                f"index {index}. Build them as squares or exponentials."
            )


@constraint_set
class SpectralEllipsoid(CenteredSet):
    """Ellipsoid in a space of periodic fields, with a matrix that is diagonal in Fourier coordinates.

    `{y : Σ_k spectrum_k |d̂_k|² <= level}`, `d = y − center`, `d̂` its discrete Fourier transform, `Σ_k |d̂_k|² = |d|²`.

    The sum runs over the whole spectrum, of which `spectrum` holds the half that a real field needs: `rows ×
    (columns // 2 + 1)`, as `torch.fft.rfft2`; a grid of one dimension has one row. Where the half holds `k` and `−k`,
    their mean counts.

    Guarantee: as `WeightedEllipsoid`, at the cost of a few fast Fourier transforms.

    Args:
        center: Center `(*batch, n)`, a grid of `rows × columns` points row by row.
        spectrum: Half spectrum `(*batch, rows, columns // 2 + 1)`, not negative.
        level: Level `(*batch)`.

    Raises:
        ShapeError: `spectrum` is not that of a grid of `n` points, or dtype, device or batch shapes do not match.

    Example:
        >>> import torch
        >>> smooth = SpectralEllipsoid(torch.zeros(4), torch.tensor([[1.0, 4.0, 4.0]]), torch.tensor(1.0))
        >>> smooth.value(torch.tensor([0.5, 0.5, 0.5, 0.5])), smooth.value(torch.tensor([0.5, -0.5, 0.5, -0.5]))
        (tensor([1.]), tensor([4.]))

    References:
        Trefethen, Spectral Methods in MATLAB (2000), chapter 3.
    """

    center: Float[Tensor, "*#batch n"]
    spectrum: Float[Tensor, "*#batch rows half"]
    level: Float[Tensor, "*#batch"]

    def __post_init__(self) -> None:
        if not are_tensors(self.center, self.spectrum, self.level):
            return
        check_point("SpectralEllipsoid", "center", self.center, _ADVICE, level=self.level)
        n = self.center.shape[-1]
        rows, half = self.spectrum.shape[-2:] if self.spectrum.ndim >= 2 else (0, 0)
        if not rows or n % rows or (n // rows) // 2 + 1 != half:
            raise ShapeError(
                f"SpectralEllipsoid: expected spectrum of shape (*batch, rows, columns // 2 + 1) with rows * columns = "
                f"{n}, got {tuple(self.spectrum.shape)}. It is laid out as torch.fft.rfft2; one dimension is one row."
            )
        check_match("SpectralEllipsoid", "center", self.center, spectrum=self.spectrum)
        check_batch(
            "SpectralEllipsoid",
            center=self.center.shape[:-1],
            spectrum=self.spectrum.shape[:-2],
            level=self.level.shape,
        )

    @property
    def upper(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.level.unsqueeze(-1)

    @property
    def rows(self) -> int:
        """Rows of the grid."""
        return self.spectrum.shape[-2]

    @property
    def weights(self) -> Float[Tensor, "*batch modes"]:
        """Diagonal of the matrix in the coordinates of `to_modes`."""
        even = even_spectrum(self.spectrum, self.dim // self.rows)
        return even.unsqueeze(-1).expand(*even.shape, 2).flatten(-3)

    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1"]:
        return (self.weights * to_modes(y - self.center, self.rows).square()).sum(-1, keepdim=True)

    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1 n"]:
        slopes = 2.0 * self.weights * to_modes(y - self.center, self.rows)
        return from_modes(slopes, self.rows, self.dim).unsqueeze(-2)

    def shrink(self, margin: Float[Tensor, "*#batch 1"]) -> SpectralEllipsoid:
        return replace(self, level=(self.level - margin.squeeze(-1)).clamp_min(0.0))

    def project(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        z, weights = to_modes(y - self.center, self.rows), self.weights
        none = weights.new_zeros(weights.shape[-1], 0)
        z = project_weighted(z, weights, none, self.level.clamp_min(0.0))
        return torch.where(self.value(y) <= self.upper, y, self.center + from_modes(z, self.rows, self.dim))

    def coordinates(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        """`z = Q^{1/2} d`, in which `value(y) = |z|²`."""
        modes = self.weights.sqrt() * to_modes(y - self.center, self.rows)
        return from_modes(modes, self.rows, self.dim)

    def from_coordinates(self, z: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        """The inverse of `coordinates`, for a positive spectrum."""
        modes = to_modes(z, self.rows) / self.weights.sqrt()
        return self.center + from_modes(modes, self.rows, self.dim)

    def validate(self) -> None:
        super().validate()
        if (bad := self.spectrum < 0).any():
            index = bad.nonzero()[0].tolist()
            raise ValueError(
                f"SpectralEllipsoid.validate: expected spectrum >= 0, got {self.spectrum[tuple(index)].item():g} at "
                f"index {index}. Build it as squares or exponentials."
            )
