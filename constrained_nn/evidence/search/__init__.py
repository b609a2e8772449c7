"""Searches: covers by branch and bound, and counterexamples."""

from constrained_nn.evidence.search.covers import OPEN, Cover, Examination, Examiner, Report, cover, quiet
from constrained_nn.evidence.search.falsification import (
    Counterexample,
    Worst,
    barrier_margin,
    falsify,
    falsify_barrier,
    falsify_closed_loop,
    falsify_rows,
    worst_of,
)

__all__ = [
    "OPEN",
    "Counterexample",
    "Cover",
    "Examination",
    "Examiner",
    "Report",
    "Worst",
    "barrier_margin",
    "cover",
    "falsify",
    "falsify_barrier",
    "falsify_closed_loop",
    "falsify_rows",
    "quiet",
    "worst_of",
]
