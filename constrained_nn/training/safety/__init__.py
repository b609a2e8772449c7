"""What a task asks of an input: the condition that is built from its constraints, and its guarantee."""

from constrained_nn.training.safety.condition import (
    Kept,
    Safety,
    barrier_of,
    count_trials,
    has_barrier,
    safety_of,
)
from constrained_nn.training.safety.describe import describe
from constrained_nn.training.safety.starts import draw_starts

__all__ = [
    "Kept",
    "Safety",
    "barrier_of",
    "count_trials",
    "describe",
    "draw_starts",
    "has_barrier",
    "safety_of",
]
