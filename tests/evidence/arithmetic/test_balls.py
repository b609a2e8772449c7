"""Images and slopes of every function over balls, against mpmath: they contain every value, and little more."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction

import mpmath
import pytest
from flint import arb, arf
from mpmath import mpf

from constrained_nn.verify.arithmetic import above, below, interval, maximum, precision
from constrained_nn.verify.arithmetic import balls as _balls
from constrained_nn.verify.arithmetic.balls import NAN, UNARY, meet, minimum, power, reciprocal

Real = Callable[[mpf], mpf]
INFINITE = (NAN, arb("inf"), arb("-inf"), arb(0, math.inf))


def _sigmoid(x: mpf) -> mpf:
    return 1 / (1 + mpmath.exp(-x))


def _bell(x: mpf) -> mpf:
    return mpmath.exp(-x * x / 2) / mpmath.sqrt(2 * mpmath.pi)


def _step(x: mpf) -> mpf:
    return mpf(x > 0)


# name -> function, slope, where they are defined, and where either may turn
FUNCTIONS: dict[str, tuple[Real, Real, tuple[float, float], tuple[float, ...]]] = {
    "neg": (lambda x: -x, lambda x: mpf(-1), (-9, 9), ()),
    "abs": (abs, lambda x: 2 * _step(x) - 1, (-9, 9), (0.0,)),
    "sqrt": (mpmath.sqrt, lambda x: 1 / (2 * mpmath.sqrt(x)), (0.0, 9), ()),
    "square": (lambda x: x * x, lambda x: 2 * x, (-9, 9), (0.0,)),
    "exp": (mpmath.exp, mpmath.exp, (-9, 9), ()),
    "expm1": (mpmath.expm1, mpmath.exp, (-9, 9), ()),
    "log": (mpmath.log, lambda x: 1 / x, (0.0, 9), ()),
    "log1p": (lambda x: mpmath.log(1 + x), lambda x: 1 / (1 + x), (-1.0, 9), ()),
    "sin": (mpmath.sin, mpmath.cos, (-40, 40), tuple(k * math.pi / 2 for k in range(-26, 27))),
    "cos": (mpmath.cos, lambda x: -mpmath.sin(x), (-40, 40), tuple(k * math.pi / 2 for k in range(-26, 27))),
    "tan": (mpmath.tan, lambda x: 1 + mpmath.tan(x) ** 2, (-1.5, 1.5), (0.0,)),
    "atan": (mpmath.atan, lambda x: 1 / (1 + x * x), (-9, 9), (0.0,)),
    "tanh": (mpmath.tanh, lambda x: 1 - mpmath.tanh(x) ** 2, (-9, 9), (0.0,)),
    "erf": (mpmath.erf, lambda x: 2 * mpmath.exp(-x * x) / mpmath.sqrt(mpmath.pi), (-4, 4), (0.0,)),
    "relu": (lambda x: max(x, mpf(0)), _step, (-9, 9), (0.0,)),
    "sigmoid": (_sigmoid, lambda x: _sigmoid(x) * (1 - _sigmoid(x)), (-9, 9), (0.0,)),
    "softplus": (lambda x: mpmath.log(1 + mpmath.exp(x)), _sigmoid, (-9, 9), ()),
    "silu": (
        lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) * (1 + x * (1 - _sigmoid(x))), (-9, 9),
        (-1.2784645427610738, 2.3993572805154677, -2.3993572805154677),
    ),
    "gelu": (
        lambda x: x * mpmath.ncdf(x), lambda x: mpmath.ncdf(x) + x * _bell(x), (-6, 6),
        (-0.7517915246935645, math.sqrt(2), -math.sqrt(2)),
    ),
}  # fmt: skip
# slopes that are quotients or products of balls, which are not the tightest over wide balls
LOOSE = {"log", "log1p", "sqrt", "tan", "tanh", "atan", "erf"}


def number(x: arf | arb) -> mpf:
    """The exact value of a ball without radius."""
    mantissa, exponent = (x.mid() if isinstance(x, arb) else x).man_exp()
    return mpmath.ldexp(mpf(int(mantissa)), int(exponent))


def ends(x: arb) -> tuple[mpf, mpf]:
    """Exact ends of a ball, or a little outside of them."""
    with precision(300):
        return number(x.lower()), number(x.upper())


def test_every_function_has_an_oracle() -> None:
    assert set(FUNCTIONS) == set(UNARY)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("which", [0, 1], ids=["value", "slope"])
def test_images_contain_all_values_and_little_more(name: str, which: int) -> None:
    _, _, (low, high), turns = FUNCTIONS[name]
    f, image, rng = FUNCTIONS[name][which], UNARY[name][which], random.Random(name)
    centers = [rng.uniform(low, high) for _ in range(8)] + list(turns[-4:])
    with mpmath.workprec(120), precision(80):
        for radius in (2.0**-20, 0.25, 1.0, 2.0, 2.9, 3.5):
            for center in centers:
                a, b = center - radius * rng.uniform(0.3, 1), center + radius * rng.uniform(0.3, 1)
                if not low < a < b < high:
                    continue
                points = [mpf(a + (b - a) * k / 24) for k in range(25)] + [mpf(t) for t in turns if a < t < b]
                values = [f(x) for x in points]
                least, most = ends(image(interval(a, b)))
                size = 1 + max(map(abs, values))
                assert least <= min(values), (a, b)
                assert most >= max(values), (a, b)
                kink = which == 1 and name in ("abs", "relu") and a < 0 < b
                if (name in ("sin", "cos") and b - a > 6.0001) or kink:
                    assert least == pytest.approx(0 if name == "relu" else -1, abs=1e-8)
                    assert most == pytest.approx(1, abs=1e-8)
                elif radius < 0.01 or not (which == 1 and name in LOOSE):
                    room = 0.02 if radius < 0.01 else 0.02 * radius
                    assert most - least <= (max(values) - min(values)) * (1 + room) + size * (
                        1e-14 + 1e-8 * (radius > 0.01)
                    )


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("which", [0, 1], ids=["value", "slope"])
def test_nothing_is_known_of_what_is_not_finite(name: str, which: int) -> None:
    for x in INFINITE:
        if (name, which) != ("neg", 1):
            assert not UNARY[name][which](x).is_finite()


def test_nothing_is_known_beyond_the_domain() -> None:
    for name, edge in (("sqrt", 0.0), ("log", 0.0), ("log1p", -1.0)):
        for which in (0, 1):
            f = UNARY[name][which]
            assert not f(interval(edge - 0.5, edge + 0.5)).is_finite()
            assert not f(interval(edge - 2.0, edge - 1.0)).is_finite()
            assert f(interval(edge + 0.25, edge + 0.5)).is_finite()
            assert f(arb(edge)).is_finite() is ((name, which) == ("sqrt", 0))
    assert UNARY["sqrt"][0](arb(0)) == 0
    for which in (0, 1):
        assert not UNARY["tan"][which](interval(1.5, 1.6)).is_finite()
        assert UNARY["tan"][which](interval(1.6, 1.7)).is_finite()


def test_waves_far_out() -> None:
    for name in ("sin", "cos"):
        f = UNARY[name][0]
        for x in (
            interval(0.25, 6.75),
            interval(2000.0, 2000.125),
            interval(-1e300, 1e300),
            interval(-3e3, -2e3),
        ):
            assert ends(f(x)) == pytest.approx((-1, 1), abs=1e-8)
            assert f(x).contains(interval(-1, 1))
        assert ends(f(interval(999.0, 999.0009765625)))[0] > -1


@pytest.mark.parametrize("k", [2, 3, 4, 7])
def test_powers(k: int) -> None:
    for a, b in ((-2.0, -1.0), (-1.0, 2.0), (-2.0, 1.0), (0.5, 3.0)):
        values = [Fraction(a) ** k, Fraction(b) ** k, *([Fraction(0)] if a < 0 < b and k % 2 == 0 else [])]
        least, most = ends(power(interval(a, b), k))
        assert least == pytest.approx(float(min(values)), rel=1e-6, abs=1e-4)
        assert most == pytest.approx(float(max(values)), rel=1e-6, abs=1e-4)
    assert not power(NAN, k).is_finite()


def test_reciprocals() -> None:
    for a, b in ((0.5, 2.0), (-4.0, -0.5)):
        least, most = ends(reciprocal(interval(a, b)))
        assert least <= 1 / mpf(b)
        assert most >= 1 / mpf(a)
        assert most - least <= 1 / mpf(a) - 1 / mpf(b) + 1e-7
    for x in (interval(-1.0, 1.0), interval(0.0, 1.0), arb(0), *INFINITE[:1]):
        assert not reciprocal(x).is_finite()


def test_larger_and_smaller_of_two() -> None:
    rng = random.Random(0)
    for _ in range(500):
        a, b = (sorted(rng.randint(-8, 8) / 8 for _ in range(2)) for _ in range(2))
        for f, of in ((maximum, max), (minimum, min)):
            least, most = ends(f(interval(*a), interval(*b)))
            assert least == pytest.approx(of(a[0], b[0]), abs=1e-6)
            assert most == pytest.approx(of(a[1], b[1]), abs=1e-6)
            assert least <= of(a[0], b[0])
            assert most >= of(a[1], b[1])
    for f, x in (
        (maximum, interval(2.0, 3.0)),
        (minimum, interval(-3.0, -2.0)),
    ):  # as it is, where it is decided
        assert f(x, arb(0)).rad() == f(arb(0), x).rad() == x.rad()
    for x in INFINITE:
        for f in (maximum, minimum):
            assert f(x, arb(1)).is_nan()
            assert f(arb(1), x).is_nan()


def test_meeting() -> None:
    a, b = interval(0.0, 2.0), interval(1.0, 3.0)
    least, most = ends(meet(a, b))
    assert least == pytest.approx(1.0, abs=1e-6)
    assert most == pytest.approx(2.0, abs=1e-6)
    assert least <= 1
    assert most >= 2
    for x in INFINITE:
        assert ends(meet(a, x)) == ends(a)
        assert ends(meet(x, b)) == ends(b)
        assert not meet(x, x).is_finite()
    assert meet(interval(0.0, 1.0), interval(2.0, 3.0)).is_nan()


def test_wider_balls() -> None:
    for x in (interval(-1.0, 3.0), arb(2)):
        least, most = ends(_balls.widen(x, 0.5, 0.25))
        half = 0.0 if x == 2 else 2.0
        middle = 2 if x == 2 else 1
        assert least == pytest.approx(middle - 1.5 * half - 0.25, abs=1e-6)
        assert most == pytest.approx(middle + 1.5 * half + 0.25, abs=1e-6)


def test_doubles_around_a_ball() -> None:
    rng = random.Random(1)
    with precision(200):
        for k in range(400):
            x = arb(rng.randint(-(10**9), 10**9)) / rng.randint(1, 10**9) * arb(2) ** rng.randint(-30, 30)
            x = arb(x.mid(), 0 if k % 2 else 2.0**-60)
            least, most = ends(x)
            low, high = below(x), above(x)
            assert mpf(low) <= least <= mpf(math.nextafter(math.nextafter(low, math.inf), math.inf))
            assert mpf(high) >= most >= mpf(math.nextafter(math.nextafter(high, -math.inf), -math.inf))
        assert below(arb(0.1)) == above(arb(0.1)) == 0.1
        for x in INFINITE:
            assert (below(x), above(x)) == (-math.inf, math.inf)


def test_roots_are_bracketed() -> None:
    root = _balls._root(lambda x: x * x - 2, 1.0, 2.0)
    with mpmath.workprec(200):
        least, most = ends(root)
        assert least <= mpmath.sqrt(2) <= most
        assert most - least < 1e-29
        assert _balls._root(lambda x: x, -1.0, 2.0).contains(0)
    for low, high in ((1.0, 2.0), (-2.0, -1.0), (1.0, -1.0)):
        with pytest.raises(AssertionError, match="not bracketed"):
            _balls._root(lambda x: x, low, high)


def test_turning_points() -> None:
    for (least, most), turn in zip(
        [ends(t) for t in (*_balls._silu_turn(), *_balls._silu_slope_turns(), *_balls._gelu_turn())],
        (*FUNCTIONS["silu"][3], FUNCTIONS["gelu"][3][0]),
        strict=True,
    ):
        assert least == pytest.approx(turn, abs=1e-14)
        assert most == pytest.approx(turn, abs=1e-14)
        assert most - least < 1.01 * mpf(2) ** -100  # of a bracket that is at most 1 wide
    assert [float(t) for t in _balls._gelu_slope_turns()] == [math.sqrt(2), -math.sqrt(2)]


def test_the_double_below_is_the_nearest_or_next_to_it() -> None:
    rng = random.Random(2)
    with precision(200):
        for _ in range(400):
            value = Fraction(rng.randint(-(10**30), 10**30), 10 ** rng.randint(20, 40))
            x = arb(value.numerator) / value.denominator
            found = below(x)
            assert Fraction(found) <= value
            assert value - Fraction(found) <= abs(value) / 2**48
    assert below(arb(0.1)) == 0.1
    assert below(arb(-0.1)) == -0.1
    assert below(interval(1.0, 2.0)) <= 1.0
    assert below(NAN) == -math.inf
    assert below(arb(2) ** -1080) == 0.0
    assert -1e-300 < below(-(arb(2) ** -1080)) < 0
