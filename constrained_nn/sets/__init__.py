"""Constraint sets: what a constraint is."""

from constrained_nn.sets._base import ConstraintSet, IntervalSet, ProjectableSet, constraint_set
from constrained_nn.sets._box import Box
from constrained_nn.sets._halfspace import Halfspace
from constrained_nn.sets._polyhedron import AffineSubspace, Polyhedron

__all__ = [
    "AffineSubspace",
    "Box",
    "ConstraintSet",
    "Halfspace",
    "IntervalSet",
    "Polyhedron",
    "ProjectableSet",
    "constraint_set",
]
