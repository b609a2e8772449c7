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
from constrained_nn.control._base import (
    Controller,
    DynamicController,
    FunctionController,
    ResidualController,
)
from constrained_nn.control._cascade import CascadeGains, SaturatedCascade, flat_state
from constrained_nn.control._features import ConstantFeature, TanhFeatures
from constrained_nn.control._gains import PositiveDefinite
from constrained_nn.control._safety_filter import SafetyFilter

__all__ = [
    "AdaptationLaw",
    "AdaptiveController",
    "CascadeGains",
    "ConstantFeature",
    "Controller",
    "DeadZone",
    "DynamicController",
    "FunctionController",
    "Gradient",
    "MirrorPotential",
    "NoAdaptation",
    "PositiveDefinite",
    "ProjectionToBall",
    "ResidualController",
    "SafetyFilter",
    "SaturatedCascade",
    "SigmaModification",
    "TanhFeatures",
    "flat_state",
]
