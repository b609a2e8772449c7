"""Programs on vectors of balls: values and Jacobians against rationals and mpmath, over random boxes."""

from __future__ import annotations

import random
from fractions import Fraction

import mpmath
import pytest
from flint import arb
from mpmath import mpf

from constrained_nn.verify.arithmetic import (
    BINARY,
    Interpreter,
    Vector,
    apply,
    enclose,
    interval,
    join,
    linear,
    parse,
    precision,
)
from constrained_nn.verify.arithmetic.balls import NAN
from tests.evidence.arithmetic.test_balls import FUNCTIONS, ends
from tests.evidence.conditions.minimal import encode, program

EXACT = {
    "add": (lambda x, y: x + y, lambda x, y: (1, 1)),
    "sub": (lambda x, y: x - y, lambda x, y: (1, -1)),
    "mul": (lambda x, y: x * y, lambda x, y: (y, x)),
    "div": (lambda x, y: x / y, lambda x, y: (1 / y, -x / y**2)),
    "max": (max, lambda x, y: (int(x > y), int(x < y))),
    "min": (min, lambda x, y: (int(x < y), int(x > y))),
}


def contains(ball: arb, value: Fraction | int) -> bool:
    value = Fraction(value)
    with precision(600):
        return (ball * value.denominator).contains(value.numerator)


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("known", ["both", "left", "right", "neither"])
def test_two_by_two(op: str, known: str) -> None:
    """`f(x, y)` of both coordinates, or of one and a constant; narrow boxes, so that nothing much is lost."""
    f, slopes = EXACT[op]
    rng = random.Random(op + known)
    with precision(80):
        for _ in range(40):
            center = [Fraction(rng.choice((-1, 1)) * rng.randint(4, 64), 8) for _ in range(2)]
            half = Fraction(1, 2**20)
            box = Vector.box(*([float(c + s * half) for c in center] for s in (-1, 1)))
            if known == "neither":
                box = Vector(box.values)
            x, y = box.take([0]), box.take([1])
            if known == "left":
                y = Vector.constant([float(center[1])])
            elif known == "right":
                x = Vector.constant([float(center[0])])
            found = apply(op, x, y)
            points = [
                (
                    center[0] + rng.choice((-1, 0, 1)) * half * (known != "right"),
                    center[1] + rng.choice((-1, 0, 1)) * half * (known != "left"),
                )
                for _ in range(9)
            ]
            assert all(contains(found.values[0], f(*p)) for p in points)
            assert ends(found.values[0])[1] - ends(found.values[0])[0] < 1e-3
            assert (found.jacobian is None) is (known == "neither")
            for j in range(2 * (found.jacobian is not None)):
                wanted = [
                    slopes(*p)[j] if (known, j) not in (("left", 1), ("right", 0)) else 0 for p in points
                ]
                if op not in ("max", "min") or center[0] != center[1]:
                    assert all(contains(found.jacobian[0][j], s) for s in wanted)
                    assert ends(found.jacobian[0][j])[1] - ends(found.jacobian[0][j])[0] < 1e-3


@pytest.mark.parametrize("op", ["max", "min"])
def test_both_may_be_the_larger(op: str) -> None:
    box = Vector.box([0.0, 0.5], [1.0, 1.5])
    found = apply(op, box.take([0]), box.take([1]))
    for entry in found.jacobian[0]:
        assert ends(entry) == pytest.approx((0, 1), abs=1e-6)
    found = apply(op, box.take([0]), Vector.constant([0.5]))
    assert ends(found.jacobian[0][0]) == pytest.approx((0, 1), abs=1e-6)
    assert found.jacobian[0][1] == 0
    assert ends(apply(op, Vector.constant([0.5]), box.take([0])).jacobian[0][0]) == pytest.approx(
        (0, 1), abs=1e-6
    )
    bad = Vector([NAN], [[arb(1), arb(2)]])
    for pair in ((bad, box.take([0])), (box.take([0]), bad)):
        assert all(entry.is_nan() for entry in apply(op, *pair).jacobian[0])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_chain_rule(name: str) -> None:
    """`f(2 x0 - 3 x1)` and its two derivatives, over a narrow box."""
    f, slope, (low, high), _ = FUNCTIONS[name]
    net = Interpreter(parse(program(2, ["affine", 0, encode([2.0, -3.0]), encode([0.25])], [name, 1]), "f"))
    rng = random.Random(name)
    with mpmath.workprec(120), precision(80):
        for _ in range(10):
            goal = rng.uniform(max(low, -5) + 0.01, min(high, 5) - 0.01)
            x1 = rng.uniform(-1, 1)
            x0 = (goal - 0.25 + 3 * x1) / 2
            found = net(Vector.box([x0, x1], [x0 + 2.0**-30, x1 + 2.0**-30]))
            z = 2 * mpf(x0) - 3 * mpf(x1) + 0.25
            for ball, value in zip(
                (found.values[0], *found.jacobian[0]), (f(z), 2 * slope(z), -3 * slope(z)), strict=True
            ):
                assert ends(ball)[0] <= value <= ends(ball)[1]
                assert ends(ball)[1] - ends(ball)[0] < 1e-4 * (1 + abs(value))
            (plain,) = net(Vector.constant([x0, x1])).values
            assert ends(plain)[0] <= f(z) <= ends(plain)[1]


def test_every_instruction_in_rationals() -> None:
    """A polynomial program, evaluated at points in rationals."""
    code = [
        ["const", encode([1.5, -2.0])], ["join", 0, 1], ["take", 2, [3, 0, 1]],
        ["affine", 3, encode([1.0, 2.0, 3.0, 0.0, -1.0, 0.5]), encode([0.25, -1.0])],
        ["power", 4, 3], ["sum", 5], ["mul", 6, 4], ["power", 7, 2], ["square", 8], ["sub", 9, 1], ["add", 1, 10],
        ["neg", 11],
    ]  # fmt: skip
    net = Interpreter(parse(program(2, *code), "f"))

    def exact(a: Fraction, b: Fraction) -> list[Fraction]:
        c = (Fraction(-2), a, b)
        d = [c[0] + 2 * c[1] + 3 * c[2] + Fraction(1, 4), -c[1] + c[2] / 2 - 1]
        total = sum(v**3 for v in d)
        return [-(k + (total * v) ** 4 - k) for v, k in zip(d, (Fraction(3, 2), Fraction(-2)), strict=True)]

    rng = random.Random(4)
    with precision(120):
        for _ in range(30):
            a, b = (Fraction(rng.randint(-16, 16), 16) for _ in range(2))
            h = Fraction(1, 2**16)
            found = net(Vector.box([float(a - h), float(b - h)], [float(a + h), float(b + h)]))
            wanted = exact(a, b)
            assert all(contains(ball, v) for ball, v in zip(found.values, wanted, strict=True))
            step = Fraction(1, 2**40)
            for j, move in enumerate(((step, 0), (0, step))):
                forward = exact(a + move[0], b + move[1])
                for i in range(2):
                    slope = float((forward[i] - wanted[i]) / step)
                    least, most = ends(found.jacobian[i][j])
                    size = 1e-6 * (1 + abs(slope))
                    assert least - size <= slope <= most + size
                    assert most - least < 0.05 * (1 + abs(slope)) + 1e-3 * float(max(map(abs, wanted)))
            point = net(Vector.constant([float(a), float(b)]))
            assert point.jacobian is None
            assert all(
                contains(ball, v) and ball.rad() < 1e-6 * (1 + abs(v))
                for ball, v in zip(point.values, wanted, strict=True)
            )


def test_constants_have_no_slope() -> None:
    net = Interpreter(parse(program(2, ["const", encode([1.0, 2.0])]), "f"))
    assert net(Vector.constant([0.0, 0.0])).jacobian is None
    assert net(Vector.box([0.0, 0.0], [1.0, 1.0])).jacobian == [[0, 0], [0, 0]]
    mixed = join(Vector.constant([3.0]), Vector.box([0.0], [1.0]))
    assert mixed.jacobian == [[0], [1]]
    assert mixed.values[0] == 3
    assert join(Vector.constant([3.0]), Vector.constant([4.0])).jacobian is None
    for count in (1, 3):
        with pytest.raises(AssertionError, match="inputs"):
            net(Vector.constant([0.0] * count))


def test_one_component_goes_with_any_other() -> None:
    box = Vector.box([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    for pair in ((box.take([0]), box), (box, box.take([0]))):
        assert apply("add", *pair).values == [2, 3, 4]
        assert apply("add", *pair).jacobian == [[2, 0, 0], [1, 1, 0], [1, 0, 1]]
    assert apply("sub", box.take([0]), box).values == [0, -1, -2]
    assert apply("sub", box, box.take([0])).values == [0, 1, 2]
    assert apply("add", box, box).values == [2, 4, 6]
    assert apply("sum", box).values == [6]
    assert apply("sum", box).jacobian == [[1, 1, 1]]
    assert apply("sum", Vector(box.values)).jacobian is None


def test_slopes_that_are_nothing_spoil_their_rows_only() -> None:
    """A zero derivative hides a wide slope, not a missing one."""
    box = Vector.box([-1.0, 1.0], [1.0, 2.0])
    root = apply("sqrt", box)
    assert not root.values[0].is_finite()
    assert not root.jacobian[0][0].is_finite()
    assert not root.jacobian[0][1].is_finite()
    assert root.jacobian[1][0] == 0
    assert root.jacobian[1][1].is_finite()
    infinite = Vector([arb(0, float("inf"))], [[arb(1), arb(0)]])
    product = apply("mul", infinite, box.take([1]))
    assert not product.jacobian[0][1].is_finite()


def test_linear_maps() -> None:
    found = linear(
        [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [0.5, -0.5, 1.0], Vector.box([1.0, -1.0], [1.0, -1.0])
    )
    assert found.values == [-0.5, -1.5, 0]
    assert found.jacobian == [[1, 2], [3, 4], [5, 6]]
    plain = linear([[1.0, 2.0]], [0.5], Vector.constant([1.0, -1.0]))
    assert plain.values == [-0.5]
    assert plain.jacobian is None


def test_mean_value_form_is_the_tighter_one() -> None:
    """`x² - x` over [1, 1 + w]: the natural form has the width 3 w, the mean-value form `w` and little more."""
    net = Interpreter(parse(program(1, ["square", 0], ["sub", 1, 0]), "f"))
    for a in (1.0, -3.0):
        with precision(80):
            found = enclose(net, [a], [a + 2.0**-10])
        least, most = ends(found.values[0])
        low, high = sorted((a * a - a, (a + 2.0**-10) ** 2 - a - 2.0**-10))
        assert least <= low
        assert most >= high
        assert most - least <= (high - low) * 1.01 + 1e-12
        assert contains(found.jacobian[0][0], Fraction(2 * a - 1))
    # and where the natural form is the tighter one, that
    square = Interpreter(parse(program(1, ["square", 0]), "f"))
    with precision(80):
        least, most = ends(enclose(square, [-1.0], [1.0]).values[0])
    assert least == pytest.approx(0, abs=1e-8)
    assert most == pytest.approx(1, abs=1e-8)


def test_enclosure_over_random_boxes() -> None:
    """`x0 x1 - sin(x0)` against samples; two coordinates, so that every product of slope and move counts."""
    net = Interpreter(
        parse(program(2, ["take", 0, [0]], ["take", 0, [1]], ["mul", 1, 2], ["sin", 1], ["sub", 3, 4]), "f")
    )
    rng = random.Random(5)
    with mpmath.workprec(100), precision(80):
        for _ in range(60):
            low = [rng.uniform(-2, 2) for _ in range(2)]
            high = [v + rng.choice((0.0, 0.01, 0.5)) for v in low]
            least, most = ends(enclose(net, low, high).values[0])
            points = [
                [mpf(a) + (mpf(b) - a) * rng.random() for a, b in zip(low, high, strict=True)]
                for _ in range(20)
            ]
            points += [[mpf(a), mpf(b)] for a in (low[0], high[0]) for b in (low[1], high[1])]
            values = [a * b - mpmath.sin(a) for a, b in points]
            assert least <= min(values)
            assert most >= max(values)
    constant = enclose(lambda x: Vector.constant([7.0]), [0.0], [1.0])
    assert constant.values == [7]
    assert interval(0.0, 1.0).contains(0.5)
