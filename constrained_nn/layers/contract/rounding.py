"""Rounding of a value into its set: numbers of 16 bits are so few that the nearest one is often outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from constrained_nn.layers.contract.audit import Tolerance, Verdict
from constrained_nn.linalg import branchless
from constrained_nn.solvers import Solution, Status

# Distances from the faces that are tried, in roundings of the value: the first is enough wherever the set is as thick.
_MARGINS = (1.01, 1.5, 3.0)


class Rounded(NamedTuple):
    """A value in the dtype in which it is returned, and what the set says of it."""

    value: Tensor
    verdict: Verdict


def round_into(
    enforce: Callable[[Any], Solution | Tensor],
    set: Any,
    tolerance: Tolerance,
    solution: Solution,
    rounded: Rounded,
) -> Rounded:
    """The value rounded into the set, where plain rounding left it.

    Rounding moves a row by at most `u scale(x)`, `u` the unit of rounding. The set is shrunk by that much for the
    elements that missed it, and enforced again. Equality rows stay as they are.

    Args:
        enforce: The layer's map from a set to a solution for the same decisions, in float64.
        set: The set in float64.
        tolerance: Judges the rounded value.
        solution: Result for the set as it is.
        rounded: Its value, rounded to nearest.
    """
    value, verdict = rounded
    dtype, info = value.dtype, torch.finfo(value.dtype)
    for roundings in _MARGINS:
        missed = ~verdict.held & (solution.status == int(Status.OK))
        if not branchless(value) and not bool(missed.any()):
            break
        with torch.no_grad():
            # the smallest normal number on top, for the absolute error of denormal results
            size = set.scale(solution.value.detach().abs() + info.tiny)
            margin = torch.where(missed.unsqueeze(-1), roundings * info.eps / 2 * size, 0.0)
        found = enforce(set.shrink(margin))
        again = (found if isinstance(found, Tensor) else found.value).to(dtype)
        with torch.no_grad():
            second = tolerance(again.detach(), set)
        better = missed & second.held
        value = torch.where(better.unsqueeze(-1), again, value)
        verdict = Verdict(verdict.held | better, torch.where(better, second.violation, verdict.violation))
    return Rounded(value, verdict)
