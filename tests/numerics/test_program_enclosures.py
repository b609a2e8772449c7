"""Balls, programs and covers of the checker: every enclosure contains every sample."""

from __future__ import annotations

import numpy as np
import pytest
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st

from constrained_nn.errors import FileFormatError
from constrained_nn.evidence.tracing import POINTWISE, Builder, evaluate
from constrained_nn.verify import encode, leaves
from constrained_nn.verify.arithmetic import (
    BINARY,
    OPERATIONS,
    Interpreter,
    Jet,
    Program,
    Vector,
    apply,
    enclose,
    interval,
    maximum,
    order,
    parse,
    precision,
    run,
)
from constrained_nn.verify.arithmetic import UNARY as NAMES
from constrained_nn.verify.arithmetic.balls import UNARY, minimum, power

SMOOTH = [name for name in NAMES if name not in ("sqrt", "log", "log1p", "tan", "exp", "expm1")]


def ends(ball: arb) -> tuple[float, float]:
    return float(ball.lower()), float(ball.upper())


def test_every_operation_has_its_ball_and_its_points() -> None:
    assert set(NAMES) == set(UNARY) == set(POINTWISE)
    others = {"const": [encode([2.0, 3.0])], "take": [0, [1, 0]], "join": [0, 0], "power": [0, 3], "sum": [0]}
    others["affine"] = [0, encode([1.0, 2.0, 3.0, 4.0]), encode([0.5, 0.25])]
    x = np.array([0.25, 0.5])
    for op in OPERATIONS:
        arguments = others.get(op, [0, 1] if op in BINARY else [0])  # of both, one has a single component
        program = parse({"inputs": 2, "code": [["take", 0, [0]], [op, *arguments]]}, op)
        with precision(64), order(1):
            balls = Interpreter(program)(Vector.constant(x)).values
            series = [jet.coefficient(0) for jet in run(program, [Jet.of([arb(v)]) for v in x])]
        assert [float(ball.mid()) for ball in balls] == pytest.approx(evaluate(program, x).tolist())
        for jet, ball in zip(series, balls, strict=True):
            assert not jet.is_finite() or jet.overlaps(ball)


@pytest.mark.parametrize("name", NAMES)
def test_images_contain_the_samples_and_are_tight(name: str, rng: np.random.Generator) -> None:
    positive = name in ("sqrt", "log")
    shift = 5.1 if positive else 0.0
    for width in (0.0, 1e-9, 1e-2, 0.3, 2.0, 5.0):
        for center in rng.uniform(-1.0, 1.0, 20) * (5.0 if width < 1 else 1.0) + shift:
            low, high = center - 0.5 * width, center + 0.5 * width
            if (positive and low <= 0.01) or (name == "log1p" and low <= -0.99):
                continue
            with precision(64):
                value, slope = (ends(f(interval(low, high))) for f in UNARY[name])
            x = np.linspace(low, high, 400)
            y = POINTWISE[name](x)
            if name == "tan" and not np.isfinite(value).all():
                assert np.cos(x).min() <= 1e-3 or width > 1
                continue
            assert value[0] - 1e-13 <= y.min()
            assert y.max() <= value[1] + 1e-13
            if name != "tan":
                assert value[1] - value[0] <= np.ptp(y) + 1e-3 * width * (1 + np.abs(y).max()) + 1e-12
            rates = np.diff(y) / np.diff(x) if width > 1e-6 else np.zeros(0)
            noise = 1e-9 * (1.0 + np.abs(y).max())
            assert (rates >= slope[0] - noise).all()
            assert (rates <= slope[1] + noise).all()


def test_wide_and_far_balls() -> None:
    with precision(64):
        for name in ("sin", "cos"):
            assert ends(UNARY[name][0](interval(-1e9, 1e9))) == pytest.approx((-1.0, 1.0), abs=1e-8)
        assert ends(UNARY["tanh"][0](interval(-1e4, 1e4))) == pytest.approx((-1.0, 1.0), abs=1e-8)
        low, high = ends(UNARY["silu"][0](interval(-100.0, 1.0)))
        assert -0.27846454276107 > low > -0.2784646
        assert 0.731 < high < 0.7311
        low, high = ends(UNARY["gelu"][0](interval(-30.0, 30.0)))
        assert -0.169972 < low < -0.16997
        low, high = ends(UNARY["silu"][1](interval(-30.0, 30.0)))
        assert (round(low, 6), round(high, 6)) == (-0.099839, 1.099839)
        low, high = ends(UNARY["gelu"][1](interval(-30.0, 30.0)))
        assert (round(low, 6), round(high, 6)) == (-0.128904, 1.128904)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_is_never_enclosed(name: str) -> None:
    nan, endless = arb.nan(), arb(0, arb.pos_inf())
    with precision(64):
        for bad in (nan, endless):
            for f in UNARY[name]:
                assert not f(bad) < 1 or (name, f) == ("neg", UNARY["neg"][1])
        assert not maximum(nan, arb(1)).is_finite()
        assert not minimum(arb(1), nan).is_finite()
        assert not UNARY["sqrt"][0](interval(-1, 1)).is_finite()
        assert not UNARY["log"][0](interval(0, 1)).is_finite()
        assert not UNARY["tan"][0](interval(1, 2)).is_finite()


def test_maximum_of_overlapping_balls() -> None:
    with precision(64):
        low, high = ends(maximum(interval(-1, 2), interval(0, 1)))
        assert -1e-8 < low <= 0.0
        assert 2.0 <= high < 2.0 + 1e-8
        low, high = ends(power(interval(-2, 1), 4))
        assert low <= 0.0
        assert 16.0 <= high < 16.0 + 1e-6


def random_program(rng: np.random.Generator, inputs: int, length: int) -> Program:
    """Affine maps, sums and products, and bounded or Lipschitz functions of them."""
    builder = Builder(inputs)
    known = [0]
    for _ in range(length):
        a = int(rng.choice(known[-4:]))
        kind = rng.integers(6)
        size = builder.sizes[a]
        if kind == 0:
            rows = int(rng.integers(1, 5))
            known.append(builder.affine(a, rng.normal(size=(rows, size)) / size, rng.normal(size=rows)))
        elif kind in (1, 2):
            known.append(builder.emit(str(rng.choice(SMOOTH)), a))
        elif kind in (3, 4):
            same = [r for r in known if builder.sizes[r] in (1, size)]
            op = str(rng.choice([name for name in BINARY if name != "div"]))
            b = int(rng.choice(same))
            if op == "mul":  # bounded, so that nothing explodes
                b = builder.emit("tanh", b)
            known.append(builder.emit(op, a, b))
        else:
            divisor = builder.emit("add", builder.emit("square", a), builder.constant([1.0]))
            known.append(builder.emit("div", builder.join(a, a), builder.join(divisor, divisor)))
    return parse(builder.program(builder.join(*known[-3:])), "program")


@pytest.mark.once  # samples of the same functions
@settings(max_examples=150, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), width=st.sampled_from([0.0, 1e-6, 1e-2, 0.3, 2.0]))
def test_random_programs_are_enclosed(seed: int, width: float) -> None:
    """Values lie in their balls; differences of values lie in the Jacobian times the differences of the points."""
    rng = np.random.default_rng(seed)
    inputs = int(rng.integers(1, 4))
    program = random_program(rng, inputs, int(rng.integers(1, 14)))
    run = Interpreter(program)
    lower = rng.normal(size=inputs)
    upper = lower + width * rng.uniform(size=inputs)
    with precision(64):
        found = enclose(run, lower.tolist(), upper.tolist())
        assert all(v.is_finite() for v in found.values)
        low, high = np.array([ends(v) for v in found.values]).T
        assert found.jacobian is not None
        J = np.array([[ends(d) for d in row] for row in found.jacobian])
    x = lower + (upper - lower) * rng.uniform(size=(300, inputs))
    x[:2] = lower, upper
    y = evaluate(program, x)
    slack = 1e-11 * (1.0 + np.abs(y).max())
    assert (y >= low - slack).all()
    assert (y <= high + slack).all()
    steps = np.diff(x, axis=0)[:, None, :]
    least = np.minimum(J[..., 0] * steps, J[..., 1] * steps).sum(-1)
    most = np.maximum(J[..., 0] * steps, J[..., 1] * steps).sum(-1)
    assert (np.diff(y, axis=0) >= least - slack).all()
    assert (np.diff(y, axis=0) <= most + slack).all()


def test_mean_value_form_converges_quadratically() -> None:
    """`x² − x²` as two different registers: the natural enclosure is of first order, the mean-value form of second."""
    builder = Builder(1)
    square = builder.emit("square", 0)
    again = builder.emit("mul", 0, builder.emit("mul", 0, builder.constant([1.0])))
    run = Interpreter(parse(builder.program(builder.emit("sub", square, again)), "program"))
    with precision(64):
        widths = [float(enclose(run, [1.0], [1.0 + h]).values[0].rad()) for h in (1e-1, 1e-2, 1e-3)]
    assert widths[0] / widths[1] > 50
    assert widths[1] / widths[2] > 50


def test_constants_have_no_slope() -> None:
    with precision(64):
        x = Vector.box([0.0], [1.0])
        both = apply("add", x, Vector.constant([2.0]))
        assert both.jacobian is not None
        assert float(both.jacobian[0][0]) == 1.0
        assert apply("add", Vector.constant([1.0]), Vector.constant([2.0])).jacobian is None


# --- the format ---


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ([["sine", 0]], "no such instruction"),
        ([[]], "no such instruction"),
        ([["sin", 1]], "from 0 to 0"),
        ([["sin", -1]], "from 0 to 0"),
        ([["sin", 0, 0]], "takes 1"),
        ([["sin", True]], "integer"),
        ([["add", 0]], "takes 2"),
        ([["take", 0, [2]]], "from 0 to 1"),
        ([["take", 0, []]], "at least one"),
        ([["join"]], "at least one"),
        ([["const", ""]], "at least one"),
        ([["const", "0.5"]], "round-trip"),
        ([["const", "nan"]], "NaN"),
        ([["const", "inf"]], "infinity"),
        ([["affine", 0, "0x1p+0", "0x1p+0"]], "expected 2 numbers"),
        ([["const", "0x1p+0 0x1p+0 0x1p+0"], ["mul", 0, 1]], "does not join"),
        ([["power", 0, 1]], "from 2"),
        ([["power", 0, 65]], "from 2 to 64"),
        ("sin", "a list"),
        ([["affine", 0, ["0x1p+0"], "0x1p+0"]], "a string"),
    ],
)
def test_bad_programs_are_refused(code: object, words: str) -> None:
    with pytest.raises(FileFormatError, match=words):
        parse({"inputs": 2, "code": code}, "p")


def test_sizes_must_be_those_expected() -> None:
    data = {"inputs": 2, "code": [["sum", 0]]}
    assert parse(data, "p", inputs=2, outputs=1).outputs == 1
    for wanted in ({"inputs": 3}, {"outputs": 2}):
        with pytest.raises(FileFormatError, match="expected a program"):
            parse(data, "p", **wanted)
    with pytest.raises(FileFormatError, match="components in all"):
        parse({"inputs": 1000, "code": [["sin", i] for i in range(1001)]}, "p")


def test_leaves_cover_the_box(rng: np.random.Generator) -> None:
    tree, depth = "", 0
    open_ = [0]
    while open_:
        depth = open_.pop()
        if depth < 9 and rng.uniform() < 0.8:
            tree += str(rng.integers(3))
            open_ += [depth + 1] * 2
        else:
            tree += "."
    lower, upper = [-1.0, 0.0, 2.0], [1.0, 0.1, 7.0]
    found = list(leaves(tree, lower, upper, ".", "cover"))
    volumes = [np.prod(np.array(leaf.upper) - np.array(leaf.lower)) for leaf in found]
    assert sum(volumes) == pytest.approx(2.0 * 0.1 * 5.0, rel=1e-12)
    x = rng.uniform(lower, upper, (2000, 3))
    hits = sum(
        ((x >= np.array(leaf.lower)) & (x <= np.array(leaf.upper))).all(-1).astype(int) for leaf in found
    )
    assert (hits >= 1).all()


@pytest.mark.parametrize("tree", ["", "0", "0.", "..", "0...", "3..", "0.x", "/..", "0.1.", "0" * 2000])
def test_covers_that_leave_something_out_are_refused(tree: str) -> None:
    with pytest.raises(FileFormatError, match="cover"):
        list(leaves(tree, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], ".", "cover"))
