"""Energies of fields on grids: translation-invariant by Fourier modes, and by a density that is a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.certificates.energy.data import check_data, fit_level, floored, log_of_positive
from constrained_nn.certificates.energy.functions import EnergyFunction
from constrained_nn.errors import ShapeError
from constrained_nn.linalg import even_spectrum, multiplicity
from constrained_nn.sets import SpectralEllipsoid, WeightedEllipsoid


class FourierEnergy(EnergyFunction):
    """Energy of a periodic field with one weight for each wave number.

    `V(x) = Σ_k q_k |d̂_k|²`, `d = x − mean`, `Σ_k |d̂_k|² = |d|²`, `q = exp(log_spectrum)`.

    Guarantee: positive definite for every parameter, and the same for a translated field (the center is one number).
    The cost is that of a few fast Fourier transforms.

    Args:
        spectrum: Initial weights `(columns // 2 + 1,)`, or `(rows, columns // 2 + 1)` for two dimensions, positive,
            laid out as `torch.fft.rfft` and `rfft2`.
        points: Points of the grid: `n` or `(n,)`, or `(rows, columns)`. The state is the field row by row.
        mean: Initial value of the center everywhere.
        level: Initial level `c`.
        learn_level: Whether the level is a parameter.
        rate: Decay rate `[1/s]` of `condition`.

    Returns:
        As `DiagonalEnergy`.

    Raises:
        ValueError: A weight is not positive.
        ShapeError: The spectrum is not that of the grid.

    Example:
        >>> import torch
        >>> V = FourierEnergy(torch.tensor([1.0, 2.0, 3.0]), points=4)
        >>> x = torch.tensor([1.0, 0.0, 2.0, -1.0])
        >>> bool((V.value(x) - V.value(x.roll(1))).abs() < 1e-5)
        True

    References:
        ECO (arXiv 2512.01984), section 3, here diagonal in another basis; Trefethen, Spectral Methods in MATLAB (2000).
    """

    def __init__(
        self,
        spectrum: Float[Tensor, "*rows half"],
        points: int | Sequence[int],
        *,
        mean: float = 0.0,
        level: float = 1.0,
        learn_level: bool = False,
        rate: float = 1.0,
    ) -> None:
        rows, columns = _grid(points)
        super().__init__(spectrum.new_zeros(rows * columns), level=level, learn_level=learn_level, rate=rate)
        if spectrum.numel() != rows * (columns // 2 + 1) or spectrum.shape[-1] != columns // 2 + 1:
            raise ShapeError(
                f"FourierEnergy: expected spectrum of shape ({rows}, {columns // 2 + 1}) for a grid of {rows} x "
                f"{columns} points, got {tuple(spectrum.shape)}. It is laid out as torch.fft.rfft2."
            )
        self.grid = (rows, columns)
        log_spectrum = log_of_positive("FourierEnergy", "spectrum", spectrum)
        self.log_spectrum = nn.Parameter(log_spectrum.reshape(rows, -1))
        self.mean = nn.Parameter(torch.as_tensor(mean, dtype=spectrum.dtype, device=spectrum.device).clone())

    def sublevel(self, level: Float[Tensor, "*batch"]) -> SpectralEllipsoid:
        center = self.mean.to(level.dtype).expand(self.dim)
        return SpectralEllipsoid(center, self.log_spectrum.exp().to(level.dtype), level)

    def log_det(self) -> Float[Tensor, ""]:
        weights = even_spectrum(self.log_spectrum.exp(), self.grid[1])
        return (multiplicity(self.grid[1], weights) * weights.log()).sum() / self.dim

    @classmethod
    def from_data(
        cls,
        states: Float[Tensor, "count n"],
        points: int | Sequence[int],
        *,
        quantile: float = 1.0,
        headroom: float = 1.1,
        floor: float = 1e-3,
        **options: Any,
    ) -> FourierEnergy:
        """Center at the overall mean, weights `1 / variance / n` of each mode, alike for `k` and `−k`.

        Variances below `floor` times their mean count as that. Where small scales hold next to nothing, a small floor
        bounds them by what they hold; the condition number of `Q` grows with it.
        """
        rows, columns = _grid(points)
        check_data(cls.__name__, states)
        mean = float(states.mean())
        modes = torch.fft.rfft2((states - mean).reshape(-1, rows, columns), norm="ortho")
        variance = floored(even_spectrum(modes.abs().square().mean(0), columns), floor)
        spectrum = 1.0 / (variance * rows * columns)
        return fit_level(cls(spectrum, points, mean=mean, **options), states, quantile, headroom)


class NeuralEnergy(EnergyFunction):
    """Energy of a field with a density and a center that are networks on the coordinates.

    `V(x) = Σᵢ q(ξᵢ) ωᵢ (x(ξᵢ) − w(ξᵢ))² ≈ ∫ q (x − w)²`, `q = exp(5 tanh(f / 5))`.

    Guarantee: positive definite for every parameter, with densities between exp(−5) and exp(5).
    The networks know coordinates only: `on` gives the energy of the same function on another grid.

    Args:
        points: Coordinates of the grid `(n, k)`.
        quadrature: Weights of the quadrature `(n,)`, positive: the volume of a cell.
        hidden: Widths of the layers of both networks.
        features: Map of the coordinates `(n, k) -> (n, m)` that the networks see, for periodic domains; default the
            identity.
        level: Initial level `c`.
        learn_level: Whether the level is a parameter.
        rate: Decay rate `[1/s]` of `condition`.

    Returns:
        As `DiagonalEnergy`.

    Raises:
        ValueError: A quadrature weight is not positive.
        ShapeError: `points` and `quadrature` do not match.

    Example:
        >>> import torch
        >>> V = NeuralEnergy(torch.linspace(0, 1, 8).unsqueeze(-1), torch.full((8,), 1 / 8))
        >>> round(V.value(torch.ones(8)).item(), 4)  # the density starts at 1, the center at 0
        1.0

    References:
        ECO (arXiv 2512.01984), section 3, the form in function space.
    """

    points: Tensor
    log_quadrature: Tensor

    def __init__(
        self,
        points: Float[Tensor, "n k"],
        quadrature: Float[Tensor, " n"],
        *,
        hidden: Sequence[int] = (64, 64),
        features: Callable[[Tensor], Tensor] | None = None,
        level: float = 1.0,
        learn_level: bool = False,
        rate: float = 1.0,
    ) -> None:
        super().__init__(quadrature.detach(), level=level, learn_level=learn_level, rate=rate)
        if points.ndim != 2 or points.shape[0] != quadrature.shape[0]:
            raise ShapeError(
                f"NeuralEnergy: expected points of shape (n, k) with n = {quadrature.shape[0]}, got "
                f"{tuple(points.shape)}. There is one weight of the quadrature for each point."
            )
        self.features = features
        self.register_buffer("points", points.detach().clone())
        self.register_buffer("log_quadrature", log_of_positive("NeuralEnergy", "quadrature", quadrature))
        width = points.shape[-1] if features is None else features(points[:1]).shape[-1]
        self.density_net = _network(width, hidden, points)
        self.center_net = _network(width, hidden, points)

    def _see(self) -> Tensor:
        return self.points if self.features is None else self.features(self.points)

    def log_weights(self) -> Float[Tensor, " n"]:
        """Logarithm of the diagonal of `Q` on the grid."""
        return 5.0 * torch.tanh(0.2 * self.density_net(self._see()).squeeze(-1)) + self.log_quadrature

    @property
    def center(self) -> Float[Tensor, " n"]:
        """The center on the grid."""
        return self.center_net(self._see()).squeeze(-1)

    def sublevel(self, level: Float[Tensor, "*batch"]) -> WeightedEllipsoid:
        return WeightedEllipsoid(self.center.to(level.dtype), self.log_weights().exp().to(level.dtype), level)

    def log_det(self) -> Float[Tensor, ""]:
        return self.log_weights().mean()

    def on(self, points: Float[Tensor, "m k"], quadrature: Float[Tensor, " m"]) -> NeuralEnergy:
        """The same energy on another grid; it shares the networks and the level."""
        other = NeuralEnergy(points, quadrature, hidden=(1,), features=self.features, rate=self.rate)
        other.density_net, other.center_net = self.density_net, self.center_net
        other.log_level = self.log_level  # a parameter takes the place of the buffer
        return other

    @classmethod
    def from_data(
        cls,
        states: Float[Tensor, "count n"],
        points: Float[Tensor, "n k"],
        quadrature: Float[Tensor, " n"],
        *,
        quantile: float = 1.0,
        headroom: float = 1.1,
        **options: Any,
    ) -> NeuralEnergy:
        """Last layers fitted by ridge regression: center to the mean, density to `mean variance / variance`."""
        check_data(cls.__name__, states)
        energy = cls(points, quadrature, **options)
        variance = floored(states.var(0, correction=0))
        density = (variance.mean() / variance).log().clamp(-4.0, 4.0)
        _fit_last(energy.center_net, energy._see(), states.mean(0))
        _fit_last(energy.density_net, energy._see(), 5.0 * torch.atanh(density / 5.0))
        return fit_level(energy, states, quantile, headroom)


def _grid(points: int | Sequence[int]) -> tuple[int, int]:
    """Rows and columns; one dimension is one row."""
    sizes = (points,) if isinstance(points, int) else tuple(points)
    if len(sizes) not in (1, 2):
        raise ShapeError(
            f"FourierEnergy: expected points of one or two directions, got {sizes}. Other grids have no transform here."
        )
    return (1, *sizes)[-2:]  # pyright: ignore[reportReturnType]


def _network(width: int, hidden: Sequence[int], like: Tensor) -> nn.Sequential:
    """A network whose output starts at 0."""
    sizes = [width, *hidden]
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.SiLU()]
    last = nn.Linear(sizes[-1], 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last).to(dtype=like.dtype, device=like.device)


@torch.no_grad()
def _fit_last(network: nn.Sequential, seen: Tensor, target: Tensor, ridge: float = 1e-6) -> None:
    """Least squares for the last layer of a network on fixed features."""
    features = network[:-1](seen).double()
    features = torch.cat([features, torch.ones_like(features[:, :1])], -1)
    eye = torch.eye(features.shape[-1], dtype=features.dtype, device=features.device)
    gram = features.mT @ features / len(features) + ridge * eye
    found = torch.linalg.solve(gram, features.mT @ target.double() / len(features))
    last = network[-1]
    assert isinstance(last, nn.Linear)
    last.weight.copy_(found[:-1].unsqueeze(0))
    last.bias.copy_(found[-1:])
