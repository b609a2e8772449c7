"""Energies of states: functions that decrease until a level is reached, whatever the learned dynamics."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.certificates.energy.data import check_data, fit_level, floored, log_of_positive
from constrained_nn.errors import ShapeError
from constrained_nn.linalg import rmatvec, without_autocast
from constrained_nn.sets import Ellipsoid, Halfspace, SpectralEllipsoid, WeightedEllipsoid

QuadraticSet = Ellipsoid | WeightedEllipsoid | SpectralEllipsoid


class EnergyFunction(nn.Module, ABC):
    """An energy `V(x) = dᵀ Q d`, `d = x − center`, with a level `c` that an evolution shall reach and keep.

    In discrete time `V(x⁺) <= alpha max(V(x), c)` (`next_condition`), in continuous time `∇V·dx/dt <= −rate (V − c)`
    (`condition`). `Q` is positive definite for every parameter and is never built for the structured energies. The
    formulas of `V` and `∇V` are those of the set that `sublevel` returns.

    Args:
        center: Initial center `(n,)`, learned.
        level: Initial level `c`, positive and finite.
        learn_level: Whether the level is a parameter (its logarithm).
        rate: Decay rate `[1/s]` of `condition`; the discrete condition has its own `alpha`.

    Raises:
        ValueError: `level` is not positive and finite, or `rate` is negative.
        ShapeError: `center` is not a vector.
    """

    log_level: Tensor

    def __init__(
        self, center: Tensor, *, level: float = 1.0, learn_level: bool = False, rate: float = 1.0
    ) -> None:
        super().__init__()
        name = type(self).__name__
        _check_level(name, level)
        if not rate >= 0:
            raise ValueError(
                f"{name}: expected rate >= 0 [1/s], got {rate}. V − level decays as exp(−rate t)."
            )
        if center.ndim != 1:
            raise ShapeError(
                f"{name}: expected center of shape (n,), got {tuple(center.shape)}. Flatten the state."
            )
        self.rate = rate
        self.dim = center.shape[0]
        log_level = torch.tensor(math.log(level), dtype=center.dtype, device=center.device)
        if learn_level:
            self.log_level = nn.Parameter(log_level)
        else:
            self.register_buffer("log_level", log_level)

    @abstractmethod
    def sublevel(self, level: Float[Tensor, "*batch"]) -> QuadraticSet:
        """`{x : V(x) <= level}`, in the dtype of `level`."""

    @abstractmethod
    def log_det(self) -> Float[Tensor, ""]:
        """`log det Q / n`: per dimension, so that it neither under- nor overflows."""

    @property
    def level(self) -> Float[Tensor, ""]:
        """The level `c`."""
        return self.log_level.exp()

    @torch.no_grad()
    def set_level(self, level: float) -> None:
        """Replace the level, learned or not.

        Raises:
            ValueError: `level` is not positive and finite.
        """
        _check_level(type(self).__name__, level)
        self.log_level.fill_(math.log(level))

    def log_volume(self) -> Float[Tensor, ""]:
        """`log volume {V <= c} / n`: the mean logarithm of the length of an axis, up to the constant of the ball."""
        n = self.dim
        ball = (0.5 * n * math.log(math.pi) - math.lgamma(0.5 * n + 1.0)) / n
        return 0.5 * (self.log_level - self.log_det()) + ball

    def _at(self, x: Tensor) -> QuadraticSet:
        if x.shape[-1:] != (self.dim,):  # a single component would be repeated in silence
            raise ShapeError(
                f"{type(self).__name__}: expected states of shape (*batch, {self.dim}), got {tuple(x.shape)}. Flatten "
                f"the state; the batch comes first."
            )
        return self.sublevel(self.level.to(x.dtype))

    def value(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """`V(x)`, in the dtype of `x`: pass float64 states to sum in float64."""
        return self._at(x).value(x).squeeze(-1)

    def gradient(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """`∇V(x) = 2 Q d`."""
        return self._at(x).jacobian(x).squeeze(-2)

    def value_and_gradient(
        self, x: Float[Tensor, "*batch n"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch n"]]:
        """`V(x)` and `∇V(x)`."""
        set = self._at(x)
        return set.value(x).squeeze(-1), set.jacobian(x).squeeze(-2)

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        return self.value(x)

    @without_autocast
    def condition(self, t: Any, x: Float[Tensor, "*batch n"]) -> Halfspace:
        """Velocities `dx/dt` with `∇V·dx/dt <= −rate (V − c)`. Where `∇V` is 0, so is `V`, and all are allowed."""
        value, gradient = self.value_and_gradient(x)
        return Halfspace(gradient, -self.rate * (value - self.level.to(x.dtype)))

    @without_autocast
    def next_condition(self, x: Float[Tensor, "*batch n"], *, alpha: float) -> QuadraticSet:
        """Next states `x⁺` with `V(x⁺) <= alpha max(V(x), c)`."""
        set = self._at(x)
        return replace(set, level=alpha * torch.maximum(set.value(x).squeeze(-1), set.level))

    def coordinates(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k"]:
        """Coordinates `z` of a state in which `V = |z|²`."""
        return self._at(x).coordinates(x)

    def state(self, z: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch n"]:
        """The state of coordinates `z`."""
        return self.sublevel(self.level.to(z.dtype)).from_coordinates(z)


class DiagonalEnergy(EnergyFunction):
    """Energy with one weight for each component of the state.

    `V(x) = Σᵢ qᵢ (xᵢ − centerᵢ)²`, `q = exp(log_weights)`.

    Guarantee: positive definite for every parameter.

    Args:
        weights: Initial weights `(n,)`, positive, in energy units per squared unit of the state.
        center: Initial center `(n,)`; default 0.
        level: Initial level `c`.
        learn_level: Whether the level is a parameter.
        rate: Decay rate `[1/s]` of `condition`.

    Returns:
        `value(x)`, `gradient(x)`; `next_condition(x, alpha=...)`: the ellipsoid of next states; `condition(t, x)`: the
        half-space of velocities.

    Raises:
        ValueError: A weight is not positive.

    Example:
        >>> import torch
        >>> V = DiagonalEnergy(torch.tensor([1.0, 4.0]), level=2.0)
        >>> round(V.value(torch.tensor([1.0, 1.0])).item(), 4)
        5.0
        >>> round(V.next_condition(torch.tensor([0.0, 0.1]), alpha=0.5).level.item(), 4)  # 0.5 max(0.04, 2)
        1.0

    References:
        ECO (arXiv 2512.01984), section 3.
    """

    def __init__(
        self,
        weights: Float[Tensor, " n"],
        *,
        center: Float[Tensor, " n"] | None = None,
        level: float = 1.0,
        learn_level: bool = False,
        rate: float = 1.0,
    ) -> None:
        center = torch.zeros_like(weights) if center is None else center
        super().__init__(center, level=level, learn_level=learn_level, rate=rate)
        self.log_weights = nn.Parameter(log_of_positive("DiagonalEnergy", "weights", weights))
        self.center = nn.Parameter(center.detach().clone())

    def sublevel(self, level: Float[Tensor, "*batch"]) -> WeightedEllipsoid:
        return WeightedEllipsoid(self.center.to(level.dtype), self.log_weights.exp().to(level.dtype), level)

    def log_det(self) -> Float[Tensor, ""]:
        return self.log_weights.mean()

    @classmethod
    def from_data(
        cls, states: Float[Tensor, "count n"], *, quantile: float = 1.0, headroom: float = 1.1, **options: Any
    ) -> DiagonalEnergy:
        """Center at the mean, weights `1 / variance / n`; level the quantile of `V` times `headroom`."""
        check_data(cls.__name__, states)
        variance = floored(states.var(0, correction=0))
        energy = cls(1.0 / (variance * states.shape[-1]), center=states.mean(0), **options)
        return fit_level(energy, states, quantile, headroom)


class DenseEnergy(EnergyFunction):
    """Energy with a full matrix, for states of few dimensions.

    `V(x) = |Lᵀ (x − center)|²`, `Q = L Lᵀ`, `L` lower triangular with diagonal `exp(log_diagonal)`.

    Guarantee: positive definite for every parameter.

    Args:
        Q: Initial matrix `(n, n)`, symmetric positive definite.
        center: Initial center `(n,)`; default 0.
        level: Initial level `c`.
        learn_level: Whether the level is a parameter.
        rate: Decay rate `[1/s]` of `condition`.

    Returns:
        As `DiagonalEnergy`.

    Raises:
        ValueError: `Q` is not symmetric and positive definite.
        ShapeError: `Q` is not square.

    Example:
        >>> import torch
        >>> V = DenseEnergy(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
        >>> round(V.value(torch.tensor([1.0, 1.0])).item(), 4), round(2 * V.log_det().exp().log().item(), 4)
        (6.0, 1.0986)

    References:
        ECO (arXiv 2512.01984), section 3.
    """

    def __init__(
        self,
        Q: Float[Tensor, "n n"],
        *,
        center: Float[Tensor, " n"] | None = None,
        level: float = 1.0,
        learn_level: bool = False,
        rate: float = 1.0,
    ) -> None:
        if Q.ndim != 2 or Q.shape[0] != Q.shape[1]:
            raise ShapeError(
                f"DenseEnergy: expected Q of shape (n, n), got {tuple(Q.shape)}. For a diagonal take DiagonalEnergy."
            )
        uneven = float((Q - Q.mT).detach().abs().max())
        if uneven > 1e-4 * float(Q.detach().abs().max()):
            raise ValueError(
                f"DenseEnergy: expected Q symmetric, got entries that differ by {uneven:.3g} from their mirror image. "
                f"Half of them would not count; pass 0.5 * (Q + Q.mT)."
            )
        center = torch.zeros_like(Q[0]) if center is None else center
        super().__init__(center, level=level, learn_level=learn_level, rate=rate)
        factor, info = torch.linalg.cholesky_ex(Q.detach())
        if int(info):
            least = torch.linalg.eigvalsh(Q.detach()).min().item()
            raise ValueError(
                f"DenseEnergy: expected Q positive definite, got an eigenvalue {least:.3g}. Add to its diagonal."
            )
        self.log_diagonal = nn.Parameter(factor.diagonal().log())
        self.below = nn.Parameter(factor.tril(-1))  # only the part below the diagonal counts
        self.center = nn.Parameter(center.detach().clone())

    def factor(self) -> Float[Tensor, "n n"]:
        """`L`."""
        return self.below.tril(-1) + torch.diag_embed(self.log_diagonal.exp())

    def sublevel(self, level: Float[Tensor, "*batch"]) -> Ellipsoid:
        L = self.factor().to(level.dtype)
        return Ellipsoid(self.center.to(level.dtype), L @ L.mT, level)

    def log_det(self) -> Float[Tensor, ""]:
        return 2.0 * self.log_diagonal.mean()

    @classmethod
    def from_data(
        cls, states: Float[Tensor, "count n"], *, quantile: float = 1.0, headroom: float = 1.1, **options: Any
    ) -> DenseEnergy:
        """Center at the mean, matrix the inverse of the covariance over `n` (floored); level as in `DiagonalEnergy`."""
        check_data(cls.__name__, states)
        n = states.shape[-1]
        d = states - states.mean(0)
        values, vectors = torch.linalg.eigh(d.mT @ d / len(states))
        Q = (vectors / (floored(values) * n)) @ vectors.mT
        return fit_level(cls(0.5 * (Q + Q.mT), center=states.mean(0), **options), states, quantile, headroom)


class LowRankEnergy(EnergyFunction):
    """Energy with one weight for each component and a factor of low rank.

    `V(x) = Σᵢ qᵢ dᵢ² + |factorᵀ d|²`, `d = x − center`, `q = exp(log_weights)`.

    Guarantee: positive definite for every parameter. The cost is linear in `n`; the determinant and the inverse use
    the small matrix `I + factorᵀ diag(1/q) factor` only.

    Args:
        weights: Initial weights `(n,)`, positive.
        factor: Initial factor `(n, r)`.
        center: Initial center `(n,)`; default 0.
        level: Initial level `c`.
        learn_level: Whether the level is a parameter.
        rate: Decay rate `[1/s]` of `condition`.

    Returns:
        As `DiagonalEnergy`.

    Raises:
        ValueError: A weight is not positive.

    Example:
        >>> import torch
        >>> V = LowRankEnergy(torch.ones(2), torch.tensor([[1.0], [1.0]]))
        >>> round(V.value(torch.tensor([1.0, 1.0])).item(), 4), round(2 * V.log_det().item(), 4)
        (6.0, 1.0986)

    References:
        Golub, Van Loan, Matrix Computations (2013), section 2.1.4 (Sherman, Morrison and Woodbury).
    """

    def __init__(
        self,
        weights: Float[Tensor, " n"],
        factor: Float[Tensor, "n r"],
        *,
        center: Float[Tensor, " n"] | None = None,
        level: float = 1.0,
        learn_level: bool = False,
        rate: float = 1.0,
    ) -> None:
        center = torch.zeros_like(weights) if center is None else center
        super().__init__(center, level=level, learn_level=learn_level, rate=rate)
        self.log_weights = nn.Parameter(log_of_positive("LowRankEnergy", "weights", weights))
        self.factor = nn.Parameter(factor.detach().clone())
        self.center = nn.Parameter(center.detach().clone())

    def sublevel(self, level: Float[Tensor, "*batch"]) -> WeightedEllipsoid:
        dtype = level.dtype
        return WeightedEllipsoid(
            self.center.to(dtype), self.log_weights.exp().to(dtype), level, self.factor.to(dtype)
        )

    def log_det(self) -> Float[Tensor, ""]:
        scaled = (-0.5 * self.log_weights).exp().unsqueeze(-1) * self.factor
        eye = torch.eye(scaled.shape[-1], dtype=scaled.dtype, device=scaled.device)
        small = torch.linalg.cholesky_ex(eye + rmatvec(scaled, scaled.mT).mT).L
        return self.log_weights.mean() + 2.0 * small.diagonal().log().sum() / self.dim

    @classmethod
    def from_data(
        cls,
        states: Float[Tensor, "count n"],
        *,
        rank: int,
        quantile: float = 1.0,
        headroom: float = 1.1,
        **options: Any,
    ) -> LowRankEnergy:
        """`DiagonalEnergy`'s weights, and a factor for the `rank` directions in which standardized data vary least."""
        check_data(cls.__name__, states)
        n = states.shape[-1]
        deviation = floored(states.var(0, correction=0)).sqrt()
        z = (states - states.mean(0)) / deviation
        values, vectors = torch.linalg.eigh(z.mT @ z / len(z))
        excess = (1.0 / values[:rank].clamp_min(1e-2) - 1.0).clamp_min(0.0)
        factor = vectors[:, :rank] * excess.sqrt() / (deviation * math.sqrt(n)).unsqueeze(-1)
        energy = cls(1.0 / (deviation.square() * n), factor, center=states.mean(0), **options)
        return fit_level(energy, states, quantile, headroom)


def _check_level(name: str, level: float) -> None:
    if not 0 < level < math.inf:
        raise ValueError(
            f"{name}: expected level > 0 and finite, got {level}. It is the energy that is always allowed; of data "
            f"that do not vary it is 0."
        )
