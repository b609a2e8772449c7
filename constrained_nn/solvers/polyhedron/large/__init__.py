"""Projection onto polyhedra of many rows, one element at a time."""

from constrained_nn.solvers.polyhedron.large.one_by_one import (
    prefer_alone_after_all,
    prefer_one_by_one,
    project_each,
)

__all__ = ["prefer_alone_after_all", "prefer_one_by_one", "project_each"]
