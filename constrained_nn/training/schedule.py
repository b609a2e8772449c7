"""How long and how fast a training goes."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LearningRate:
    """A step size that stays, or falls along half a cosine.

    Args:
        first: Step size of the first step.
        last: Where it goes; default: it stays.
        over: Steps that it takes to get there.
    """

    first: float
    last: float | None = None
    over: int = 1

    def at(self, step: int) -> float:
        """The step size of a step, counted from 1."""
        if self.last is None:
            return self.first
        share = 0.5 + 0.5 * math.cos(math.pi * (step - 1) / max(1, self.over))
        return self.last + share * (self.first - self.last)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a training goes, and how often it is kept.

    Args:
        steps: Number of steps.
        rate: Step size of Adam.
        every: Steps between checkpoints and lines of the log; the last step has both.
        max_gradient_norm: Longest gradient of the mean loss; longer ones are scaled down.
    """

    steps: int
    rate: LearningRate
    every: int = 100
    max_gradient_norm: float | None = None
