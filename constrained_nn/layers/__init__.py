"""Layers that enforce a set."""

from constrained_nn.layers._adjoints import Adjoint, Implicit, Retraced, Taped
from constrained_nn.layers._base import ProjectionLayer
from constrained_nn.layers._completion import Completion
from constrained_nn.layers._constrained import Constrained, Enforced, Report, Returns, Value
from constrained_nn.layers._convex_program import ConvexProgram, ProgramSet
from constrained_nn.layers._eco import ECO, Rollout
from constrained_nn.layers._energy_projections import (
    AbsoluteGate,
    BlendedProjection,
    Ray,
    RayProjection,
    RelativeGate,
    Transformed,
)
from constrained_nn.layers._euclidean import EuclideanProjection
from constrained_nn.layers._fixed import Fixed
from constrained_nn.layers._hardnet_affine import HardNetAffine
from constrained_nn.layers._hardnet_convex import HardNetConvex
from constrained_nn.layers._hardnet_plus_plus import HardNetPlusPlus
from constrained_nn.layers._lmi_adjoints import KKT, FixedPoint, LMIAdjoint, Unrolled
from constrained_nn.layers._lmi_net import LMINet
from constrained_nn.layers._metrics import Euclidean, Metric, Parallel
from constrained_nn.layers._nearest_point import NearestPoint
from constrained_nn.layers._policies import FailurePolicy, LeastViolation, Nan, Raise
from constrained_nn.layers._strict_interior import StrictInterior

__all__ = [
    "ECO",
    "KKT",
    "AbsoluteGate",
    "Adjoint",
    "BlendedProjection",
    "Completion",
    "Constrained",
    "ConvexProgram",
    "Enforced",
    "Euclidean",
    "EuclideanProjection",
    "FailurePolicy",
    "Fixed",
    "FixedPoint",
    "HardNetAffine",
    "HardNetConvex",
    "HardNetPlusPlus",
    "Implicit",
    "LMIAdjoint",
    "LMINet",
    "LeastViolation",
    "Metric",
    "Nan",
    "NearestPoint",
    "Parallel",
    "ProgramSet",
    "ProjectionLayer",
    "Raise",
    "Ray",
    "RayProjection",
    "RelativeGate",
    "Report",
    "Retraced",
    "Returns",
    "Rollout",
    "StrictInterior",
    "Taped",
    "Transformed",
    "Unrolled",
    "Value",
]
