"""Enclosures of closed loops over boxes of states."""

from constrained_nn.verify.enclosures.held import BITS, Barrier, Box, System, examine, inside, outside
from constrained_nn.verify.enclosures.loops import LABELS, Ellipsoid, Loop, positive_definite, quadratic

__all__ = [
    "BITS",
    "LABELS",
    "Barrier",
    "Box",
    "Ellipsoid",
    "Loop",
    "System",
    "examine",
    "inside",
    "outside",
    "positive_definite",
    "quadratic",
]
