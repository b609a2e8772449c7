"""The Runge-Kutta step against rationals, and what is said of solutions against solutions in closed form."""

from __future__ import annotations

import random
from fractions import Fraction

import mpmath
import pytest
from flint import arb
from mpmath import mpf

from constrained_nn.verify.arithmetic import (
    Interpreter,
    Vector,
    interval,
    order,
    parse,
    precision,
    reach,
    rk4,
    rk4_error,
)
from constrained_nn.verify.arithmetic.solutions import _rk4_series
from tests.evidence.arithmetic.test_balls import ends
from tests.evidence.arithmetic.test_vectors import contains
from tests.evidence.conditions.minimal import encode, program

State = list[Fraction]
# dx/dt = x y + u1, dy/dt = u0 - x y / 2
PLANT = parse(
    program(
        4, ["take", 0, [0]], ["take", 0, [1]], ["mul", 1, 2], ["take", 0, [2]], ["take", 0, [3]], ["add", 3, 5],
        ["affine", 3, encode([-0.5]), encode([0.0])], ["add", 4, 7], ["join", 6, 8],
    ),
    "plant",
)  # fmt: skip
GROWTH = parse(
    program(2, ["add", 0, 0], ["take", 1, [0]], ["affine", 2, encode([0.5]), encode([0.0])]), "growth"
)  # dx/dt = x


def derivative(x: State, u: State) -> State:
    return [x[0] * x[1] + u[1], u[0] - x[0] * x[1] / 2]


def step(x: State, u: State, h: Fraction) -> State:
    """The classical formula in rationals."""

    def moved(direction: State, length: Fraction) -> State:
        return [a + length * d for a, d in zip(x, direction, strict=True)]

    k1 = derivative(x, u)
    k2 = derivative(moved(k1, h / 2), u)
    k3 = derivative(moved(k2, h / 2), u)
    k4 = derivative(moved(k3, h), u)
    return moved([a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True)], h / 6)


def draw(rng: random.Random) -> tuple[State, State, Fraction]:
    x, y, *u = (Fraction(rng.randint(-32, 32), 16) for _ in range(4))
    return [x, y], u, Fraction(rng.randint(1, 16), 32)


def test_step_in_rationals() -> None:
    rng = random.Random(0)
    with precision(300):
        for _ in range(20):
            x, u, h = draw(rng)
            found = rk4(Interpreter(PLANT), *(Vector.constant(list(map(float, v))) for v in (x, u)), float(h))
            for ball, value in zip(found.values, step(x, u, h), strict=True):
                assert contains(ball, value)
                assert ball.rad() < 1e-60


def test_step_and_its_jacobian_over_a_box() -> None:
    rng = random.Random(1)
    tiny = Fraction(1, 2**60)
    with precision(120):
        for _ in range(10):
            x, u, h = draw(rng)
            w = Fraction(1, 2**16)
            box = Vector.box([float(v) for v in x], [float(v + w) for v in x])
            found = rk4(Interpreter(PLANT), box, Vector.constant(list(map(float, u))), float(h))
            for point in (x, [x[0] + w, x[1]], [x[0] + w, x[1] + w]):
                assert all(contains(b, v) for b, v in zip(found.values, step(point, u, h), strict=True))
            here = step(x, u, h)
            for j in range(2):
                there = step([v + tiny * (i == j) for i, v in enumerate(x)], u, h)
                for i in range(2):
                    slope = float((there[i] - here[i]) / tiny)
                    least, most = ends(found.jacobian[i][j])
                    assert least - 1e-9 <= slope <= most + 1e-9
                    assert most - least < 0.02


def test_formula_as_a_series_in_its_step() -> None:
    """Coefficients 0 to 5 about a step of zero: those of a polynomial through values in rationals."""
    rng = random.Random(2)
    for _ in range(4):
        x, u, _ = draw(rng)
        with (
            precision(400),
            order(20),
        ):  # degree 20 at most; here the product of two polynomials of lower degree
            jets = _rk4_series(PLANT, [arb(float(v)) for v in x], [arb(float(v)) for v in u], 0.0)
            for i, jet in enumerate(jets):
                for h in (Fraction(1, 8), Fraction(1), Fraction(-3, 2)):
                    total = arb(0)
                    for k in range(20):
                        total += jet.coefficient(k) * (arb(h.numerator) / h.denominator) ** k
                    assert contains(total, step(x, u, h)[i])
                    assert total.rad() < 1e-60


def test_series_are_about_every_step() -> None:
    with precision(80), order(2):
        (jet,) = _rk4_series(GROWTH, [arb(1)], [arb(0)], 0.5)
        least, most = ends(jet.coefficient(0))
        assert 0.9 < least <= 1
        assert 1 + 0.5 + 1 / 8 + 1 / 48 + 1 / 384 <= most < 1.7
        least, most = ends(jet.coefficient(1))
        assert 0.8 < least <= 1
        assert 1 + 0.5 + 1 / 8 + 1 / 48 <= most < 1.9


@pytest.mark.parametrize("h", [0.0625, 0.25, 0.5])
def test_remainder_contains_the_true_one(h: float) -> None:
    """`dx/dt = x`: `exp(h) - (1 + h + h²/2 + h³/6 + h⁴/24)`, all of it, and at most as much as its bound at the end."""
    with mpmath.workprec(200), precision(100):
        for a, b in ((1.0, 1.0), (0.5, 1.5), (-2.0, -1.0)):
            x = [interval(a, b)]
            tube = reach(Interpreter(GROWTH), x, [arb(0)], h)
            (error,) = rk4_error(GROWTH, x, tube, [arb(0)], h)
            least, most = ends(error)
            true = mpmath.exp(h) - sum(mpf(h) ** k / mpmath.factorial(k) for k in range(5))
            assert least <= min(a * true, b * true)
            assert most >= max(a * true, b * true)
            bound = mpf(h) ** 5 / 120 * max(abs(a), abs(b)) * mpmath.exp(2 * h)
            assert max(abs(least), abs(most)) <= bound
            if a == b:
                assert least > 0  # of one start state: h⁵/120 <= ... <= exp(h) h⁵/120


def test_remainder_in_two_dimensions() -> None:
    """Against a solution by a thousandfold smaller step, to ten digits."""
    rng = random.Random(3)
    for _ in range(6):
        x, u, _ = draw(rng)
        h = Fraction(1, 16)
        state, floats = [float(v) for v in x], [float(v) for v in u]
        with mpmath.workprec(120):
            solve = mpmath.odefun(
                lambda t, y, u=floats: [y[0] * y[1] + u[1], u[0] - y[0] * y[1] / 2],
                0,
                [mpf(v) for v in state],
            )
            true = [
                a - mpf(b.numerator) / b.denominator
                for a, b in zip(solve(mpf(1) / 16), step(x, u, h), strict=True)
            ]
            with precision(100):
                start, held = [arb(v) for v in state], [arb(v) for v in floats]
                tube = reach(Interpreter(PLANT), start, held, float(h))
                for ball, value in zip(rk4_error(PLANT, start, tube, held, float(h)), true, strict=True):
                    least, most = ends(ball)
                    assert least - 1e-14 <= value <= most + 1e-14
                    assert most - least < 1e-4


def test_tube_contains_solutions_and_nothing_before() -> None:
    """`dx/dt = x` from [1, 2] for 1/16 s: from 1 to 2 e^(1/16); against time it would go below 1."""
    with precision(80), mpmath.workprec(100):
        (tube,) = reach(Interpreter(GROWTH), [interval(1.0, 2.0)], [arb(0)], 0.0625)
        least, most = ends(tube)
        assert least <= 1
        assert least > 0.94
        assert 2 * mpmath.exp(0.0625) <= most < 2.2
        (tube,) = reach(Interpreter(GROWTH), [interval(-2.0, -1.0)], [arb(0)], 0.0625)
        least, most = ends(tube)
        assert -2.2 < least <= -2 * mpmath.exp(0.0625)
        assert -1 <= most < -0.94
        # an input that pushes; a constant velocity of 3 from 1
        push = parse(program(2, ["take", 0, [1]]), "push")
        least, most = ends(reach(Interpreter(push), [arb(1)], [arb(3)], 0.25)[0])
        assert least == pytest.approx(1, abs=1e-8)
        assert most == pytest.approx(1.75, abs=1e-8)
        assert most >= 1.75


def test_no_tube_where_solutions_end() -> None:
    """`dx/dt = x²` from 1 ends at t = 1; `dx/dt = log x` is nothing for x <= 0."""
    squared = Interpreter(parse(program(2, ["take", 0, [0]], ["square", 1]), "f"))
    with precision(80):
        assert reach(squared, [arb(1)], [arb(0)], 1.0) is None
        assert reach(squared, [arb(1)], [arb(0)], 0.125) is not None
        log = Interpreter(parse(program(2, ["take", 0, [0]], ["log", 1]), "f"))
        assert reach(log, [interval(-1.0, 1.0)], [arb(0)], 0.125) is None
        assert reach(log, [interval(0.01, 0.02)], [arb(0)], 0.125) is None
