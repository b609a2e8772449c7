"""Projection onto polyhedra."""

from constrained_nn.solvers.polyhedron.nearest import factor_polyhedron, project_polyhedron
from constrained_nn.solvers.polyhedron.splitting_rows import RowFactor

__all__ = ["RowFactor", "factor_polyhedron", "project_polyhedron"]
