"""Which derivative `LMINet` gives its projection."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KKT:
    """Sensitivity of the optimality conditions: one `m × m` system, exact at the projection, of second order too."""


@dataclass(frozen=True)
class FixedPoint:
    """Implicit derivative of the Douglas-Rachford fixed point, for comparison; for small blocks, first order.

    Args:
        penalty: `τ` of the step that is differentiated.
    """

    penalty: float = 10.0


@dataclass(frozen=True)
class Unrolled:
    """Derivative through the last word of a truncated iteration, for comparison; grows with the number of steps.

    Args:
        steps: Douglas-Rachford steps that are differentiated.
        penalty: `τ` of these steps.
    """

    steps: int = 30
    penalty: float = 10.0


LMIAdjoint = KKT | FixedPoint | Unrolled
