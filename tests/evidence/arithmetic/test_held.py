"""Barriers under held inputs against closed forms: rows, curvatures, sets, and every condition that refuses a box."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import mpmath
import pytest
from flint import arb
from mpmath import mpf

from constrained_nn.verify.arithmetic import interval, order, parse, precision
from constrained_nn.verify.arithmetic.balls import NAN
from constrained_nn.verify.enclosures import Barrier, System, examine, is_inside, is_outside
from constrained_nn.verify.enclosures import held as _held
from tests.evidence.arithmetic.test_balls import ends
from tests.evidence.conditions.minimal import encode, program

HOLD = 0.125


def affine(inputs: int, weights: Sequence[float], offset: float) -> list[Any]:
    return program(inputs, ["affine", 0, encode(list(weights)), encode([offset])])


def system(
    plant: dict[str, Any], *barriers: tuple[dict[str, Any], Sequence[float], tuple[float, ...]],
    low: Sequence[float] = (-1.0,), high: Sequence[float] = (1.0,), floor: float = 0.0, hold: float = HOLD,
) -> System:  # fmt: skip
    """Barriers `(value, constant margins, gains)`."""
    n = plant["inputs"] - len(low)
    made = tuple(
        Barrier(f"b{i}", parse(value, "e"), parse(program(n, ["const", encode(list(m))]), "m"), gains)
        for i, (value, m, gains) in enumerate(barriers)
    )
    return System(parse(plant, "plant"), made, tuple(low), tuple(high), hold, floor)


LINE = program(2, ["take", 0, [1]])  # dx/dt = u
MASS = program(3, ["take", 0, [1, 2]])  # dx1/dt = x2, dx2/dt = u
PARABOLA = program(1, ["square", 0], ["affine", 1, encode([-1.0]), encode([1.0])])  # 1 - x²
WALL = affine(2, [-1.0, 0.0], 1.0)  # 1 - x1


def test_rows_of_degree_one() -> None:
    """`-2 x w + rate max(1 - x², -floor) + rate floor - (T/2) (m0 + m1 w)` at points, to the last digits."""
    rng = random.Random(0)
    for _ in range(40):
        x, w, floor, rate = (
            rng.randint(-16, 16) / 8,
            rng.randint(-8, 8) / 8,
            rng.randint(0, 4) / 8,
            rng.randint(1, 8),
        )
        m0, m1 = 4.0, rng.randint(-8, 8) / 8
        found = examine(system(LINE, (PARABOLA, [m0, m1], (float(rate),)), floor=floor), [x], [x], [w])
        wanted = -2 * x * w + rate * max(1 - x * x + floor, 0.0) - HOLD / 2 * (m0 + m1 * w)
        assert found.row == pytest.approx(wanted, rel=1e-12, abs=1e-12)
        assert found.row <= wanted
        assert (found.problem == "the row of 'b0' at the witness") is (wanted < 0)
        assert found.curvature == -1.0 or wanted >= 0


def test_least_row_of_two_barriers_and_of_a_box() -> None:
    two = system(LINE, (PARABOLA, [4.0, 0.0], (1.0,)), (affine(1, [1.0], 3.0), [0.0, 0.0], (2.0,)))
    # 1 - x²: 0 + 3/4 - 1/4; x + 3: 0 + 2 * 2.5 of the box [-1/2, 1/2]
    assert examine(two, [-0.5], [0.5], [0.0]).row == pytest.approx(0.5, abs=1e-6)
    # 1 - x² at w = 1/8: -[-1/8, 1/8] + 1/2
    assert examine(two, [-0.5], [0.5], [0.125]).row == pytest.approx(0.375, abs=1e-6)
    other = system(LINE, (affine(1, [1.0], 3.0), [0.0, 0.0], (2.0,)), (PARABOLA, [4.0, 0.0], (1.0,)))
    assert examine(other, [-0.5], [0.5], [0.0]).row == pytest.approx(0.5, abs=1e-6)


def test_rows_of_degree_two() -> None:
    """`h = -x2 + kappa (1 - x1)`, `h' = -w - kappa x2`."""
    rng = random.Random(1)
    for _ in range(40):
        x1, x2, w, floor = (rng.randint(-16, 16) / 8 for _ in range(4))
        kappa, rate, m0 = rng.randint(1, 4), rng.randint(1, 8), rng.randint(0, 8) / 8
        s = system(MASS, (WALL, [m0, 0.0], (kappa, rate)), low=[-2.0], high=[2.0], floor=abs(floor))
        found = examine(s, [x1, x2], [x1, x2], [w])
        h = -x2 + kappa * (1 - x1)
        wanted = -w - kappa * x2 + rate * max(h + abs(floor), 0.0) - HOLD / 2 * m0
        assert found.row == pytest.approx(wanted, rel=1e-12, abs=1e-12)
        # the sets: h >= -floor and e >= -floor/kappa
        above = min(h + abs(floor), 1 - x1 + abs(floor) / kappa)
        assert is_inside(s, [x1, x2], [x1, x2]) is (above >= 0) or abs(above) < 1e-12
        assert is_outside(s, [x1, x2], [x1, x2]) is (above < 0) or abs(above) < 1e-12


def test_sets_of_boxes() -> None:
    """All states of a box are in the set, or none is, or neither is said."""
    s = system(LINE, (PARABOLA, [2.0, 0.0], (1.0,)), (affine(1, [1.0], 0.5), [0.0, 0.0], (1.0,)))
    for low, high, all_in, none_in in (
        (-0.25, 0.75, True, False), (1.25, 2.0, False, True), (-1.0, -0.75, False, True), (0.5, 1.25, False, False),
        (-0.75, 0.0, False, False), (-3.0, -2.0, False, True),
    ):  # fmt: skip
        assert is_inside(s, [low], [high]) is all_in
        assert is_outside(s, [low], [high]) is none_in
    flat = system(LINE, (affine(1, [0.0], -0.25), [0.0, 0.0], (1.0,)), floor=0.25)  # on its floor: in the set
    assert is_inside(flat, [0.0], [1.0])
    assert not is_outside(flat, [0.0], [1.0])


def test_witness_is_within_its_limits() -> None:
    s = system(LINE, (affine(1, [0.0], 1.0), [0.0, 0.0], (1.0,)), low=[-0.5], high=[0.25])
    for w, allowed in ((-0.5, True), (0.25, True), (-0.625, False), (0.375, False)):
        assert (examine(s, [0.0], [0.0], [w]).problem is None) is allowed
    beyond = examine(s, [0.0], [0.0], [9.0])
    assert (beyond.row, beyond.curvature) == (-1.0, -1.0)


def chain(states: int, last: float) -> dict[str, Any]:
    """`x1' = x2, ..., xn' = last`, whatever the input."""
    return program(states + 1, ["take", 0, list(range(1, states))], ["const", encode([last])], ["join", 1, 2])


@pytest.mark.parametrize("last", [-8.0, 8.0])
@pytest.mark.parametrize("states", [3, 4])
def test_curvature_along_a_chain(states: int, last: float) -> None:
    """`h = x1 + 9`: `h'' = x3 + x4 s + last s²/2`, or `x3 + last s`, for 0 <= s <= T, at points and over boxes."""
    rng = random.Random(states)
    for width in (0.0, 0.25):
        for _ in range(6):
            x = [rng.randint(0, 16) / 8 for _ in range(states)]
            s = system(
                chain(states, last), (affine(states, [1.0] + [0.0] * (states - 1), 9.0), [1.0, 0.0], (1.0,))
            )
            found = examine(s, x, [v + width for v in x], [0.0])
            with mpmath.workprec(100):
                times = [mpf(HOLD) * k / 200 for k in range(201)]
                slope, bend = (x[3], last / 2) if states == 4 else (last, 0.0)
                least = min(1 + x[2] + slope * t + bend * t * t for t in times)
            assert found.curvature <= least + 1e-15
            # of products of balls: at most as far below as the coefficients vary over the boxes
            assert found.curvature >= least - 2 * HOLD * (abs(last) * HOLD + width) - 1e-9
            if found.curvature >= 0:
                assert found.problem is None
            else:
                assert found.problem == "the curvature of 'b0'"


def test_curvature_of_a_curve() -> None:
    """`h = 1 - x²` with `x' = u`: `h'' + m = m0 + m1 u - 2 u²`; over one input, its least value."""
    for m0, u in ((2.0, 0.5), (0.5, 0.5), (0.25, 0.5), (0.5, -0.5)):
        s = system(LINE, (PARABOLA, [m0, 0.0], (1.0,)), low=[u], high=[u])
        found = examine(s, [0.25], [0.25], [u])
        assert found.curvature == pytest.approx(m0 - 2 * u * u, abs=1e-9)
        assert (found.problem is None) is (m0 - 2 * u * u >= 0)


def test_inputs_are_bisected_where_that_is_needed() -> None:
    """`1/4 + 2 u - 2 u²` on [0, 1]: not at once, not in halves, in quarters."""
    for extra in (0, 1):
        plant = program(2 + extra, ["take", 0, [1]])
        low, high = [0.0, *[0.5] * extra], [1.0, *[0.5] * extra]
        s = system(plant, (PARABOLA, [0.25, 2.0, *[0.0] * extra], (1.0,)), low=low, high=high)
        limits = list(zip(low, high, strict=True))
        with precision(64), order(6):
            x = [arb(0)]
            for bisections, problem in ((0, True), (1, True), (2, False), (3, False)):
                found, text = _held._curvature(s, x, limits, bisections)
                assert (text is not None) is problem
                assert (found < 0) is problem
            assert found == pytest.approx(0.125, abs=1e-6)
        assert examine(s, [0.0], [0.0], low).problem is None
    wide = system(LINE, (PARABOLA, [0.5, 0.0], (1.0,)), low=[-1.0], high=[1.0])
    with precision(64), order(6):
        found, text = _held._curvature(wide, [arb(0)], [(-1.0, 1.0)], 4)
    assert text == "the curvature of 'b0'"
    assert found == -1.0


@pytest.mark.parametrize(
    ("part", "halves"),
    [  # the limits are [-1/2, 1/2] and [-1024, 512]
        (
            [(-0.25, 0.25), (-1024.0, 512.0)],
            [[(-0.25, 0.25), (-1024.0, -256.0)], [(-0.25, 0.25), (-256.0, 512.0)]],
        ),
        (
            [(-0.5, 0.5), (-1024.0, -256.0)],
            [[(-0.5, 0.0), (-1024.0, -256.0)], [(0.0, 0.5), (-1024.0, -256.0)]],
        ),
        ([(0.0, 0.25), (0.0, 512.0)], [[(0.0, 0.25), (0.0, 256.0)], [(0.0, 0.25), (256.0, 512.0)]]),
    ],
)
def test_the_widest_range_is_bisected(part: Any, halves: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to its limits; the first half is not proved, then the second is not looked at."""
    s = system(
        program(3, ["take", 0, [1]]),
        (PARABOLA, [0.5, 0.0, 0.0], (1.0,)),
        low=[-0.5, -1024.0],
        high=[0.5, 512.0],
    )
    seen: list[Any] = []

    def examined(s: System, x: Any, part: Any) -> tuple[float, str | None]:
        seen.append(part)
        return float(len(seen)), "open" if len(seen) in (1, fails) else None

    monkeypatch.setattr(_held, "_enclose_curvature", examined)
    for fails, wanted in ((9, (2.0, None)), (3, (2.0, "open")), (2, (2.0, "open"))):
        seen.clear()
        assert _held._curvature(s, [arb(0)], part, 1) == wanted
        assert seen == [part, *(halves[:1] if fails == 2 else halves)]


def test_series_along_solutions() -> None:
    """`h = e' + 2 e` with `e = x1²`, `x1' = x2 x1`, `x2' = u x1`: slopes in `u` by differences in 200 bits."""
    plant = program(
        3, ["take", 0, [0]], ["take", 0, [1]], ["mul", 1, 2], ["take", 0, [2]], ["mul", 4, 1], ["join", 3, 5]
    )
    s = system(plant, (program(2, ["take", 0, [0]], ["square", 1]), [0.0, 0.0], (2.0, 1.0)))
    with precision(200), order(6):
        x, step = [arb(1), arb(0.5)], arb(2) ** -60
        ((h, e),) = _held._series(s, x, [arb(3)], 0, 4)
        ((forward, _),) = _held._series(s, x, [3 + step], None, 4)
        for k in range(5):
            assert ((k + 1) * e.coefficient(k + 1) + 2 * e.coefficient(k)).overlaps(h.coefficient(k))
            slope = (forward.coefficient(k) - h.coefficient(k)) / step
            assert float(h.slope_coefficient(k)) == pytest.approx(float(slope), rel=1e-9, abs=1e-12)
        assert h.coefficient(0) == 3  # 2 x1² x2 + 2 x1²
        assert not h.coefficient(5).is_finite()


def test_no_more_coefficients_than_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    true = _held.solution

    def counted(plant: Any, x: Any, u: Any, count: int, chosen: int | None) -> Any:
        counts.append(count)
        return true(plant, x, u, count, chosen)

    monkeypatch.setattr(_held, "solution", counted)
    with order(6):
        for gains, least in (((1.0,), 1), ((1.0,), 4), ((1.0, 1.0), 1), ((1.0, 1.0), 4)):
            _held._series(system(MASS, (WALL, [1.0, 0.0], gains)), [arb(0)] * 2, [arb(0)], None, least)
    assert counts == [1, 4, 2, 5]


@pytest.mark.parametrize(
    ("made", "x", "problem"),
    [
        # dx/dt = x² + u, which no ball contains for a second
        (
            system(
                program(2, ["take", 0, [0]], ["square", 1], ["take", 0, [1]], ["add", 2, 3]),
                (affine(1, [0.0], 1.0), [0.0, 0.0], (0.5,)), hold=1.0,
            ),
            [4.0], "no enclosure of the solutions",
        ),
        # m = u/4 is negative at u = -1
        (system(LINE, (affine(1, [0.0], 1.0), [0.0, 0.25], (1.0,))), [0.0], "the margin of 'b0' is negative"),
        # x1' = x2 + u: e' depends on the input
        (
            system(
                program(3, ["take", 0, [1]], ["take", 0, [2]], ["add", 1, 2], ["join", 3, 2]),
                (WALL, [2.0, 0.0], (1.0, 1.0))
            ),
            [0.0, 0.0], "the first derivative of 'b0' depends on the input",
        ),
    ],
)  # fmt: skip
def test_what_refuses_a_box(made: System, x: list[float], problem: str) -> None:
    found = examine(made, x, x, made.low)
    assert found.problem == problem
    assert found.curvature == -1.0
    assert not found.row < 0


def test_second_derivative_of_degree_two() -> None:
    """`h'' = -kappa u`: with the margin `kappa` it is not negative for `u <= 1`; with less it is."""
    for m0, holds in ((3.0, True), (2.5, False)):
        s = system(MASS, (WALL, [m0, 0.0], (3.0, 1.0)))
        found = examine(s, [-1.0, -0.5], [-1.0, -0.5], [0.0])
        assert (found.problem is None) is holds
        if holds:
            assert found.curvature == pytest.approx(0.0, abs=1e-9) or found.curvature > 0


def test_a_second_input_counts() -> None:
    """`e'` of the second input alone: x1' = x2 + u1, x2' = u0."""
    plant = program(4, ["take", 0, [1]], ["take", 0, [3]], ["add", 1, 2], ["take", 0, [2]], ["join", 3, 4])
    s = system(plant, (WALL, [9.0, 0.0, 0.0], (1.0, 1.0)), low=[-1.0, -1.0], high=[1.0, 1.0])
    assert (
        examine(s, [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]).problem
        == "the first derivative of 'b0' depends on the input"
    )


def test_rising_functions() -> None:
    assert _held._bound_rise(arb(1), arb(-2), arb(0.25)) == 0.5
    assert _held._bound_rise(arb(1), interval(-2.0, 3.0), arb(0.25)) == pytest.approx(0.5, abs=1e-8)
    assert _held._bound_rise(arb(1), arb(3), arb(0.25)) == 3.0
    assert _held._bound_rise(arb(0), arb(0), arb(1)) == 0.0
    assert _held._bound_rise(arb(-1), arb(3), arb(1)) == -1.0
    assert _held._bound_rise(NAN, arb(3), arb(1)) == -1.0
    assert _held._bound_rise(arb(1), NAN, arb(1)) == -math.inf


def test_margins_at_every_corner() -> None:
    m = [arb(1), arb(-1), arb(0.5)]
    assert _held._is_not_negative(m, [(0.0, 1.0), (0.0, 1.0)])
    assert not _held._is_not_negative(m, [(0.0, 1.5), (0.0, 1.0)])
    assert not _held._is_not_negative(m, [(0.0, 1.0), (-0.5, 1.0)])
    assert _held._total(m, [arb(2), arb(4)]) == 1


def test_reach_goes_forward_in_time() -> None:
    """`dx/dt = x` from [1, 2] for 1/16 s, and a velocity of `u` in [1, 3] from 1 for 1/4 s."""
    growth = system(program(2, ["take", 0, [0]]), (PARABOLA, [2.0, 0.0], (1.0,)), hold=0.0625)
    with precision(64), order(6), mpmath.workprec(100):
        (tube,) = _held._reach(growth, [interval(1.0, 2.0)], [arb(0)])
        least, most = ends(tube)
        assert 0.94 < least <= 1
        assert 2 * mpmath.exp(0.0625) <= most < 2.2
        (tube,) = _held._reach(
            system(LINE, (PARABOLA, [2.0, 0.0], (1.0,)), hold=0.25), [arb(1)], [interval(1.0, 3.0)]
        )
        least, most = ends(tube)
        assert 0.7 < least <= 1
        assert 1.75 <= most < 1.8
        assert _held._reach(growth, [NAN], [arb(0)]) is None
        log = system(program(2, ["take", 0, [0]], ["log", 1]), (PARABOLA, [2.0, 0.0], (1.0,)))
        assert _held._reach(log, [interval(-1.0, 1.0)], [arb(0)]) is None
        squared = system(
            program(2, ["take", 0, [0]], ["square", 1]), (PARABOLA, [2.0, 0.0], (1.0,)), hold=1.0
        )
        assert _held._reach(squared, [arb(1)], [arb(0)]) is None


def test_time_does_not_run_backwards() -> None:
    """`x' = 1 + u`, `h = x³ + 9`: `h'' = 6 x v²` is positive ahead of x = 0.1, and not so before it."""
    plant = program(2, ["take", 0, [1]], ["affine", 1, encode([0.0]), encode([1.0])])
    cube = program(1, ["power", 0, 3], ["affine", 1, encode([1.0]), encode([9.0])])
    assert examine(system(plant, (cube, [0.0, 0.0], (1.0,))), [0.05], [0.05], [0.0]).problem is None
    back = program(2, ["take", 0, [1]], ["affine", 1, encode([0.0]), encode([-1.0])])
    found = examine(system(back, (cube, [0.0, 0.0], (1.0,))), [0.05], [0.05], [0.0])
    assert found.problem == "the curvature of 'b0'"


def test_fourth_derivatives_are_taken_on_the_way() -> None:
    """`h = x⁵ + 9`, `x' = v`: `h'' = 20 x³ v²`, whose second derivative is that of a later state."""
    fifth = program(1, ["power", 0, 5], ["affine", 1, encode([1.0]), encode([9.0])])
    for v, x, m0, holds in ((-1.0, 0.0, 0.03, False), (-1.0, 0.0, 0.5, True), (1.0, 0.0, 0.0, True)):
        plant = program(2, ["take", 0, [1]], ["affine", 1, encode([0.0]), encode([v])])
        found = examine(system(plant, (fifth, [m0, 0.0], (1.0,))), [x], [x], [0.0])
        true = m0 + min(0.0, 20 * (x + v * HOLD) ** 3)
        assert found.curvature <= true + 1e-12
        if holds and v < 0:
            assert found.problem is None
        if not holds:
            assert found.problem is not None
