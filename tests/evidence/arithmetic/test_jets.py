"""Power series of balls and Taylor coefficients of solutions, against mpmath and against recursions in rationals."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import mpmath
import pytest
from flint import arb
from mpmath import mpf

from constrained_nn.verify.arithmetic import Jet, interval, order, parse, precision, run, solution
from constrained_nn.verify.arithmetic.balls import NAN
from tests.evidence.arithmetic.test_balls import ends
from tests.evidence.arithmetic.test_vectors import contains
from tests.evidence.conditions.minimal import encode, program

COUNT = 6
SMOOTH = {
    "neg": lambda x: -x, "square": lambda x: x * x, "sqrt": mpmath.sqrt, "log": mpmath.log, "exp": mpmath.exp,
    "sin": mpmath.sin, "cos": mpmath.cos, "atan": mpmath.atan, "tanh": mpmath.tanh,
}  # fmt: skip


def near(ball: arb, value: mpf, room: float = 1e-12) -> bool:
    """Whether a ball contains a number that is known to 20 digits, and little else."""
    least, most = ends(ball)
    slack = mpf(1e-15) * (1 + abs(value))
    return bool(least - slack <= value <= most + slack and most - least <= room * (1 + abs(value)))


def _along(f: Any, c: list[float], s: mpf, e: mpf) -> mpf:
    """`f(c(s) + e (1 + s/2))`."""
    return f(sum(mpf(v) * s**k for k, v in enumerate(c)) + e * (1 + s / 2))


@pytest.mark.parametrize("name", SMOOTH)
def test_series_of_every_function(name: str) -> None:
    """Coefficients of `f(c(s) + e)` and their derivative in `e`, with `c` a cubic: 2 s f' and so on."""
    f, program_ = SMOOTH[name], parse(program(1, [name, 0]), "f")
    rng = random.Random(name)
    with mpmath.workprec(200), precision(120), order(COUNT):
        for _ in range(3):
            c = [rng.uniform(0.5, 2.0), rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(-1, 1)]
            (jet,) = run(program_, [Jet.of([arb(v) for v in c], [arb(1), arb(0.5)])])
            (plain,) = run(program_, [Jet.of([arb(v) for v in c])])

            wanted = mpmath.taylor(lambda s, c=c: _along(f, c, s, mpf(0)), 0, COUNT - 1)
            slopes = mpmath.taylor(lambda s, c=c: mpmath.diff(lambda e: _along(f, c, s, e), 0), 0, COUNT - 1)
            for k in range(COUNT):
                assert near(jet.coefficient(k), wanted[k])
                assert near(plain.coefficient(k), wanted[k])
                assert near(jet.slope_coefficient(k), slopes[k], 1e-10) or abs(slopes[k]) < 1e-12
                assert plain.slope_coefficient(k) == 0


def test_arithmetic_of_series_in_rationals() -> None:
    """`p q`, `p / q`, `p - q`, `p³`, sums and affine maps, and the derivative of each in the chosen input."""
    code = [
        ["take", 0, [0]], ["take", 0, [1]], ["mul", 1, 2], ["div", 3, 2], ["sub", 4, 2], ["power", 5, 3],
        ["join", 6, 3],
        ["affine", 7, encode([2.0, -1.0, 0.0, 3.0]), encode([0.5, -0.25])], ["sum", 8], ["mul", 9, 0],
        ["add", 10, 0], ["neg", 11],
    ]  # fmt: skip
    f = parse(program(2, *code), "f")
    rng = random.Random(1)

    def product(a: list[Fraction], b: list[Fraction]) -> list[Fraction]:
        return [sum(a[i] * b[k - i] for i in range(k + 1)) for k in range(COUNT)]

    def quotient(a: list[Fraction], b: list[Fraction]) -> list[Fraction]:
        found: list[Fraction] = []
        for k in range(COUNT):
            found.append((a[k] - sum(found[i] * b[k - i] for i in range(k))) / b[0])
        return found

    def value(p: list[Fraction], q: list[Fraction]) -> list[list[Fraction]]:
        m = product(p, q)
        d = [a - b for a, b in zip(quotient(m, q), q, strict=True)]
        cube = product(d, product(d, d))
        total = [2 * a - b + 3 * b for a, b in zip(cube, m, strict=True)]
        total[0] += Fraction(1, 4)
        return [[-(a + b) for a, b in zip(product(total, part), part, strict=True)] for part in (p, q)]

    def draw() -> list[Fraction]:
        return [Fraction(rng.choice((-1, 1)) * rng.randint(1, 16), 8) for _ in range(COUNT)]

    with precision(200), order(COUNT):
        for which in (0, 1):
            p, q, direction = draw(), draw(), draw()
            jets = [Jet.of([arb(float(v)) for v in part]) for part in (p, q)]
            jets[which] = Jet(jets[which].value, Jet.of([arb(float(v)) for v in direction]).value)
            found = run(f, jets)
            wanted = value(p, q)
            step = Fraction(1, 2**80)
            moved = [
                [a + step * b for a, b in zip(part, direction, strict=True)] if i == which else part
                for i, part in enumerate((p, q))
            ]
            forward = value(*moved)
            for i in range(2):
                for k in range(COUNT):
                    assert contains(found[i].coefficient(k), wanted[i][k])
                    slope = (forward[i][k] - wanted[i][k]) / step
                    ball = found[i].slope_coefficient(k)
                    assert abs(float(Fraction(float(ball.mid())) - slope)) <= 1e-12 * (1 + abs(float(slope)))
                    assert ball.rad() < 1e-20 * (1 + abs(float(slope)))
    with order(COUNT):
        both = Jet.of([arb(2)], [arb(3)]) * Jet.of([arb(5)], [arb(7)])
        assert both.slope_coefficient(0) == 29
        assert (Jet.of([arb(2)], [arb(3)]) + Jet.of([arb(5)], [arb(7)])).slope_coefficient(0) == 10
        assert (Jet.of([arb(2)], [arb(3)]) - Jet.of([arb(5)], [arb(7)])).slope_coefficient(0) == -4
        assert (Jet.of([arb(2)]) - Jet.of([arb(5)], [arb(7)])).slope_coefficient(0) == -7
        for jet in (
            Jet.of([arb(2)]) + Jet.of([arb(5)]),
            Jet.of([arb(2)]) * Jet.of([arb(5)]),
            -Jet.of([arb(2)]),
        ):
            assert jet.slope is None


def test_one_component_goes_with_all() -> None:
    f = parse(
        program(2, ["const", encode(3.0)], ["sub", 1, 0], ["sub", 2, 1], ["take", 0, [0]], ["mul", 4, 3]), "f"
    )
    with order(COUNT):
        found = run(f, [Jet.of([arb(2), arb(1)]), Jet.of([arb(5)])])
        assert [found[0].coefficient(k) for k in range(3)] == [-4, -4, -1]
        assert [found[1].coefficient(k) for k in range(3)] == [-10, -5, 0]


def test_squares_start_at_zero() -> None:
    with order(COUNT):
        (jet,) = run(parse(program(1, ["square", 0]), "f"), [Jet.of([interval(-1.0, 2.0), arb(3)], [arb(1)])])
        assert ends(jet.coefficient(0)) == pytest.approx((0, 4), abs=1e-6)
        assert ends(jet.coefficient(1)) == pytest.approx((-6, 12), abs=1e-6)
        assert jet.coefficient(2) == 9
        assert ends(jet.slope_coefficient(0)) == pytest.approx((-2, 4), abs=1e-6)


def test_waves_of_wide_balls_are_the_tightest() -> None:
    with order(COUNT), precision(80):
        for name, wanted in (("sin", (0, 1)), ("cos", (-1, 1))):
            (jet,) = run(
                parse(program(1, [name, 0]), "f"), [Jet.of([interval(0.0, 3.14159265358979), arb(0)])]
            )
            assert ends(jet.coefficient(0)) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("code", "start"),
    [
        ([["sqrt", 0]], interval(0.0, 1.0)),
        ([["sqrt", 0]], interval(-2.0, -1.0)),
        ([["log", 0]], interval(0.0, 1.0)),
        ([["log", 0]], interval(-2.0, -1.0)),
        ([["const", encode(1.0)], ["div", 1, 0]], interval(-1.0, 1.0)),
        ([["relu", 0]], interval(1.0, 2.0)),
        ([["const", encode(0.0)], ["mul", 1, 0]], NAN),
        ([["const", encode(0.0)], ["mul", 0, 1]], NAN),
        ([["affine", 0, encode(0.0), encode(1.0)]], NAN),
        ([["sin", 0]], NAN),
        ([["square", 0]], NAN),
    ],
)
def test_no_series_without_a_value(code: list[Any], start: arb) -> None:
    with order(COUNT):
        for slopes in (None, [arb(1)]):
            (jet,) = run(parse(program(1, *code), "f"), [Jet.of([start, arb(1)], slopes)])
            for k in range(COUNT):
                assert not jet.coefficient(k).is_finite()
                assert not jet.slope_coefficient(k).is_finite()


def test_a_slope_needs_its_value() -> None:
    with order(COUNT):
        jet = Jet.of([arb(1), NAN, arb(3)], [arb(4), arb(5), arb(6)])
        assert jet.coefficient(0) == 1
        assert jet.slope_coefficient(0) == 4
        assert not jet.slope_coefficient(1).is_finite()
        assert not jet.coefficient(2).is_finite()
        assert not jet.slope_coefficient(2).is_finite()


def test_taylor_coefficients_of_solutions() -> None:
    """`dx/dt = x y + u1`, `dy/dt = u0 - x y / 2`: the recursion in rationals, and its derivative in each input."""
    plant = parse(
        program(
            4, ["take", 0, [0]], ["take", 0, [1]], ["mul", 1, 2], ["take", 0, [2]], ["take", 0, [3]], ["add", 3, 5],
            ["affine", 3, encode([-0.5]), encode([0.0])], ["add", 4, 7], ["join", 6, 8],
        ),
        "plant",
    )  # fmt: skip

    def exact(x: Fraction, y: Fraction, u: list[Fraction]) -> list[list[Fraction]]:
        a, b = [x], [y]
        for k in range(5):
            m = sum(a[i] * b[k - i] for i in range(k + 1))
            a.append((m + (u[1] if k == 0 else 0)) / (k + 1))
            b.append(((u[0] if k == 0 else 0) - m / 2) / (k + 1))
        return [a, b]

    rng = random.Random(2)
    with precision(200), order(COUNT):
        for chosen in (None, 0, 1):
            x, y, *u = (Fraction(rng.randint(1, 32), 16) for _ in range(4))
            found = solution(plant, [arb(float(x)), arb(float(y))], [arb(float(v)) for v in u], 5, chosen)
            wanted, step = exact(x, y, u), Fraction(1, 2**80)
            forward = exact(x, y, [v + step * (j == chosen) for j, v in enumerate(u)])
            for i in range(2):
                for k in range(COUNT):
                    assert contains(found[i].coefficient(k), wanted[i][k])
                    assert found[i].coefficient(k).rad() < 1e-40
                    slope = float((forward[i][k] - wanted[i][k]) / step)
                    assert float(found[i].slope_coefficient(k).mid()) == pytest.approx(slope, abs=1e-12)
