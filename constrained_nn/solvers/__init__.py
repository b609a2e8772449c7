"""Numerical kernels that know no sets, and the `Solution` that they return."""

from constrained_nn.solvers._intersection import Term, project_intersection
from constrained_nn.solvers._polyhedron import factor_polyhedron, project_polyhedron
from constrained_nn.solvers._solution import Solution, Status

__all__ = [
    "Solution",
    "Status",
    "Term",
    "factor_polyhedron",
    "project_intersection",
    "project_polyhedron",
]
