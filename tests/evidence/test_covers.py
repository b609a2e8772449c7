"""The search by branch and bound: one cover, whoever makes it, and its limits."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from constrained_nn.evidence.search import OPEN, Examination, Examiner, cover, quiet
from constrained_nn.verify import leaves

UNIT = [0.0, 0.0], [1.0, 1.0]


def make(radius: float, finest: float) -> Examiner:
    """Settles boxes that are inside or outside of a disk about the origin; gives up those that are fine."""

    def examine(lower: Sequence[float], upper: Sequence[float]) -> Examination:
        if sum(v * v for v in upper) <= radius**2:
            return Examination("i", note=tuple(lower))
        if sum(v * v for v in lower) >= radius**2:
            return Examination("o")
        widths = [b - a for a, b in zip(lower, upper, strict=True)]
        return Examination(OPEN if max(widths) < finest else None, widths.index(max(widths)))

    return examine


def divide_for_ever(pause: float) -> Examiner:
    def examine(lower: Sequence[float], upper: Sequence[float]) -> Examination:
        time.sleep(pause)
        return Examination(None, int(upper[1] - lower[1] > upper[0] - lower[0]))

    return examine


def test_processes_make_the_same_cover() -> None:
    """Tree, counts, share and notes: what is proved does not depend on who looked first."""
    seen: list[float] = []
    one = cover(make, (0.7, 0.02), *UNIT, report=quiet)
    two = cover(make, (0.7, 0.02), *UNIT, jobs=2, report=lambda share, boxes, open: seen.append(share))
    assert one == two
    assert one.boxes == one.tree.count("i") + one.tree.count("o") + one.open
    assert one.open > 50
    found = list(leaves(one.tree, *UNIT, "io?", "tree"))
    assert one.notes == tuple(leaf.lower for leaf in found if leaf.label == "i")
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_search_ends_at_its_limits() -> None:
    few = cover(make, (0.7, 0.02), *UNIT, most=10)
    assert 10 <= few.boxes < 30
    assert few.share > 0.05
    first = cover(make, (0.7, 0.02), *UNIT, stop_when_open=True)
    assert "?" not in first.tree.rstrip("?")
    assert first.boxes < cover(make, (0.7, 0.02), *UNIT).boxes
    none = cover(make, (0.7, 0.02), *UNIT, seconds=-1.0)
    assert none.tree == OPEN
    for limited in (few, first, none):  # what is left out is open, not missing
        assert sum(1 for _ in leaves(limited.tree, *UNIT, "io?", "tree")) == limited.boxes


@pytest.mark.slow
def test_time_and_interruption_end_every_process() -> None:
    """Pieces that wait for a process have no time of their own, and none goes on when the search was interrupted."""
    began = time.monotonic()
    found = cover(divide_for_ever, (0.01,), *UNIT, seconds=1.0, jobs=2, smallest=0.0)
    assert found.open == found.boxes
    assert found.share == pytest.approx(1.0)

    def interrupt(share: float, boxes: int, open: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cover(make, (0.7, 1e-5), *UNIT, seconds=1e4, jobs=2, most=500, report=interrupt)
    assert time.monotonic() - began < 60.0
