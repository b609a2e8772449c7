"""Controllers."""

from constrained_nn.control.adaptive import (
    AdaptationLaw,
    AdaptiveController,
    ConstantFeature,
    DeadZone,
    Gradient,
    MirrorPotential,
    NoAdaptation,
    PositiveDefinite,
    ProjectionToBall,
    SigmaModification,
    TanhFeatures,
)
from constrained_nn.control.anchored import AffineModel, AnchoredController, AnchoredModel
from constrained_nn.control.base import (
    Controller,
    DynamicController,
    FunctionController,
    ResidualController,
    SaturatedController,
)
from constrained_nn.control.cascade import CascadeGains, SaturatedCascade, flat_state
from constrained_nn.control.conflicts import Brake, ConflictRule, InOrder, rule_of
from constrained_nn.control.safety_filter import SafetyFilter
from constrained_nn.control.state_dependent_lqr import (
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
    "Brake",
    "CascadeGains",
    "ConflictRule",
    "ConstantFeature",
    "Controller",
    "DeadZone",
    "DynamicController",
    "Factorization",
    "Feedback",
    "FunctionController",
    "Gradient",
    "InOrder",
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
    "SaturatedController",
    "SigmaModification",
    "StateDependentLQR",
    "TanhFeatures",
    "flat_state",
    "rule_of",
]
