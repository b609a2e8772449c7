"""Numerical kernels that know no sets, and the `Solution` that they return."""

from constrained_nn.solvers._gauss_newton import ConstantDamping, Damping, GaussNewton, ResidualDamping
from constrained_nn.solvers._intersection import Term, project_intersection
from constrained_nn.solvers._lmi import LMISolution, project_lmi
from constrained_nn.solvers._lyapunov import (
    solve_discrete_lyapunov,
    solve_discrete_sylvester,
    solve_lyapunov,
    solve_sylvester,
)
from constrained_nn.solvers._matrix_solution import MatrixSolution, RiccatiSolution
from constrained_nn.solvers._polyhedron import factor_polyhedron, project_polyhedron
from constrained_nn.solvers._riccati import solve_care, solve_dare
from constrained_nn.solvers._solution import FoundBy, Solution, Status

__all__ = [
    "ConstantDamping",
    "Damping",
    "FoundBy",
    "GaussNewton",
    "LMISolution",
    "MatrixSolution",
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
