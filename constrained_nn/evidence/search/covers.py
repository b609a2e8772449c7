"""Branch and bound: a cover of a box whose leaves are all settled, by bisection."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from constrained_nn.verify import MOST_DEPTH, middle
from constrained_nn.verify.arithmetic import precision

OPEN = "?"
Box = tuple[tuple[float, ...], tuple[float, ...]]
# what is proved of a box (a label, or None) and across which axis to divide it if nothing is
Examiner = Callable[[Sequence[float], Sequence[float]], tuple[str | None, int]]
Report = Callable[[float, int, int], None]  # share of the domain that is settled, boxes, open boxes


@dataclass(frozen=True)
class Cover:
    """A cover of a box.

    Args:
        tree: As `verify` reads it.
        boxes: Number of its leaves.
        open: How many of them are not settled.
        share: Share of the box that they fill.
    """

    tree: str
    boxes: int
    open: int
    share: float


def quiet(share: float, boxes: int, open: int) -> None:
    """Report nothing."""


def cover(
    make: Callable[..., Examiner],
    arguments: tuple[Any, ...],
    lower: Sequence[float],
    upper: Sequence[float],
    *,
    seconds: float = 300.0,
    jobs: int = 1,
    smallest: float = 2.0**-44,
    bits: int = 64,
    report: Report = quiet,
) -> Cover:
    """Bisect until every box is settled, too small, or the time is over; the last two are left open.

    Args:
        make: Makes the examiner from `arguments`, in every process anew; a function of a module.
        arguments: What can be sent to another process.
        lower: Lower ends of the box.
        upper: Upper ends.
        seconds: Time budget.
        jobs: Processes.
        smallest: Share of the whole box below which a box is not divided.
        bits: Precision of the balls.
        report: Called now and then with the share that is settled, the number of boxes, and that of open ones.
    """
    deadline = time.monotonic() + seconds
    root = (tuple(lower), tuple(upper))
    pieces: list[tuple[Box, float]] = [(root, 1.0)]
    skeleton: list[str | int] = [0]  # characters of the tree, and the numbers of the pieces in it
    if jobs > 1:
        skeleton, pieces = _divided(root, 8 * jobs)
    found: list[tuple[str, int, int, float]] = [("", 0, 0, 0.0)] * len(pieces)

    def note(k: int, result: tuple[str, int, int, float]) -> None:
        found[k] = result
        done = [(f, share) for f, (_, share) in zip(found, pieces, strict=True) if f[0]]
        report(sum(s for _, s in done), sum(f[1] for f, _ in done), sum(f[2] for f, _ in done))

    if jobs == 1:
        for k, (box, share) in enumerate(pieces):
            note(k, _settle(make(*arguments), box, share, deadline, smallest, bits, report))
    else:
        with ProcessPoolExecutor(jobs, get_context("spawn"), _prepare, (make, arguments)) as pool:
            waiting = {
                pool.submit(_piece, box, share, deadline - time.monotonic(), smallest, bits): k
                for k, (box, share) in enumerate(pieces)
            }
            for future in as_completed(waiting):
                note(waiting[future], future.result())
    tree = "".join(part if isinstance(part, str) else found[part][0] for part in skeleton)
    return Cover(tree, sum(f[1] for f in found), sum(f[2] for f in found), sum(f[3] for f in found))


def _divided(root: Box, count: int) -> tuple[list[str | int], list[tuple[Box, float]]]:
    """Bisect all boxes in turn across every axis, until there are `count` of them."""
    nodes: list[Any] = [(root, 1.0)]
    axis = 0
    while len(nodes) < count:
        nodes = [half for node in nodes for half in _halves(*node, axis % len(root[0]))]
        axis += 1
    skeleton: list[str | int] = []
    depth = axis

    def write(level: int, first: int) -> None:
        if level == depth:
            skeleton.append(first)
            return
        skeleton.append(str(level % len(root[0])))
        write(level + 1, first)
        write(level + 1, first + 2 ** (depth - level - 1))

    write(0, 0)
    return skeleton, nodes


def _halves(box: Box, share: float, axis: int) -> list[tuple[Box, float]]:
    lower, upper = box
    cut = middle(lower[axis], upper[axis])
    low, high = list(upper), list(lower)
    low[axis] = high[axis] = cut
    return [((lower, tuple(low)), 0.5 * share), ((tuple(high), upper), 0.5 * share)]


_EXAMINER: list[Examiner] = []


def _prepare(make: Callable[..., Examiner], arguments: tuple[Any, ...]) -> None:
    _EXAMINER[:] = [make(*arguments)]


def _piece(box: Box, share: float, seconds: float, smallest: float, bits: int) -> tuple[str, int, int, float]:
    return _settle(_EXAMINER[0], box, share, time.monotonic() + seconds, smallest, bits, quiet)


def _settle(
    examine: Examiner,
    box: Box,
    share: float,
    deadline: float,
    smallest: float,
    bits: int,
    report: Report,
) -> tuple[str, int, int, float]:
    """Tree, boxes, open boxes and open share of one box."""
    tree: list[str] = []
    stack = [(box, share, 0)]
    settled, boxes, open_, open_share = 1.0 - share, 0, 0, 0.0
    while stack:
        (lower, upper), size, depth = stack.pop()
        label, axis = OPEN, 0
        if time.monotonic() <= deadline:
            with precision(bits):  # for one box only: other threads wait meanwhile
                label, axis = examine(lower, upper)
        small = size < smallest or depth >= MOST_DEPTH - 20
        if label is None and (small or not lower[axis] < middle(lower[axis], upper[axis]) < upper[axis]):
            label = OPEN
        if label is None:
            tree.append(str(axis))
            low, high = _halves((lower, upper), size, axis)
            stack += [(*high, depth + 1), (*low, depth + 1)]
            continue
        tree.append(label)
        boxes, settled = boxes + 1, settled + size
        if label == OPEN:
            open_, open_share = open_ + 1, open_share + size
        if not boxes % 100:
            report(settled, boxes, open_)
    return "".join(tree), boxes, open_, open_share
