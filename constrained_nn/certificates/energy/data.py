"""What energies take from data, and the checks that data need."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from constrained_nn.errors import ShapeError


def log_of_positive(name: str, what: str, value: Tensor) -> Tensor:
    """Logarithm of initial weights."""
    if not ((value > 0) & value.isfinite()).all():
        worst = value.max() if (value > 0).all() else value.min()
        raise ValueError(
            f"{name}: expected {what} > 0 and finite, got {worst.item():.3g}. The energy is positive definite by its "
            f"logarithms."
        )
    return value.detach().log()


def check_data(name: str, states: Tensor) -> None:
    """Data to fit an energy to."""
    if states.ndim != 2 or not len(states) or not states.is_floating_point():
        raise ShapeError(
            f"{name}.from_data: expected states of shape (count, n) and floating dtype, got {tuple(states.shape)} and "
            f"{states.dtype}. Flatten trajectories into one direction."
        )
    if not states.isfinite().all():
        bad = int((~states.isfinite()).any(-1).sum())
        raise ValueError(
            f"{name}.from_data: expected finite states, got NaN or infinity in {bad} of {len(states)}. Leave them out."
        )


def floored(variance: Tensor, share: float = 1e-3) -> Tensor:
    """Variances that are at least a share of their mean, so that no direction is all but forbidden."""
    mean = variance.mean()
    return variance.clamp_min(share * float(mean) if mean > 0 else 1.0)


@torch.no_grad()
def fit_level(energy: Any, states: Tensor, quantile: float, headroom: float) -> Any:
    """The same energy, with the level at a quantile of `V` over the data times `headroom`."""
    if not 0 < quantile <= 1:
        raise ValueError(
            f"{type(energy).__name__}.from_data: expected quantile in (0, 1], got {quantile}. 1 covers all states."
        )
    values = energy.value(states.to(torch.float64)).flatten().sort().values
    place = min(len(values) - 1, max(0, math.ceil(quantile * len(values)) - 1))
    energy.set_level(headroom * float(values[place]))
    return energy
