"""Lyapunov, Sylvester and Riccati equations."""

from constrained_nn.solvers.equations.lyapunov import (
    solve_discrete_lyapunov,
    solve_discrete_sylvester,
    solve_lyapunov,
    solve_sylvester,
)
from constrained_nn.solvers.equations.solution import MatrixSolution, RiccatiSolution

__all__ = [
    "MatrixSolution",
    "RiccatiSolution",
    "solve_discrete_lyapunov",
    "solve_discrete_sylvester",
    "solve_lyapunov",
    "solve_sylvester",
]
