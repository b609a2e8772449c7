"""Covers of a box: a binary tree of bisections, which by its shape alone leaves nothing out.

A tree is a string in preorder. A digit `k` bisects the box at hand across axis `k`, at a double between its ends, and
is followed by the trees of the lower and of the upper half; any other character is a leaf. The halves share the point
of division, so that the leaves of a complete string cover the box exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from constrained_nn.errors import FileFormatError
from constrained_nn.verify.file import decode_one, integer

MOST_AXES = 10
MOST_DEPTH = 400
SLOPPY = 1e-6  # a stated bound may be above ours by this relative amount, never below


@dataclass(frozen=True)
class Leaf:
    """A box of a cover.

    Args:
        label: Its character: what is to be proved of it.
        lower: Lower ends `(n)`.
        upper: Upper ends `(n)`.
    """

    label: str
    lower: tuple[float, ...]
    upper: tuple[float, ...]


def middle(lower: float, upper: float) -> float:
    """Where a box is bisected: the same double for whoever makes and whoever checks a cover."""
    return 0.5 * lower + 0.5 * upper


def leaves(
    tree: str, lower: Sequence[float], upper: Sequence[float], labels: str, where: str
) -> Iterator[Leaf]:
    """The leaves of a tree over the box `[lower, upper]`, in order.

    Args:
        tree: The string.
        lower: Lower ends of the box `(n)`, `n <= 10`.
        upper: Upper ends of the box `(n)`.
        labels: Characters that may stand for a leaf.
        where: The string's place in the file, for messages.

    Raises:
        FileFormatError: The string ends early or late, names an axis that is not there, divides where no double lies
            between the ends, or has a leaf with another label.
    """
    if len(lower) > MOST_AXES:
        raise FileFormatError(f"{where}: expected at most {MOST_AXES} axes, got {len(lower)}.")
    open_ = [(tuple(lower), tuple(upper), 0)]
    for position, character in enumerate(tree):
        if not open_:
            raise FileFormatError(f"{where}: the cover goes on after its end, at character {position}.")
        low, high, depth = open_.pop()
        if character in labels:
            yield Leaf(character, low, high)
            continue
        axis = ord(character) - ord("0")
        if not 0 <= axis < len(low) or depth >= MOST_DEPTH:
            raise FileFormatError(f"{where}: {character!a} at character {position} is no axis and no leaf.")
        cut = middle(low[axis], high[axis])
        if not low[axis] < cut < high[axis]:
            raise FileFormatError(f"{where}: there is no double between the ends, at character {position}.")
        open_.append((replace_at(low, axis, cut), high, depth + 1))
        open_.append((low, replace_at(high, axis, cut), depth + 1))
    if open_:
        raise FileFormatError(f"{where}: the cover ends early; {len(open_)} boxes are left out.")


def replace_at(values: Sequence[float], axis: int, value: float) -> tuple[float, ...]:
    """`values` with another one on `axis`."""
    return (*values[:axis], value, *values[axis + 1 :])


def points(leaf: Leaf) -> Iterator[tuple[float, ...]]:
    """The middle of a box, then its corners: where a set that is not empty is likely to have a point."""
    ends = list(zip(leaf.lower, leaf.upper, strict=True))
    yield tuple(middle(a, b) for a, b in ends)
    yield from itertools.product(*ends)


def describe_unproved(box: int, leaf: Leaf) -> str:
    """That box number `box` of a cover is not proved, in words."""
    return f"box {box}, from {list(leaf.lower)} to {list(leaf.upper)}, is not proved"


def describe_box(names: Sequence[str], lower: Sequence[float], upper: Sequence[float]) -> str:
    """`a <= x <= b` for every quantity `x [unit]`."""
    ends = zip(names, lower, upper, strict=True)
    return ", ".join(f"{a!r} <= {name.split()[0]} <= {b!r}" for name, a, b in ends)


def describe_point(names: Sequence[str], x: Sequence[float]) -> str:
    """`x = value` for every quantity `x [unit]`."""
    return ", ".join(f"{name.split()[0]} = {v!r}" for name, v in zip(names, x, strict=True))


def check_boxes(claim: dict[str, Any], found: int) -> None:
    """Refuses a stated number of boxes that is not that of the cover.

    Raises:
        FileFormatError: They differ.
    """
    if integer(claim["boxes"], "boxes") != found:
        raise FileFormatError(f"boxes: the claim says {claim['boxes']}, the cover has {found}.")


def check_most(claim: dict[str, Any], name: str, found: float, *, room: float = 0.0) -> None:
    """Refuses a stated maximum that is better than ours, or worse by more than `SLOPPY (|found| + room)`.

    Raises:
        FileFormatError: It is.
    """
    stated = decode_one(claim[name], name)
    if not found <= stated <= found + SLOPPY * (abs(found) + room):
        raise FileFormatError(f"{name}: the claim says {stated!r}, the data give {found!r}.")
