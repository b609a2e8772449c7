"""Closed-form maps into {y : V(y) <= level} for a quadratic V: along the ray to the center, and the published blend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.layers.contract import RTOL, AtOnce, ProjectionLayer, Verdict, detached, widen
from constrained_nn.linalg import branchless, normalize
from constrained_nn.sets import ConstraintSet, Ellipsoid, SpectralEllipsoid, WeightedEllipsoid
from constrained_nn.solvers import Solution, Status

QuadraticSet = Ellipsoid | WeightedEllipsoid | SpectralEllipsoid


class RayProjection(ProjectionLayer[QuadraticSet]):
    """Point of an ellipsoid on the ray to its center (the gauge of the set).

    `center + min(1, √(level / V(y))) (y − center)`, `V(y) = (y − center)ᵀ Q (y − center)`.

    Two reductions and one scaling, whatever the size of `y`: the map for energies in thousands of dimensions. It is
    the nearest point in the norm of `Q`, not in the Euclidean one.

    A warm start is ignored.

    Guarantee: `V <= level` to rounding, checked on the value that is returned; continuous, 1-Lipschitz in the norm
    of `Q` for a fixed level, the identity on the set, its boundary included (where the derivative is that of the
    inside). With `s = √(level / V)` and an incoming `g` outside, the derivatives are `s (g − Q d dᵀg / V)` in `y`,
    `dᵀg / (2 √(level V))` in `level` (0 for `level = 0`) and `−s dᵀg dᵢ² / (2 V)` in a weight. A negative level is
    flagged `INFEASIBLE`, with the center as value; an energy beyond the largest float scales to the center.

    Args:
        on_failure: `Raise() | Nan() | LeastViolation()`; default as in `ProjectionLayer`.
        compute_dtype: Compute in this dtype and round the result back.

    Returns:
        `forward(y, set)`: enforced decision `(*batch, n)`.

    Raises:
        SetTypeError: The set is not an ellipsoid.
        ShapeError: `y` does not fit the set.
        InfeasibleError: In eval mode, an element has a negative level.
        ConvergenceError: In eval mode, an element failed for another reason.

    Example:
        >>> import torch
        >>> from constrained_nn import WeightedEllipsoid
        >>> ellipse = WeightedEllipsoid(torch.zeros(2), torch.tensor([1.0, 4.0]), torch.tensor(4.0))
        >>> RayProjection()(torch.tensor([0.0, 3.0]), ellipse)
        tensor([0., 1.])

    References:
        ECO (arXiv 2512.01984), the projection of its section 3, here along the ray; Rockafellar, Convex Analysis
        (1970), section 15 (gauges).
    """

    accepts: ClassVar[tuple[type[ConstraintSet], ...]] = (WeightedEllipsoid, SpectralEllipsoid, Ellipsoid)
    guarantee: ClassVar[str] = "to rounding, closed form; nearest in the norm of the ellipsoid"

    def at_once(self, y: Tensor, set: QuadraticSet, factor: None) -> AtOnce:
        return AtOnce(self._map(y, set))

    def enforce(
        self, y: Float[Tensor, "*batch n"], set: QuadraticSet, factor: None, warm_start: Solution | None
    ) -> Solution:
        return _judge(self._map(y, set), set, 1.0)

    def _map(self, y: Tensor, set: QuadraticSet) -> Tensor:
        y, energy = _with_energy(y, set)
        level = set.level.clamp_min(0.0)
        inside = (energy <= level).unsqueeze(-1)
        return torch.where(inside, y, _on_the_ray(y - set.center, energy, level) + set.center)


@runtime_checkable
class Target(Protocol):
    """Point with `V <= level` towards which a blend moves."""

    def __call__(self, y: Tensor, energy: Tensor, set: QuadraticSet) -> Tensor: ...


@dataclass(frozen=True)
class Ray:
    """The point of the boundary on the ray to the center; continuous with the inside."""

    def __call__(self, y: Tensor, energy: Tensor, set: QuadraticSet) -> Tensor:
        return set.center + _on_the_ray(y - set.center, energy, set.level.clamp_min(0.0))


@dataclass(frozen=True)
class Transformed:
    """The published point `center + √level L⁻ᵀ d / |d|`, `Q = L Lᵀ`.

    Not a retraction: on the boundary it is another point than `y`, by up to the size of the ellipsoid.
    """

    def __call__(self, y: Tensor, energy: Tensor, set: QuadraticSet) -> Tensor:
        d = y - set.center
        direction, _ = normalize(d)
        if extra := set.coordinate_count - set.dim:
            direction = torch.cat([direction, direction.new_zeros(*direction.shape[:-1], extra)], -1)
        level = set.level.clamp_min(0.0)
        root = torch.where(level > 0, level, 1.0).sqrt() * (level > 0)
        return set.center + root.unsqueeze(-1) * (set.from_coordinates(direction) - set.center)


@dataclass(frozen=True)
class RelativeGate:
    """`γ = sigmoid(sharpness (1 − V / level))`, which does not depend on the unit of the energy."""

    def gate(self, energy: Tensor, level: Tensor, sharpness: float) -> Tensor:
        # from there on the sigmoid is 0 in float64, and an energy without derivative does no harm
        cap = 1.0 + 800.0 / sharpness
        below = (energy < cap * level) & (level > 0)
        ratio = torch.where(below, energy, cap) / torch.where(below, level, 1.0)
        return torch.sigmoid(sharpness * (1.0 - ratio))

    def steepness(self, level: Tensor, sharpness: float) -> Tensor:
        """`k level` of Lemma 3."""
        return torch.full_like(level, sharpness)


@dataclass(frozen=True)
class AbsoluteGate:
    """The published `γ = sigmoid(sharpness (level − V))`: a hard switch for energies of thousands."""

    def gate(self, energy: Tensor, level: Tensor, sharpness: float) -> Tensor:
        return torch.sigmoid(sharpness * (level - energy))

    def steepness(self, level: Tensor, sharpness: float) -> Tensor:
        """`k level` of Lemma 3."""
        return sharpness * level


class BlendedProjection(ProjectionLayer[QuadraticSet]):
    """Smooth blend of a point with a point of the ellipsoid (the published layer of ECO).

    `γ y + (1 − γ) ȳ`, `γ = sigmoid(k (1 − V(y) / level))` or, as published, `sigmoid(k (level − V(y)))`, where
    `V(ȳ) <= level`.

    A warm start is ignored.

    Guarantee: `V <= (1 + δ)² level`, `δ = 1 / (2 κ + 2 √(2 κ))`, `κ = k` for the relative gate and `k level` for the
    absolute one (Lemma 3), checked on the value that is returned. Smooth, but not the identity on the set: with
    `Ray()` a point of the inside moves by less than the width of the blend, with `Transformed()` by up to the size of
    the ellipsoid at its boundary. Use `RayProjection` unless the published map is meant.

    Args:
        sharpness: `k`.
        gate: `RelativeGate()` or, as published, `AbsoluteGate()`.
        target: `Ray()` or, as published, `Transformed()`.
        on_failure: `Raise() | Nan() | LeastViolation()`; default as in `ProjectionLayer`.
        compute_dtype: Compute in this dtype and round the result back.

    Returns:
        `forward(y, set)`: enforced decision `(*batch, n)`.

    Raises:
        ValueError: `sharpness` is not positive.

    Example:
        >>> import torch
        >>> from constrained_nn import WeightedEllipsoid
        >>> ellipse = WeightedEllipsoid(torch.zeros(2), torch.tensor([1.0, 4.0]), torch.tensor(4.0))
        >>> BlendedProjection()(torch.tensor([0.0, 3.0]), ellipse)
        tensor([0., 1.])

    References:
        ECO (arXiv 2512.01984), section 3 and Lemma 3.
    """

    accepts: ClassVar[tuple[type[ConstraintSet], ...]] = (WeightedEllipsoid, SpectralEllipsoid, Ellipsoid)
    guarantee: ClassVar[str] = "V <= (1 + δ)² level with δ of Lemma 3"

    def __init__(
        self,
        sharpness: float = 100.0,
        gate: RelativeGate | AbsoluteGate = RelativeGate(),
        target: Target = Ray(),
        *,
        on_failure=None,
        compute_dtype=None,
    ) -> None:
        super().__init__(on_failure=on_failure, compute_dtype=compute_dtype)
        if not sharpness > 0:
            raise ValueError(
                f"BlendedProjection: expected sharpness > 0, got {sharpness}. Larger is closer to RayProjection."
            )
        self.sharpness = sharpness
        self.gate = gate
        self.target = target
        self.tolerance = Enlarged(self.excess)

    def excess(self, level: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """`(1 + δ)²`, by which the energy may exceed the level (Lemma 3)."""
        kappa = self.gate.steepness(level, self.sharpness).clamp_min(0.0)
        return (1.0 + 1.0 / (2.0 * kappa + 2.0 * (2.0 * kappa).sqrt())).square()

    def at_once(self, y: Tensor, set: QuadraticSet, factor: None) -> AtOnce:
        return AtOnce(self._map(y, set))

    def enforce(
        self, y: Float[Tensor, "*batch n"], set: QuadraticSet, factor: None, warm_start: Solution | None
    ) -> Solution:
        return _judge(self._map(y, set), set, self.excess(set.level.detach()))

    def _map(self, y: Tensor, set: QuadraticSet) -> Tensor:
        y, energy = _with_energy(y, set)
        gamma = self.gate.gate(energy, set.level, self.sharpness).unsqueeze(-1)
        target = self.target(y, energy, set)
        return target + gamma * (y - target)


@dataclass(frozen=True)
class Enlarged:
    """`V <= excess(level) level`, to the tolerance of the dtype."""

    excess: Callable[[Tensor], Tensor]

    def __call__(self, value: Tensor, set: QuadraticSet) -> Verdict:
        wide, plain = widen(value, set)
        energy, level = plain.value(wide).squeeze(-1), plain.level  # pyright: ignore
        bound, violation = self.excess(level) * level.clamp_min(0.0), (energy - level).clamp_min(0.0)
        held = (energy - bound <= 0) & (level >= 0)
        if not branchless(value) and bool(held.all()):
            return Verdict(held, violation, certain=True)
        room = RTOL[value.dtype] * plain.scale(wide).squeeze(-1)
        return Verdict((energy <= bound + room) & energy.isfinite(), violation)


def _on_the_ray(d: Tensor, energy: Tensor, level: Tensor) -> Tensor:
    """`√(level / V) d`, and 0 where `V` or `level` is 0."""
    usable = (energy > 0) & (level > 0) & (energy < torch.inf)
    # an energy that divides nothing has a derivative of 0, not 0 times infinity
    radius = torch.where(usable, level, 1.0).sqrt().unsqueeze(-1)
    gauge = torch.where(usable, energy, 1.0).sqrt().unsqueeze(-1)
    return torch.where(usable.unsqueeze(-1), radius * (d / gauge), 0.0)


def _with_energy(y: Tensor, set: QuadraticSet) -> tuple[Tensor, Tensor]:
    """The point and its energy.

    A point whose energy is beyond the largest float becomes the center, which is where its ray ends to rounding: the
    derivatives of the energy are not finite there, and would spoil those of every other element in a shared `Q`.
    """
    energy = set.value(y)
    near = energy.detach().isfinite()
    if branchless(y, energy) or not bool(near.all()):
        y = torch.where(near, y, set.center)
        energy = set.value(y)
    return y, energy.squeeze(-1)


def _judge(value: Tensor, set: QuadraticSet, excess: float | Tensor) -> Solution:
    """Status and violation of what is returned."""
    rtol = 1e-9 if value.dtype == torch.float64 else 1e-4
    with torch.no_grad():
        plain = detached(set)
        energy = plain.value(value.detach()).squeeze(-1)
        bound = plain.level.clamp_min(0.0) * excess
        held = energy - bound <= rtol * bound  # not 1 + rtol, which an exporter may round to 1
        status = torch.where(held, int(Status.OK), int(Status.SINGULAR))
        status = torch.where(plain.level < 0, int(Status.INFEASIBLE), status).to(torch.int8)
        violation = (energy - plain.level).clamp_min(0.0)
    return Solution(value, status, torch.zeros_like(status, dtype=torch.int32), violation)
