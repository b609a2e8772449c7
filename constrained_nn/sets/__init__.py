"""Constraint sets: what a constraint is."""

from constrained_nn.sets._ball import Ball, Ellipsoid, L1Ball
from constrained_nn.sets._base import ConstraintSet, IntervalSet, ProjectableSet, constraint_set
from constrained_nn.sets._box import Box
from constrained_nn.sets._composite import Intersection, Product
from constrained_nn.sets._cones import PSDCone, SecondOrderCone
from constrained_nn.sets._ellipsoids import SpectralEllipsoid, WeightedEllipsoid
from constrained_nn.sets._halfspace import Halfspace
from constrained_nn.sets._lmi import LMI, LMIBlock
from constrained_nn.sets._nonlinear import NonlinearSet
from constrained_nn.sets._polyhedron import AffineSubspace, Polyhedron
from constrained_nn.sets._simplex import Simplex
from constrained_nn.sets._smooth import SmoothFunction, SmoothMap, StageJacobian, TrajectoryMap

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
    "Simplex",
    "SmoothFunction",
    "SmoothMap",
    "SpectralEllipsoid",
    "StageJacobian",
    "TrajectoryMap",
    "WeightedEllipsoid",
    "constraint_set",
]
