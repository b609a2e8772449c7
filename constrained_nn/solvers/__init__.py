"""Numerical kernels that know no sets, and the `Solution` that they return."""

from constrained_nn.solvers.equations import (
    MatrixSolution,
    RiccatiSolution,
    solve_discrete_lyapunov,
    solve_discrete_sylvester,
    solve_lyapunov,
    solve_sylvester,
)
from constrained_nn.solvers.equations.riccati import solve_care, solve_dare
from constrained_nn.solvers.gauss_newton import ConstantDamping, Damping, GaussNewton, ResidualDamping
from constrained_nn.solvers.intersection import Term, project_intersection
from constrained_nn.solvers.lmi import LMISolution, project_lmi
from constrained_nn.solvers.polyhedron import factor_polyhedron, project_polyhedron
from constrained_nn.solvers.solution import STATUS_CODES, FoundBy, PerElement, Solution, Status

__all__ = [
    "STATUS_CODES",
    "ConstantDamping",
    "Damping",
    "FoundBy",
    "GaussNewton",
    "LMISolution",
    "MatrixSolution",
    "PerElement",
    "ResidualDamping",
    "RiccatiSolution",
    "Solution",
    "Status",
    "Term",
    "factor_polyhedron",
    "project_intersection",
    "project_lmi",
    "project_polyhedron",
    "solve_care",
    "solve_dare",
    "solve_discrete_lyapunov",
    "solve_discrete_sylvester",
    "solve_lyapunov",
    "solve_sylvester",
]
