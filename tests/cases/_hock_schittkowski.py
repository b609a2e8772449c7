"""Constraint sets of the collection of Hock and Schittkowski, each with a point known to be feasible.

Every problem is written as there: `g(x) >= 0`, `h(x) = 0`, bounds on the variables, and the optimum of the published
objective. The optimum validates the formulas: it satisfies them to its printed digits, and rows are active there.

References:
    Hock and Schittkowski, Test Examples for Nonlinear Programming Codes (1981), problems 6 to 114.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from constrained_nn.sets import Box, Intersection, NonlinearSet, SmoothFunction

INF = float("inf")


class Problem(NamedTuple):
    """One constraint set: `rows(x)` are the inequalities `>= 0`, then the equalities `= 0`."""

    rows: Callable[[Tensor], Tensor]
    equalities: int
    inequalities: int
    lower: Tensor
    upper: Tensor
    optimum: Tensor

    def set(self, unit: float = 1.0, dtype: torch.dtype = torch.float64) -> Intersection | NonlinearSet:
        """The set, with rows in another unit: `unit · g(x) >= 0`; free variables have no bounds."""
        n, free = len(self.optimum), self.inequalities
        rows = SmoothFunction(lambda y, context: unit * self.rows(y), n)
        lower = torch.zeros(free + self.equalities, dtype=dtype)
        upper = torch.cat([torch.full_like(lower[:free], INF), torch.zeros_like(lower[free:])])
        nonlinear = NonlinearSet(rows, lower, upper)
        if not (self.lower.isfinite() | self.upper.isfinite()).any():
            return nonlinear
        return Intersection(nonlinear, Box(self.lower.to(dtype), self.upper.to(dtype)))

    def starts(self, count: int, seed: int) -> Tensor:
        """Uniform in the bounds; within ±5 where there are none, and in a width of 10 where one is missing."""
        low = torch.where(self.lower.isfinite(), self.lower, self.upper - 10.0)
        low = torch.where(low.isfinite(), low, -5.0)
        up = torch.where(self.upper.isfinite(), self.upper, low + 10.0)
        generator = torch.Generator().manual_seed(seed)
        return low + (up - low) * torch.rand(count, len(low), generator=generator, dtype=torch.float64)


PROBLEMS: dict[int, Problem] = {}


def problem(number: int, optimum: list[float], lower=-INF, upper=INF):
    """Decorator: `(x₁, …, xₙ) -> (inequalities, equalities)`, with bounds for all variables or for each."""
    n = len(optimum)
    bounds = [torch.tensor(side).double().expand(n) for side in (lower, upper)]

    def register(function: Callable[..., tuple[list, list]]) -> None:
        def rows(y: Tensor) -> Tensor:
            g, h = function(*y.unbind(-1))
            return torch.stack([*g, *h], -1)

        point = torch.tensor(optimum, dtype=torch.float64)
        g, h = function(*point.unbind(-1))
        PROBLEMS[number] = Problem(rows, len(h), len(g), *bounds, point)

    return register
