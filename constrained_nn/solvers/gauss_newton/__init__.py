"""Gauss-Newton steps on smooth rows, and the nearest point on them."""

from constrained_nn.solvers.gauss_newton.descent import (
    ConstantDamping,
    Damping,
    GaussNewton,
    Outcome,
    ResidualDamping,
    descend,
    reachable,
)
from constrained_nn.solvers.gauss_newton.linearized import DenseRows, Linearized, StageRows
from constrained_nn.solvers.gauss_newton.nearest import differentiable, find_nearest
from constrained_nn.solvers.gauss_newton.retrace import Retraced, at_solution, replay
from constrained_nn.solvers.gauss_newton.row_problem import into_box
from constrained_nn.solvers.gauss_newton.traced import descend_traced

__all__ = [
    "ConstantDamping",
    "Damping",
    "DenseRows",
    "GaussNewton",
    "Linearized",
    "Outcome",
    "ResidualDamping",
    "Retraced",
    "StageRows",
    "at_solution",
    "descend",
    "descend_traced",
    "differentiable",
    "find_nearest",
    "into_box",
    "reachable",
    "replay",
]
