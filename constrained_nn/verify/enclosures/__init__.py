"""Enclosures of closed loops over boxes of states."""

from constrained_nn.verify.enclosures.held import BITS, Barrier, Slack, System, examine, is_inside, is_outside
from constrained_nn.verify.enclosures.loops import LABELS, InnerEllipsoid, Loop, positive_definite, quadratic

__all__ = [
    "BITS",
    "LABELS",
    "Barrier",
    "InnerEllipsoid",
    "Loop",
    "Slack",
    "System",
    "examine",
    "is_inside",
    "is_outside",
    "positive_definite",
    "quadratic",
]
