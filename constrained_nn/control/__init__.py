"""Controllers."""

from constrained_nn.control._adaptation import (
    AdaptationLaw,
    DeadZone,
    Gradient,
    MirrorPotential,
    NoAdaptation,
    ProjectionToBall,
    SigmaModification,
)
from constrained_nn.control._adaptive import AdaptiveController
from constrained_nn.control._anchored import AffineModel, AnchoredController, AnchoredModel
from constrained_nn.control._base import Controller, DynamicController, FunctionController, ResidualController
from constrained_nn.control._cascade import CascadeGains, SaturatedCascade, flat_state
from constrained_nn.control._coils import CoILS, DiscreteCoILS, StableDynamics
from constrained_nn.control._features import ConstantFeature, TanhFeatures
from constrained_nn.control._gains import PositiveDefinite
from constrained_nn.control._safety_filter import SafetyFilter
from constrained_nn.control._state_dependent_lqr import (
    Factorization,
    Feedback,
    Linearization,
    MeanValue,
    NeuralFactorization,
    StateDependentLQR,
)

__all__ = [
    "AdaptationLaw",
    "AdaptiveController",
    "AffineModel",
    "AnchoredController",
    "AnchoredModel",
    "CascadeGains",
    "CoILS",
    "ConstantFeature",
    "Controller",
    "DeadZone",
    "DiscreteCoILS",
    "DynamicController",
    "Factorization",
    "Feedback",
    "FunctionController",
    "Gradient",
    "Linearization",
    "MeanValue",
    "MirrorPotential",
    "NeuralFactorization",
    "NoAdaptation",
    "PositiveDefinite",
    "ProjectionToBall",
    "ResidualController",
    "SafetyFilter",
    "SaturatedCascade",
    "SigmaModification",
    "StableDynamics",
    "StateDependentLQR",
    "TanhFeatures",
    "flat_state",
]
