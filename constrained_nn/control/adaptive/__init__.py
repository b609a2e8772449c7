"""Adaptive control: laws, features, gains, and the controller that joins them."""

from constrained_nn.control.adaptive.controller import AdaptiveController, dtype_of
from constrained_nn.control.adaptive.features import ConstantFeature, TanhFeatures, count_features
from constrained_nn.control.adaptive.gains import PositiveDefinite, as_gain
from constrained_nn.control.adaptive.laws import (
    AdaptationLaw,
    DeadZone,
    Gradient,
    MirrorPotential,
    NoAdaptation,
    ProjectionToBall,
    SigmaModification,
)

__all__ = [
    "AdaptationLaw",
    "AdaptiveController",
    "ConstantFeature",
    "DeadZone",
    "Gradient",
    "MirrorPotential",
    "NoAdaptation",
    "PositiveDefinite",
    "ProjectionToBall",
    "SigmaModification",
    "TanhFeatures",
    "as_gain",
    "count_features",
    "dtype_of",
]
