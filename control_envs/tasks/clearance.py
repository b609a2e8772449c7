"""What a state must keep clear of while inputs are held: functions that a sampled barrier is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Array = Any


@dataclass(frozen=True)
class Clearance:
    """A function `e(x) >= 0` of the state, and how it is kept by inputs that are held.

    With one gain `(alpha,)` the barrier is `h = e`; with two `(kappa, alpha)`, where the input acts on the second
    derivative only, `h = e' + kappa e`. Along every solution with a held input within the limits

    `h'' >= −(m_0(x) + Σ_j m_j(x) u_j)`, a sum that is not negative.

    Args:
        name: Short name, such as `"wall"`.
        unit: Unit of `e`.
        value: `e`, a function `(x, xp) -> (*batch)` of any array namespace.
        curvature: `m`, a function `(x, xp) -> (*batch, 1 + inputs)`; `x` is the state where the input begins.
        gains: Decay rates [1/s].
    """

    name: str
    unit: str
    value: Callable[[Array, Any], Array]
    curvature: Callable[[Array, Any], Array]
    gains: tuple[float, ...]
