"""Projection onto linear matrix inequalities."""

from constrained_nn.solvers.lmi.adjoint import (
    KKTProjection,
    fixed_point,
    maps_of,
    polished,
    sensitivity,
    unrolled,
)
from constrained_nn.solvers.lmi.nearest import (
    Found,
    LMISolution,
    Settings,
    error_of,
    found_by,
    project_lmi,
    status_of,
)
from constrained_nn.solvers.lmi.problem import Eigen, Problem

__all__ = [
    "Eigen",
    "Found",
    "KKTProjection",
    "LMISolution",
    "Problem",
    "Settings",
    "error_of",
    "fixed_point",
    "found_by",
    "maps_of",
    "polished",
    "project_lmi",
    "sensitivity",
    "status_of",
    "unrolled",
]
