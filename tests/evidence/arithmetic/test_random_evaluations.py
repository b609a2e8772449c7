"""Random evaluations of the checker's arithmetic: no enclosure misses its value, in one thread and in eight."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

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
    order,
    parse,
    precision,
    rk4,
    solution,
)
from constrained_nn.verify.arithmetic.balls import UNARY, power
from tests.evidence.arithmetic.test_balls import FUNCTIONS
from tests.evidence.arithmetic.test_solutions import PLANT, step
from tests.evidence.arithmetic.test_vectors import EXACT
from tests.evidence.conditions.minimal import encode, program

# what is evaluated, under which precision, and the values that its balls contain
Case = tuple[Callable[[], list[arb]], list[Fraction]]
CHUNK = 4_000


def rational(x: mpf) -> Fraction:
    sign, mantissa, exponent, _ = x._mpf_
    return Fraction((-1) ** sign * int(mantissa)) * Fraction(2) ** exponent


def exact(x: arb) -> Fraction:
    mantissa, exponent = x.man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def holds(ball: arb, value: Fraction) -> bool:
    """Whether a ball contains a value that is known to 100 bits."""
    if not ball.is_finite():
        return True  # it says nothing
    return abs(exact(ball.mid()) - value) <= exact(ball.rad()) + (1 + abs(value)) / 2**100


def span(rng: random.Random, low: float, high: float) -> tuple[float, float, Fraction]:
    """Ends of a random interval, of all widths, and a point in it."""
    a = rng.uniform(low, high)
    b = min(a + rng.choice((0.0, 2.0**-40, 1e-3, 0.25, 3.0)) * rng.random(), high)
    share = rng.choice((0, 1, Fraction(rng.randint(0, 64), 64)))
    return a, b, Fraction(a) + (Fraction(b) - Fraction(a)) * share


def of_function(rng: random.Random) -> Case:
    name = rng.choice(list(UNARY))
    f, slope, (low, high), turns = FUNCTIONS[name]
    a, b, point = span(rng, low, high)
    x = mpf(point.numerator) / point.denominator
    if not low < x < high or x in turns:
        x, a, b = mpf(0.5), 0.5, 0.5
    return (lambda: [image(interval(a, b)) for image in UNARY[name]]), [rational(f(x)), rational(slope(x))]


def of_power(rng: random.Random) -> Case:
    a, b, point = span(rng, -3.0, 3.0)
    k = rng.randint(2, 9)
    return (lambda: [power(interval(a, b), k)]), [point**k]


def of_two(rng: random.Random) -> Case:
    op = rng.choice(BINARY)
    (a, b, x), (c, d, y) = span(rng, -3.0, 3.0), span(rng, 0.5, 3.0)
    f, slopes = EXACT[op]

    def evaluate() -> list[arb]:
        box = Vector.box([a, c], [b, d])
        found = apply(op, box.take([0]), box.take([1]))
        return [*found.values, *found.jacobian[0]]

    return evaluate, [Fraction(v) for v in (f(x, y), *(slopes(x, y) if x != y else slopes(x + 1, y)))][
        : 3 if x != y else 1
    ]


def of_program(rng: random.Random) -> Case:
    """Six operations on two coordinates, enclosed naturally and by the mean-value form."""
    (a, b, x), (c, d, y) = span(rng, -2.0, 2.0), span(rng, -2.0, 2.0)
    code: list[list[Any]] = [["take", 0, [0]], ["take", 0, [1]]]
    values = [None, x, y]
    for _ in range(6):
        op = rng.choice(("add", "sub", "mul", "max", "min", "square", "relu", "abs", "neg", "affine"))
        i, j = rng.randint(1, len(values) - 1), rng.randint(1, len(values) - 1)
        if op == "affine":
            w, v = rng.randint(-8, 8) / 4, rng.randint(-8, 8) / 4
            code.append(["affine", i, encode(w), encode(v)])
            values.append(Fraction(w) * values[i] + Fraction(v))
        elif op in BINARY:
            code.append([op, i, j])
            values.append(EXACT[op][0](values[i], values[j]))
        else:
            code.append([op, i])
            of = {
                "square": lambda v: v * v,
                "relu": lambda v: max(v, Fraction(0)),
                "abs": abs,
                "neg": lambda v: -v,
            }
            values.append(of[op](values[i]))
    net = Interpreter(parse(program(2, *code), "f"))
    return (lambda: [net(Vector.box([a, c], [b, d])).values[0], enclose(net, [a, c], [b, d]).values[0]]), [
        values[-1]
    ] * 2


def of_solution(rng: random.Random) -> Case:
    """Taylor coefficients along a solution, by the recursion in rationals."""
    spans = [span(rng, -1.0, 1.0) for _ in range(4)]
    x, y, u, v = (s[2] for s in spans)
    first, second = [x], [y]
    for k in range(5):
        m = sum(first[i] * second[k - i] for i in range(k + 1))
        first.append((m + (v if k == 0 else 0)) / (k + 1))
        second.append(((u if k == 0 else 0) - m / 2) / (k + 1))

    def evaluate() -> list[arb]:
        balls = [interval(s[0], s[1]) for s in spans]
        with order(6):
            jets = solution(PLANT, balls[:2], balls[2:], 5, None)
        return [jet.coefficient(k) for jet in jets for k in range(6)]

    return evaluate, first + second


def of_step(rng: random.Random) -> Case:
    (a, b, x), (c, d, y) = span(rng, -1.0, 1.0), span(rng, -1.0, 1.0)
    u, h = [rng.randint(-8, 8) / 8 for _ in range(2)], rng.randint(1, 16) / 32
    wanted = step([x, y], [Fraction(v) for v in u], Fraction(h))
    return (lambda: rk4(Interpreter(PLANT), Vector.box([a, c], [b, d]), Vector.constant(u), h).values), wanted


KINDS = (of_function, of_function, of_function, of_power, of_two, of_two, of_program, of_solution, of_step)


def wrong(count: int, threads: int, seed: int) -> tuple[int, list[str]]:
    """How many enclosures were evaluated, `count` at least, and which of them missed their value."""
    rng, said, missed = random.Random(seed), [], []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        while len(said) < count:
            with mpmath.workprec(140):  # of the process as well: the oracle works alone
                cases = [rng.choice(KINDS)(rng) for _ in range(min(CHUNK, count))]

            def work(part: list[Case]) -> None:
                for evaluate, wanted in part:
                    try:
                        with precision(64):
                            balls = evaluate()
                    except Exception as error:
                        missed.append(repr(error))
                        continue
                    pairs = list(zip(balls, wanted, strict=False))
                    said.extend(ball.is_finite() for ball, _ in pairs)
                    missed.extend(
                        f"{ball} is not {float(value)!r}" for ball, value in pairs if not holds(ball, value)
                    )

            workers = [threading.Thread(target=work, args=(cases[i::threads],)) for i in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
    finally:
        sys.setswitchinterval(before)
    assert sum(said) > 0.9 * len(said)
    return len(said), missed


@pytest.mark.parametrize("threads", [1, 8])
def test_two_thousand_enclosures(threads: int) -> None:
    done, missed = wrong(2_000, threads, seed=threads)
    assert done >= 2_000
    assert not missed


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 8])
def test_a_million_enclosures(threads: int) -> None:
    done, missed = wrong(1_000_000, threads, seed=100 + threads)
    print(f"{done} enclosures in {threads} threads, {len(missed)} wrong")
    assert not missed
