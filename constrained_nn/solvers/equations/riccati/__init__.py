"""Algebraic Riccati equations."""

from constrained_nn.solvers.equations.riccati.verdict import solve_care, solve_dare

__all__ = ["solve_care", "solve_dare"]
