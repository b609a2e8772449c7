"""Constraint sets: what a constraint is."""

from constrained_nn.sets.ball import Ball, Ellipsoid, L1Ball
from constrained_nn.sets.base import (
    ConstraintSet,
    IntervalSet,
    ProjectableSet,
    SetT,
    check_batch,
    constraint_set,
    is_half,
    joined,
    map_tensors,
    named_tensors,
    take_apart,
    tensors_of,
)
from constrained_nn.sets.box import Box
from constrained_nn.sets.composite import Intersection, Product
from constrained_nn.sets.cones import PSDCone, SecondOrderCone
from constrained_nn.sets.ellipsoids import SpectralEllipsoid, WeightedEllipsoid
from constrained_nn.sets.fields import batched
from constrained_nn.sets.halfspace import Halfspace
from constrained_nn.sets.lmi import LMI, LMIBlock
from constrained_nn.sets.nonlinear import (
    NonlinearSet,
    SmoothFunction,
    SmoothMap,
    StageJacobian,
    TrajectoryMap,
)
from constrained_nn.sets.polyhedron import AffineSubspace, Polyhedron
from constrained_nn.sets.simplex import Simplex

__all__ = [
    "LMI",
    "AffineSubspace",
    "Ball",
    "Box",
    "ConstraintSet",
    "Ellipsoid",
    "Halfspace",
    "Intersection",
    "IntervalSet",
    "L1Ball",
    "LMIBlock",
    "NonlinearSet",
    "PSDCone",
    "Polyhedron",
    "Product",
    "ProjectableSet",
    "SecondOrderCone",
    "SetT",
    "Simplex",
    "SmoothFunction",
    "SmoothMap",
    "SpectralEllipsoid",
    "StageJacobian",
    "TrajectoryMap",
    "WeightedEllipsoid",
    "batched",
    "check_batch",
    "constraint_set",
    "is_half",
    "joined",
    "map_tensors",
    "named_tensors",
    "take_apart",
    "tensors_of",
]
