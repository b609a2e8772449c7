"""Layers that enforce a set."""

from constrained_nn.layers._base import ProjectionLayer
from constrained_nn.layers._constrained import Constrained, Enforced, Fixed
from constrained_nn.layers._hardnet_affine import HardNetAffine
from constrained_nn.layers._policies import FailurePolicy, LeastViolation, Nan, Raise

__all__ = [
    "Constrained",
    "Enforced",
    "FailurePolicy",
    "Fixed",
    "HardNetAffine",
    "LeastViolation",
    "Nan",
    "ProjectionLayer",
    "Raise",
]
