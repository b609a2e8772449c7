"""Layers that enforce a set."""

from constrained_nn.layers.completion import Completion
from constrained_nn.layers.constrained import Constrained, Report, Returns, Value
from constrained_nn.layers.contract import FailurePolicy, LeastViolation, Nan, ProjectionLayer, Raise
from constrained_nn.layers.energy import (
    AbsoluteGate,
    BlendedProjection,
    QuadraticSet,
    Ray,
    RayProjection,
    RelativeGate,
    Transformed,
)
from constrained_nn.layers.fixed import Fixed
from constrained_nn.layers.hardnet import (
    Adjoint,
    Euclidean,
    HardNetAffine,
    HardNetPlusPlus,
    Implicit,
    Metric,
    Parallel,
    Retraced,
    Taped,
)
from constrained_nn.layers.lmi import KKT, FixedPoint, LMIAdjoint, LMINet, Unrolled
from constrained_nn.layers.nearest import (
    ConvexProgram,
    EuclideanProjection,
    HardNetConvex,
    NearestPoint,
    ProgramSet,
)
from constrained_nn.layers.strict_interior import StrictInterior

__all__ = [
    "KKT",
    "AbsoluteGate",
    "Adjoint",
    "BlendedProjection",
    "Completion",
    "Constrained",
    "ConvexProgram",
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
    "QuadraticSet",
    "Raise",
    "Ray",
    "RayProjection",
    "RelativeGate",
    "Report",
    "Retraced",
    "Returns",
    "StrictInterior",
    "Taped",
    "Transformed",
    "Unrolled",
    "Value",
]
