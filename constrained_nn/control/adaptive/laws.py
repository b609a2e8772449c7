"""Laws by which an adaptive controller changes its estimate `A`, each with its discrete form.

The controller's state is a matrix `Z` `(*batch, d, p)`. With error signal `s` `(*batch, d)`, features `y` `(*batch, p)`
and gain `G` `(d, d)` the gradient law is `Z' = G s yᵀ`, `A = Z`; the others change one thing about it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Matrix = Float[Tensor, "*batch d p"]
Gain = Float[Tensor, "d d"]


class AdaptationLaw(ABC):
    """The rate of `Z`, the estimate that it stands for, and the step from one sample to the next."""

    @abstractmethod
    def rate(
        self, Z: Matrix, gain: Gain, s: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch p"]
    ) -> Matrix:
        """`dZ/dt`."""

    def estimate(self, Z: Matrix) -> Matrix:
        """`A` of the state `Z`; this hook's default is `Z` itself."""
        return Z

    def advance(self, Z: Matrix, rate: Matrix, next_rate: Matrix, gain: Gain, dt: float) -> Matrix:
        """`Z` one sample later, `next_rate` being that at `Z + dt rate`; this hook's default is the trapezoid rule."""
        return Z + (0.5 * dt) * (rate + next_rate)

    def energy(self, Z: Matrix, target: Float[Tensor, "*#batch d p"], gain: Gain) -> Float[Tensor, "*batch"]:
        """The estimate's part of the Lyapunov function: `½ tr((A − target)ᵀ G⁻¹ (A − target))` by default (a hook)."""
        error = Z - target
        return 0.5 * (error * torch.linalg.solve(gain, error)).sum((-2, -1))


@dataclass(frozen=True)
class Gradient(AdaptationLaw):
    """`A' = G s yᵀ`.

    With `V = ½ sᵀ H s + energy` and a force `A* y` of the plant: `V' = −sᵀ K s`.
    """

    def rate(self, Z: Matrix, gain: Gain, s: Tensor, y: Tensor) -> Matrix:
        return (s @ gain.mT)[..., :, None] * y[..., None, :]


@dataclass(frozen=True)
class NoAdaptation(AdaptationLaw):
    """`A' = 0`: the estimate stays where it began."""

    def rate(self, Z: Matrix, gain: Gain, s: Tensor, y: Tensor) -> Matrix:
        return torch.zeros_like(Z)


@dataclass(frozen=True)
class SigmaModification(AdaptationLaw):
    """`A' = G (s yᵀ − decay A)`: the estimate leaks, so that it stays bounded under any disturbance.

    Its discrete form is the implicit trapezoid rule for the leak: no step is too long for it. `V' <= −sᵀ K s`
    holds up to `½ decay |A*|²`.

    Args:
        decay: `σ` [1/s for G = I].

    Raises:
        ValueError: `decay` is not positive.
    """

    decay: float

    def __post_init__(self) -> None:
        _positive("SigmaModification", "decay", self.decay)

    def rate(self, Z: Matrix, gain: Gain, s: Tensor, y: Tensor) -> Matrix:
        return gain @ (s[..., :, None] * y[..., None, :] - self.decay * Z)

    def advance(self, Z: Matrix, rate: Matrix, next_rate: Matrix, gain: Gain, dt: float) -> Matrix:
        half = (0.5 * dt * self.decay) * gain
        known = (0.5 * dt) * (rate + next_rate) + dt * (half @ rate)  # without the leak of the predicted step
        return Z + torch.linalg.solve(
            torch.eye(len(gain), dtype=gain.dtype, device=gain.device) + half, known
        )


@dataclass(frozen=True)
class ProjectionToBall(AdaptationLaw):
    """The gradient law, kept in `tr(AᵀA) <= radius²`: what would lead outside slides along the sphere.

    `A' = D − G A (A·D)/(A·G A)` on the sphere where `A·D > 0`, `D = G s yᵀ`; elsewhere `A' = D`. With `|A*| <= radius`,
    `V' <= −sᵀ K s` as without it. The discrete form ends each step with the nearest point of the ball.

    Args:
        radius: Largest Frobenius norm of `A`.

    Raises:
        ValueError: `radius` is not positive.
    """

    radius: float

    def __post_init__(self) -> None:
        _positive("ProjectionToBall", "radius", self.radius)

    def rate(self, Z: Matrix, gain: Gain, s: Tensor, y: Tensor) -> Matrix:
        free = Gradient().rate(Z, gain, s, y)
        outward = (Z * free).sum((-2, -1), keepdim=True)
        normal = gain @ Z
        weight = (Z * normal).sum((-2, -1), keepdim=True)
        at_limit = Z.square().sum((-2, -1), keepdim=True) >= (1.0 - 1e-9) * self.radius**2  # after rounding
        slides = at_limit & (outward > 0)
        return free - normal * torch.where(slides, outward / torch.where(slides, weight, 1.0), 0.0)

    def advance(self, Z: Matrix, rate: Matrix, next_rate: Matrix, gain: Gain, dt: float) -> Matrix:
        Z = super().advance(Z, rate, next_rate, gain, dt)
        square = Z.square().sum((-2, -1), keepdim=True)
        outside = square > self.radius**2
        return Z * torch.where(outside, self.radius / torch.where(outside, square, 1.0).sqrt(), 1.0)


@dataclass(frozen=True)
class DeadZone(AdaptationLaw):
    """`A' = G (1 − width/|s|)₊ s yᵀ`: errors of the size of the noise teach nothing.

    Continuous in `s`; `A` stands still while `|s| <= width`.

    Args:
        width: Size of the error signal below which nothing is learned [unit of `s`].

    Raises:
        ValueError: `width` is not positive.
    """

    width: float

    def __post_init__(self) -> None:
        _positive("DeadZone", "width", self.width)

    def rate(self, Z: Matrix, gain: Gain, s: Tensor, y: Tensor) -> Matrix:
        square = s.square().sum(-1, keepdim=True)
        awake = square > self.width**2
        size = torch.where(awake, square, 1.0).sqrt()
        return Gradient().rate(Z, gain, torch.where(awake, s * (1.0 - self.width / size), 0.0), y)


@dataclass(frozen=True)
class MirrorPotential(AdaptationLaw):
    """`Z' = G s yᵀ`, `A = ∇ψ*(Z)` for the potential `ψ(A) = Σ |A_ij|^p / p`.

    `A = Z (Z² + smoothing²)^((q − 2)/2)`, `1/p + 1/q = 1`; `p = 2` is the gradient law, `p` near 1 prefers few large
    entries. With `G = γ I`, the energy is the Bregman divergence of `ψ` from `A` to the target, over `γ`, up to a
    constant, and `V' = −sᵀ K s` as for the gradient law.

    Args:
        p: Exponent above 1.
        smoothing: Size of `Z` below which the map is linear; it keeps the derivative at zero finite for `p > 2`.

    Raises:
        ValueError: `p` is not above 1, or `smoothing` not positive.
    """

    p: float
    smoothing: float = 1e-3

    def __post_init__(self) -> None:
        _positive("MirrorPotential", "p − 1", self.p - 1.0)
        _positive("MirrorPotential", "smoothing", self.smoothing)

    @property
    def q(self) -> float:
        """The conjugate exponent."""
        return self.p / (self.p - 1.0)

    def rate(self, Z: Matrix, gain: Gain, s: Tensor, y: Tensor) -> Matrix:
        return Gradient().rate(Z, gain, s, y)

    def estimate(self, Z: Matrix) -> Matrix:
        return Z * (Z.square() + self.smoothing**2) ** (0.5 * self.q - 1.0)

    def energy(self, Z: Matrix, target: Tensor, gain: Gain) -> Tensor:
        dual = ((Z.square() + self.smoothing**2) ** (0.5 * self.q)).sum((-2, -1)) / self.q
        return (dual - (Z * target).sum((-2, -1))) / gain[0, 0]


def _positive(law: str, name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{law}: expected {name} > 0, got {value}. Leave the law out, or use Gradient().")
