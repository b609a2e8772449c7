"""Settings that are numbers: in their range, finite, and refused with the name of the field and a remedy."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

MOST_WORKERS = 256  # threads or processes; some thousands bring the system down before they compute anything
MOST_SEED = 2**63 - 1  # what every generator takes


def require_real(
    owner: str,
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    optional: bool = False,
    remedy: str = "",
) -> None:
    """Refuse a field that is not a finite number in its range; `optional` allows None.

    Args:
        owner: What the field belongs to, for the message.
        name: Name of the field.
        value: Its value.
        least, most: Closed ends of the range.
        above, below: Open ends.
        optional: Whether None is a value.
        remedy: What to do, for the message; default: give a number in the range.

    Raises:
        TypeError: It is not a number.
        ValueError: It is not finite or not in the range.
    """
    if value is None and optional:
        return
    wanted = _range(name, least, above, most, below)
    remedy = remedy or (
        "Give a finite number, or leave it out." if optional else "Give a finite number in this range."
    )
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{owner}: expected {wanted}, a finite number, got {value!r}. {remedy}")
    value = _float(value)
    inside = (
        math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    )
    if not inside:
        raise ValueError(f"{owner}: expected {wanted}, a finite number, got {value!r}. {remedy}")


def require_integer(
    owner: str, name: str, value: Any, *, least: int = 0, most: int = 2**31 - 1, optional: bool = False
) -> None:
    """Refuse a field that is not a whole number from `least` to `most`; `optional` allows None.

    Raises:
        TypeError: It is not a whole number.
        ValueError: It is not in the range.
    """
    if value is None and optional:
        return
    remedy = f"Give a whole number from {least} to {most}" + (", or leave it out." if optional else ".")
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{owner}: expected {name} to be a whole number, got {value!r}. {remedy}")
    value = int(value)
    if not least <= value <= most:
        end = f">= {least}" if value < least else f"<= {most}"
        raise ValueError(f"{owner}: expected {name} {end}, got {value}. {remedy}")


def require_widths(owner: str, name: str, value: Any) -> tuple[int, ...]:
    """The widths of hidden layers, as a tuple: whole numbers from 1 to 65536, possibly none.

    Raises:
        TypeError: It is no sequence of whole numbers.
        ValueError: A width is out of range.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(
            f"{owner}: expected {name} as a sequence of widths, got {value!r}. Give such as (200, 200)."
        )
    for width in value:
        require_integer(owner, f"every width of {name}", width, least=1, most=65536)
    return tuple(int(width) for width in value)


def _range(
    name: str, least: float | None, above: float | None, most: float | None, below: float | None
) -> str:
    ends = ((">=", least), (">", above), ("<=", most), ("<", below))
    bounds = " and ".join(f"{sign} {end:g}" for sign, end in ends if end is not None)
    return f"{name} {bounds}" if bounds else name


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer or a fraction beyond all doubles
        return math.inf
