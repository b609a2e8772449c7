"""Adaptive tracking of fully actuated mechanical plants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.control.adaptive.features import count_features
from constrained_nn.control.adaptive.gains import as_gain
from constrained_nn.control.adaptive.laws import AdaptationLaw, Gradient
from constrained_nn.control.base import DynamicController, check_reference
from constrained_nn.protocols import Mechanical

Gains = tuple[Tensor, Tensor, Tensor]


class AdaptiveController(DynamicController):
    """Tracking controller that estimates an unknown force as `A y(x)` and cancels it.

    `τ = H v' + C v + g − A y(x) − K s`, `B u = τ`, `A' = G s y(x)ᵀ`, with `e = q − r`, `v = r' − L e`, `s = q' − v`.

    With `ConstantFeature()` it is PID control, `τ = r'' + g − (K + L) e' − (K L + G) e − G L ∫e` for `H = I`, `C = 0`;
    with learned features it is control-oriented meta-learning.

    Guarantee: with the gradient law and a true force `A* y(x)`, `V = ½ sᵀ H s + ½ tr((A − A*)ᵀ G⁻¹ (A − A*))` has
    `V' = −sᵀ K s` in continuous time, whatever the features; with an error `δ` of the force, `s` comes down to
    `|δ| / λ_min(K)`. With a held input, or inputs changed by a layer behind it, this is not claimed.

    Args:
        plant: The prior: a fully actuated mechanical plant (`H`, `C`, `g`, `B`) without the unknown force.
        features: Module `y`, `(*batch, 2d) -> (*batch, p)`.
        L, K, G: Positive definite gains `(d, d)` [1/s, kg/s, 1]; numbers stand for multiples of the identity, modules
            such as `PositiveDefinite` are learned.
        law: How `A` changes.

    Returns:
        `forward(t, x, reference, z)`: input `(*batch, d)` and rate of the state `z` `(*batch, d p)`. Rows 0 to 2 of
        `reference` `(*batch, 3, d)` are `r, r', r''`.

    Raises:
        ShapeError: There is no reference, or one of another size.

    Example:
        >>> import torch
        >>> from control_envs.dynamics import PlanarRotorcraft
        >>> from constrained_nn.control import ConstantFeature
        >>> pid = AdaptiveController(PlanarRotorcraft(), ConstantFeature(), L=1.0, K=10.0, G=10.0)
        >>> u, z_dot = pid(0.0, torch.zeros(6).double(), torch.zeros(3, 3).double(), torch.zeros(3).double())
        >>> u
        tensor([9.8100, 0.0000, 0.0000], dtype=torch.float64)

    References:
        Richards et al., Control-oriented meta-learning (arXiv 2204.06716), the fully actuated case; Slotine and Li,
        On the adaptive control of robot manipulators (1987).
    """

    def __init__(
        self,
        plant: Mechanical,
        features: nn.Module,
        *,
        L: Tensor | float | nn.Module = 1.0,
        K: Tensor | float | nn.Module = 1.0,
        G: Tensor | float | nn.Module = 1.0,
        law: AdaptationLaw | None = None,
    ) -> None:
        super().__init__()
        self.plant, self.features = plant, features
        self.law = law or Gradient()
        self.degrees = d = plant.degrees
        dtype = dtype_of(features, L, K, G)
        self.L, self.K, self.G = (as_gain(gain, d, dtype) for gain in (L, K, G))
        self.count = count_features(features, 2 * d, dtype)
        self.state_dim = d * self.count

    def gains(self) -> Gains:
        """The matrices `L, K, G`."""
        return self.L(), self.K(), self.G()

    def forward(
        self,
        t: Any,
        x: Float[Tensor, "*batch n"],
        reference: Float[Tensor, "*batch k d"],
        z: Float[Tensor, "*batch s"],
    ) -> tuple[Float[Tensor, "*batch m"], Float[Tensor, "*batch s"]]:
        return self._respond(x, reference, z, self.gains())

    def prepared(self) -> Callable[[Any, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The same function with the gain matrices worked out once."""
        gains = self.gains()
        return lambda t, x, reference, z: self._respond(x, reference, z, gains)

    def _respond(self, x: Tensor, reference: Tensor, z: Tensor, gains: Gains) -> tuple[Tensor, Tensor]:
        L, K, G = gains
        q, velocity, v, acceleration = self._targets(x, reference, L)
        s = velocity - v
        y = self.features(x)
        Z = z.unflatten(-1, (self.degrees, self.count))
        A = self.law.estimate(Z)
        inertial = self.plant.inverse_dynamics(q, velocity, v, acceleration)
        force = inertial - (A @ y[..., None])[..., 0] - s @ K
        return self.plant.allocate(q, force), self.law.rate(Z, G, s, y).flatten(-2)

    def _targets(self, x: Tensor, reference: Tensor, L: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`q, q', v, v'`."""
        check_reference(self, reference, 3, self.degrees)
        q, velocity = x[..., : self.degrees], x[..., self.degrees :]
        r, rate, acceleration = reference[..., 0, :], reference[..., 1, :], reference[..., 2, :]
        return q, velocity, rate - (q - r) @ L, acceleration - (velocity - rate) @ L

    def advance(self, z: Tensor, rate: Tensor, next_rate: Tensor, dt: float) -> Tensor:
        """The law's discrete form."""
        shape = (self.degrees, self.count)
        Z, before, after = (a.unflatten(-1, shape) for a in (z, rate, next_rate))
        return self.law.advance(Z, before, after, self.G(), dt).flatten(-2)

    def value(
        self,
        x: Float[Tensor, "*batch n"],
        reference: Float[Tensor, "*#batch k d"],
        z: Float[Tensor, "*batch s"],
        target: Float[Tensor, "d p"],
    ) -> Float[Tensor, "*batch"]:
        """Lyapunov function for the true force `target y(x)`."""
        q, velocity, v, _ = self._targets(x, reference, self.L())
        s = (velocity - v)[..., None]
        kinetic = 0.5 * (s.mT @ self.plant.H(q) @ s)[..., 0, 0]
        return kinetic + self.law.energy(z.unflatten(-1, target.shape), target, self.G())


def dtype_of(*parts: Any) -> Any:
    """The type of the first tensor among parameters, buffers and values; float64 where there is none."""
    import torch

    for part in parts:
        if isinstance(part, nn.Module):
            part = next(iter([*part.parameters(), *part.buffers()]), None)
        if isinstance(part, Tensor):
            return part.dtype
    return torch.float64
