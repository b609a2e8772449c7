"""Barriers under held inputs, over one box of states at a time.

A barrier is `h = e`, or `h = e' + kappa e` where the input acts on `e''` only. Along a solution from `x0` with an
input `u` held for `T`, three facts keep `h >= −floor`, with `m = m_0(x0) + Σ m_j(x0) u_j >= 0`:

    the row        h'(x0, u) + rate h(x0) >= (T/2) m − rate floor,      rate T <= 1,
    the curvature  h''(x(s), u) >= −m  for all s in [0, T],
    the start      h(x0) >= −floor:

    h(x(s)) >= h + s h' − s² m/2 >= (1 − rate s) h − s rate floor + s (T − s) m/2 >= −floor.

The curvature is enclosed by its own expansion: with `h = Σ cₖ sᵏ` along a solution, for some state `y` on it,

    h''(x(s), u) = 2 c₂(x0, u) + 6 c₃(x0, u) s + 12 c₄(y, u) s².

Then `e' >= −kappa e − floor`, which keeps `e >= −floor/kappa`. Here the curvature is proved, and that an input exists
which satisfies the rows: one witness for all states of the box.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flint import arb

from constrained_nn.verify.arithmetic import (
    Jet,
    Program,
    below,
    enclose_solutions,
    interval,
    order,
    precision,
    run,
    solution,
)
from constrained_nn.verify.cover import middle

BITS = 64
BISECTIONS = 4  # of the range of the inputs, for the curvature


@dataclass(frozen=True, eq=False)
class Barrier:
    """A barrier: `e` and `m` as programs of the state, and the gains `(rate,)` or `(kappa, rate)`."""

    name: str
    value: Program
    curvature: Program
    gains: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class System:
    """A plant with barriers under a held input.

    Args:
        plant: Program `(x, u) -> dx/dt`.
        barriers: What is to be kept.
        low: Lower limits of the input.
        high: Upper limits.
        hold: `T` [s].
        floor: How far below 0 a barrier may be.
    """

    plant: Program
    barriers: tuple[Barrier, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    hold: float
    floor: float


@dataclass(frozen=True)
class Slack:
    """What is proved of one box.

    Args:
        problem: What could not be proved, or None.
        row: Lower bound of the slack of the witness in its rows, over all barriers and states.
        curvature: Lower bound of `h'' + m`, or of its slope in the input with which it vanishes.
    """

    problem: str | None
    row: float
    curvature: float


def is_outside(system: System, lower: Sequence[float], upper: Sequence[float]) -> bool:
    """Whether no state of a box is in the safe set: some `e` or `h` is below its floor in all of it."""
    with precision(BITS), order(3):
        x, u = (
            [interval(a, b) for a, b in zip(low, high, strict=True)]
            for low, high in (
                (lower, upper),
                (system.low, system.high),
            )  # `h` must not depend on the input here
        )
        return _is_outside(system, _series(system, x, u, None))


def is_inside(system: System, lower: Sequence[float], upper: Sequence[float]) -> bool:
    """Whether every state of a box is in the safe set: each `h >= −floor`, and each `e >= −floor/kappa`."""
    with precision(BITS), order(3):
        x = [interval(a, b) for a, b in zip(lower, upper, strict=True)]
        u = [interval(a, b) for a, b in zip(system.low, system.high, strict=True)]
        return all(above >= 0 for above in _rooms(system, _series(system, x, u, None)))


def examine(
    system: System, lower: Sequence[float], upper: Sequence[float], witness: Sequence[float]
) -> Slack:
    """Row of the witness and curvature, for all states of a box that are in the safe set."""
    with precision(BITS), order(6):
        x = [interval(a, b) for a, b in zip(lower, upper, strict=True)]
        if not all(a <= w <= b for a, w, b in zip(system.low, witness, system.high, strict=True)):
            return Slack("the witness is beyond the limits of the input", -1.0, -1.0)
        row, problem = _row(system, x, [arb(w) for w in witness])
        if problem is not None:
            return Slack(problem, row, -1.0)
        limits = list(zip(system.low, system.high, strict=True))
        curvature, problem = _curvature(system, x, limits, BISECTIONS)
        return Slack(problem, row, curvature)


def _series(
    system: System, x: Sequence[arb], u: Sequence[arb], chosen: int | None, least: int = 1
) -> list[tuple[Jet, Jet | None]]:
    """`h` and, where it is made of it, `e` of every barrier along the solutions from `x`, `h` to order `least`."""
    degree = max(len(b.gains) for b in system.barriers)
    state = solution(system.plant, x, u, degree + least - 1, chosen)
    found: list[tuple[Jet, Jet | None]] = []
    for barrier in system.barriers:
        (e,) = run(barrier.value, state)
        if len(barrier.gains) == 1:
            found.append((e, None))
            continue
        kappa = arb(barrier.gains[0])
        count = range(least + 1)
        h = [(k + 1) * e.coefficient(k + 1) + kappa * e.coefficient(k) for k in count]
        slope = [(k + 1) * e.slope_coefficient(k + 1) + kappa * e.slope_coefficient(k) for k in count]
        found.append((Jet.begin(h, slope), e))
    return found


def _is_outside(system: System, series: list[tuple[Jet, Jet | None]]) -> bool:
    return any(above < 0 for above in _rooms(system, series))


def _rooms(system: System, series: list[tuple[Jet, Jet | None]]) -> list[arb]:
    """`h + floor`, and `e + floor/kappa` where `h` is made of `e`, for every barrier: the set is where none is < 0."""
    floor, values = arb(system.floor), []
    for barrier, (h, e) in zip(system.barriers, series, strict=True):
        values.append(h.coefficient(0) + floor)
        if e is not None:
            values.append(e.coefficient(0) + floor / arb(barrier.gains[0]))
    return values


def _row(system: System, x: list[arb], witness: list[arb]) -> tuple[float, str | None]:
    """Least slack `h' + rate (max(h, −floor) + floor) − (T/2) m` of the witness."""
    worst = float("inf")
    half, floor = arb(system.hold) / 2, arb(system.floor)
    for barrier, (h, _) in zip(system.barriers, _series(system, x, witness, None), strict=True):
        above = h.coefficient(0).lower() + floor
        above = above if above > 0 else arb(0)  # states with less are not in the set
        m = _margin(barrier, x)
        slack = h.coefficient(1) + arb(barrier.gains[-1]) * above - half * _total(m, witness)
        worst = min(worst, below(slack))
        if not slack >= 0:
            return worst, f"the row of '{barrier.name}' at the witness"
    return worst, None


def _margin(barrier: Barrier, x: Sequence[arb]) -> list[arb]:
    return [jet.coefficient(0) for jet in run(barrier.curvature, [Jet.of([v]) for v in x])]


def _total(m: Sequence[arb], u: Sequence[arb]) -> arb:
    total = m[0]
    for coefficient, value in zip(m[1:], u, strict=True):
        total = total + coefficient * value
    return total


def _curvature(
    system: System, x: list[arb], part: list[tuple[float, float]], bisections: int
) -> tuple[float, str | None]:
    """Least `h'' + m` over all solutions from `x` with inputs in `part`, which is bisected where that is needed."""
    found, problem = _enclose_curvature(system, x, part)
    widths = [
        (b - a) / (high - low) if high > low else 0.0
        for (a, b), low, high in zip(part, system.low, system.high, strict=True)
    ]
    if problem is None or not bisections or not max(widths, default=0.0) > 0:
        return found, problem
    j = widths.index(max(widths))
    cut = middle(*part[j])
    worst = float("inf")
    for half in ((part[j][0], cut), (cut, part[j][1])):
        found, problem = _curvature(system, x, [*part[:j], half, *part[j + 1 :]], bisections - 1)
        worst = min(worst, found)
        if problem is not None:
            break
    return worst, problem


def _enclose_curvature(
    system: System, x: list[arb], part: list[tuple[float, float]]
) -> tuple[float, str | None]:
    u = [interval(a, b) for a, b in part]
    tube = _reach(system, x, u)
    if tube is None:
        return -1.0, "no enclosure of the solutions"
    worst = float("inf")
    along = _Along(system, x, tube, u)
    for i, barrier in enumerate(system.barriers):
        m = _margin(barrier, x)
        if not _is_not_negative(m, part):
            return -1.0, f"the margin of '{barrier.name}' is negative"
        if len(barrier.gains) > 1 and not all(along.ignores(i, j) for j in range(len(u))):
            return -1.0, f"the first derivative of '{barrier.name}' depends on the input"
        found = below(along.second(i) + _total(m, u))
        for j in range(len(u)):
            if found >= 0:
                break
            least = [arb(part[j][0]) if k == j else v for k, v in enumerate(u)]
            at_least = _Along(system, x, tube, least).second(i) + _total(m, least)
            slope = along.second_slope(i, j) + m[1 + j]
            found = max(found, _bound_rise(at_least, slope, arb(part[j][1]) - arb(part[j][0])))
        worst = min(worst, found)
        if not found >= 0:
            return worst, f"the curvature of '{barrier.name}'"
    return worst, None


def _bound_rise(start: arb, slope: arb, width: arb) -> float:
    """A function that is `start >= 0` at the lower end: its slope if that is not negative, else its lower bound."""
    if not start >= 0:
        return -1.0
    return below(slope) if slope >= 0 else below(start + width * slope.lower())


class _Along:
    """`h''` of every barrier for states at the start in `x`, on the way in `reach`, and inputs in `u`."""

    def __init__(self, system: System, x: list[arb], reach: list[arb], u: list[arb]) -> None:
        self.system, self.states, self.u = system, (x, reach), u
        self.span = interval(0.0, system.hold)
        self.known: dict[tuple[int, int | None], list[tuple[Jet, Jet | None]]] = {}

    def second(self, i: int) -> arb:
        """`h''` of barrier `i`."""
        start, later = (self._series(k, None)[i][0] for k in (0, 1))
        return self._sum(start.coefficient, later.coefficient)

    def second_slope(self, i: int, j: int) -> arb:
        """Derivative of `2 c₂ + 6 c₃ s + 12 c₄ s²` in input `j`, the states fixed."""
        start, later = (self._series(k, j)[i][0] for k in (0, 1))
        return self._sum(start.slope_coefficient, later.slope_coefficient)

    def ignores(self, i: int, j: int) -> bool:
        """Whether `e'` of barrier `i` has no slope in input `j`."""
        series = [self._series(k, j)[i][1] for k in (0, 1)]
        return all(e is not None and e.slope_coefficient(1).is_zero() for e in series)

    def _sum(self, start: Callable[[int], arb], later: Callable[[int], arb]) -> arb:
        return 2 * start(2) + self.span * (6 * start(3) + 12 * self.span * later(4))

    def _series(self, where: int, chosen: int | None) -> list[tuple[Jet, Jet | None]]:
        key = (where, chosen)
        if key not in self.known:
            self.known[key] = _series(self.system, self.states[where], self.u, chosen, 3 + where)
        return self.known[key]


def _is_not_negative(m: list[arb], part: list[tuple[float, float]]) -> bool:
    """`m_0 + Σ m_j u_j >= 0` at every corner, of which it is a mean."""
    return all(_total(m, [arb(v) for v in corner]) >= 0 for corner in itertools.product(*part))


def _reach(system: System, x: list[arb], u: list[arb]) -> list[arb] | None:
    """Balls that contain all solutions from `x` for the whole interval, or None."""

    def field(states: list[arb]) -> list[arb]:
        return [jet.coefficient(0) for jet in run(system.plant, [Jet.of([v]) for v in (*states, *u)])]

    return enclose_solutions(field, x, system.hold, share=1e-3, least=1e-9)
