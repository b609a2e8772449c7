"""Branch and bound: a box is bisected until every part of it is settled.

What an examiner says of a box depends on nothing but the box, so that the cover is the same however many processes
make it. A limit on time or on boxes is the one exception: what was not reached then is left open.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from constrained_nn.verify import MOST_DEPTH, middle, replace_at
from constrained_nn.verify.arithmetic import precision

OPEN = "?"
Report = Callable[[float, int, int], None]  # share of the domain that is settled, boxes, open boxes
Ends = tuple[float, ...]
_PIECES = 8  # a process, so that one that is done early has something left to do


@dataclass(frozen=True, slots=True)
class Examination:
    """What an examiner says of a box.

    Args:
        label: Of the leaf, if the box is settled; `OPEN` to give it up; None to have it divided.
        axis: Across which to divide it.
        note: What the claim keeps of this box if it becomes a leaf, settled or not.
    """

    label: str | None
    axis: int = 0
    note: Any = None


Examiner = Callable[[Sequence[float], Sequence[float]], Examination]


@dataclass(frozen=True, slots=True)
class Cover:
    """A cover of a box, or a part of one.

    Args:
        tree: As `verify` reads it.
        boxes: Number of its leaves.
        open: How many of them are not settled.
        share: Share of the box that these fill.
        notes: Of its leaves that have one, in their order.
    """

    tree: str
    boxes: int
    open: int
    share: float
    notes: tuple[Any, ...] = ()


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
    most: int = sys.maxsize,
    smallest: float = 2.0**-44,
    bits: int = 64,
    stop_when_open: bool = False,
    report: Report = quiet,
) -> Cover:
    """Bisect until every box is settled, too small, or a limit is reached; the last two are left open.

    Args:
        make: Makes the examiner from `arguments`, in every process anew; a function of a module.
        arguments: What can be sent to another process.
        lower: Lower ends of the box.
        upper: Upper ends.
        seconds: Time budget.
        jobs: Processes.
        most: Boxes after which the search ends.
        smallest: Share of the whole box below which a box is not divided.
        bits: Precision of the balls.
        stop_when_open: End at the first box that stays open: for a claim that needs all of them.
        report: Called now and then with the share that is done, the number of boxes, and that of open ones.
    """
    deadline = time.monotonic() + seconds
    limits = _Limits(most, smallest, bits, stop_when_open)
    root = _Piece(tuple(lower), tuple(upper), 1.0)
    search = _Search(make(*arguments), limits, lambda: time.monotonic() > deadline)
    if jobs == 1:
        return search.settle(root, report)
    parts, pieces = search.divide(root, _PIECES * jobs)
    if search.ended:
        parts |= {piece.path: search.settle(piece, quiet) for piece in pieces}
    elif pieces:
        _settle_elsewhere(parts, pieces, (make, arguments, limits), jobs, deadline, report)
    # a path is a prefix of those below it, and 0 comes before 1: sorted, they are in preorder
    return _join(parts[path] for path in sorted(parts))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A box that is still to be settled, its share of the whole, and how it came about: 0 lower half, 1 upper."""

    lower: Ends
    upper: Ends
    share: float
    path: str = ""

    def halve(self, axis: int) -> tuple[_Piece, _Piece] | None:
        """Both halves, the lower one first; None where no double lies between the ends."""
        cut = middle(self.lower[axis], self.upper[axis])
        if not self.lower[axis] < cut < self.upper[axis]:
            return None
        return (
            _Piece(self.lower, replace_at(self.upper, axis, cut), 0.5 * self.share, self.path + "0"),
            _Piece(replace_at(self.lower, axis, cut), self.upper, 0.5 * self.share, self.path + "1"),
        )


@dataclass(frozen=True)
class _Limits:
    most: int
    smallest: float
    bits: int
    stop_when_open: bool

    def reached(self, boxes: int, open_: int) -> bool:
        return boxes >= self.most or (self.stop_when_open and open_ > 0)


class _Search:
    """The search in one process."""

    def __init__(self, examine: Examiner, limits: _Limits, is_over: Callable[[], bool]) -> None:
        self.examine, self.limits, self.is_over = examine, limits, is_over
        self.boxes = self.open = 0
        self.ended = False

    def settle(self, piece: _Piece, report: Report) -> Cover:
        """The cover of a piece, depth first."""
        parts, stack, done = [], [piece], 1.0 - piece.share
        while stack:
            here = stack.pop()
            part, halves = self.visit(here)
            parts.append(part)
            stack += reversed(halves)
            if not halves:
                done += here.share
                if not self.boxes % 20:
                    report(done, self.boxes, self.open)
        return _join(parts)

    def divide(self, root: _Piece, count: int) -> tuple[dict[str, Cover], list[_Piece]]:
        """The same search breadth first, until `count` pieces are left: what is decided by its path, and those."""
        parts: dict[str, Cover] = {}
        pieces = deque([root])
        while pieces and len(pieces) < count and not self.ended:
            piece = pieces.popleft()
            parts[piece.path], halves = self.visit(piece)
            pieces += halves
        return parts, list(pieces)

    def visit(self, piece: _Piece) -> tuple[Cover, tuple[_Piece, ...]]:
        """A leaf; or a division and both halves, the lower one first."""
        self.ended = self.ended or self.limits.reached(self.boxes, self.open) or self.is_over()
        found = Examination(OPEN)
        if not self.ended:
            with precision(self.limits.bits):  # for one box only: other threads wait meanwhile
                found = self.examine(piece.lower, piece.upper)
        if found.label is None:
            small = piece.share < self.limits.smallest or len(piece.path) >= MOST_DEPTH - 20
            halves = None if small else piece.halve(found.axis)
            if halves is not None:
                return Cover(str(found.axis), 0, 0, 0.0), halves
        label = OPEN if found.label is None else found.label
        open_ = int(label == OPEN)
        self.boxes, self.open = self.boxes + 1, self.open + open_
        notes = () if found.note is None else (found.note,)
        return Cover(label, 1, open_, open_ * piece.share, notes), ()


def _join(parts: Iterable[Cover]) -> Cover:
    """Parts of one cover, in preorder."""
    parts = list(parts)
    return Cover(
        "".join(p.tree for p in parts),
        sum(p.boxes for p in parts),
        sum(p.open for p in parts),
        sum(p.share for p in parts),
        tuple(note for p in parts for note in p.notes),
    )


def _settle_elsewhere(
    parts: dict[str, Cover],
    pieces: list[_Piece],
    how: tuple[Callable[..., Examiner], tuple[Any, ...], _Limits],
    jobs: int,
    deadline: float,
    report: Report,
) -> None:
    """Settle pieces in processes of their own, and put what they find under their paths.

    The clock and the limits of the whole are kept here: the processes are told when to end, and then leave open what
    they have not seen. An interruption tells them, too, so that none outlives the search by more than one box.
    """
    context = get_context("spawn")
    make, arguments, limits = how
    stop = context.Event()
    with ProcessPoolExecutor(jobs, context, _prepare, (make, arguments, limits, stop)) as pool:
        try:
            waiting = {pool.submit(_settle_here, piece): piece for piece in pieces}
            share = 1.0 - sum(piece.share for piece in pieces)
            while waiting:
                left = None if stop.is_set() else max(0.0, deadline - time.monotonic())
                done, _ = wait(waiting, left, FIRST_COMPLETED)
                for future in done:
                    piece = waiting.pop(future)
                    parts[piece.path] = future.result()
                    share += piece.share
                boxes, open_ = (sum(getattr(p, n) for p in parts.values()) for n in ("boxes", "open"))
                report(share, boxes, open_)
                if not done or limits.reached(boxes, open_):
                    stop.set()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


_SEARCH: list[Callable[[], _Search]] = []  # of a process that `_settle_elsewhere` started


def _prepare(make: Callable[..., Examiner], arguments: tuple[Any, ...], limits: _Limits, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides what Ctrl-C ends
    examine = make(*arguments)
    _SEARCH[:] = [lambda: _Search(examine, limits, stop.is_set)]


def _settle_here(piece: _Piece) -> Cover:
    return _SEARCH[0]().settle(piece, quiet)
