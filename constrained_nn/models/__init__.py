"""Learned models with a guarantee: stable dynamics, bounded evolutions, and anchored controllers."""

from constrained_nn.models.coils import CoILS, DiscreteCoILS, StableDynamics
from constrained_nn.models.eco import ECO, Rollout

__all__ = ["ECO", "CoILS", "DiscreteCoILS", "Rollout", "StableDynamics"]
