"""What an energy condition would forbid of the true dynamics, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.certificates.energy.functions import EnergyFunction
from constrained_nn.errors import ShapeError


@dataclass(frozen=True)
class EnergyReport:
    """How an energy fits data.

    Args:
        transitions: Number of true transitions.
        forbidden: Share of them with `V(x⁺) > alpha max(V(x), c)`: real dynamics that the model could not follow.
        worst: Largest `V(x⁺) / (alpha max(V(x), c))`.
        coverage: Share of the states with `V(x) <= c`.
        level: The level `c`.
        level_without: Smallest level at which no transition would be forbidden.
        log_volume: Logarithm of the volume of `{V <= c}` per dimension.
        log_det: Logarithm of the determinant of `Q` per dimension.
    """

    transitions: int
    forbidden: float
    worst: float
    coverage: float
    level: float
    level_without: float
    log_volume: float
    log_det: float

    def __str__(self) -> str:
        return (
            f"energy: {100 * self.forbidden:.2f} % of {self.transitions} true transitions forbidden (worst ratio "
            f"{self.worst:.4g}; none from level {self.level_without:.4g} on), {100 * self.coverage:.2f} % of the "
            f"states inside of level {self.level:.4g}; per dimension log volume {self.log_volume:.4g}, log det "
            f"{self.log_det:.4g}"
        )


@torch.no_grad()
def energy_report(
    energy: EnergyFunction,
    states: Float[Tensor, "*batch n"],
    following: Float[Tensor, "*batch n"],
    *,
    alpha: float,
) -> EnergyReport:
    """What the condition `V(x⁺) <= alpha max(V(x), c)` would do to true transitions `states -> following`.

    Computed in float64. Print it before training: an energy that forbids true transitions biases every model.

    Raises:
        ShapeError: `states` and `following` are not as many.
        ValueError: There is no transition, one is not finite, or `alpha` is not in (0, 1].
    """
    if states.shape != following.shape:
        raise ShapeError(
            f"energy_report: expected following of shape {tuple(states.shape)} like the states, got "
            f"{tuple(following.shape)}. A transition is a pair: pass x[:-1] and x[1:]."
        )
    if not 0 < alpha <= 1:
        raise ValueError(f"energy_report: expected alpha in (0, 1], got {alpha}. It is that of ECO.")
    if not states.numel() or not (states.isfinite().all() and following.isfinite().all()):
        raise ValueError(
            f"energy_report: expected one or more finite transitions, got NaN or infinity, or none, in states of shape "
            f"{tuple(states.shape)}. What was not measured is not allowed; leave such states out."
        )
    before, after = energy.value(states.double()).flatten(), energy.value(following.double()).flatten()
    level = energy.level.double()
    bound = alpha * torch.maximum(before, level)
    # a transition asks for after <= alpha c unless it already is within alpha V(x)
    needed = torch.where(after > alpha * before, after / alpha, 0.0)
    return EnergyReport(
        transitions=after.numel(),
        forbidden=float((after > bound).double().mean()),
        worst=float((after / bound).max()),
        coverage=float((before <= level).double().mean()),
        level=float(level),
        level_without=float(needed.max()),
        log_volume=float(energy.log_volume()),
        log_det=float(energy.log_det()),
    )
