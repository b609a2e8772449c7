"""Closed loops in one and two dimensions whose changes, ellipsoids and contractions are known in closed form."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from flint import arb, arb_mat

from constrained_nn.verify.arithmetic import Interpreter, Vector, interval, parse, precision
from constrained_nn.verify.arithmetic.balls import NAN
from constrained_nn.verify.claims import lyapunov as _lyapunov
from constrained_nn.verify.enclosures import InnerEllipsoid, Loop, positive_definite, quadratic
from tests.evidence.arithmetic.test_balls import ends
from tests.evidence.arithmetic.test_vectors import contains
from tests.evidence.conditions.minimal import edit, encode, lyapunov, program


@pytest.fixture(autouse=True)
def _bits() -> Any:
    with precision(64):
        yield


def matrix(rows: list[list[float]]) -> arb_mat:
    return arb_mat(len(rows), len(rows), [arb(v) for row in rows for v in row])


def loop(motion: str = "step", **changes: Any) -> Loop:
    """`x⁺ = x/2 + u` or `dx/dt = -x + u` with `u = -x/4`, `V = x²`, on [-1, 1], as in `minimal.lyapunov`."""
    _, claim, certificate = lyapunov(motion)
    return _lyapunov.read_loop(edit(claim, **changes), certificate)


class Off(Loop):
    """A loop whose remainder is `error`, whatever it is truly."""

    error = 0.0

    def remainder(self, lower: Any, upper: Any) -> Any:
        return [arb(self.error)]


def off_by(L: Loop, error: float) -> Loop:
    made = Off(**{k: getattr(L, k) for k in L.__dataclass_fields__})
    object.__setattr__(made, "error", error)
    return made


def two(rows: list[list[float]], P: list[list[float]], *, motion: str = "step", **changes: Any) -> Loop:
    """`x⁺ = A x`, or `dx/dt = A x`, on [-1, 1]², with `V` and `E` of the matrix `P`."""
    A = [v for row in rows for v in (*row, 0.0)]
    plant = Interpreter(parse(program(3, ["affine", 0, encode(A), encode([0.0, 0.0])]), "plant"))
    nothing = Interpreter(parse(program(2, ["const", encode(0.0)]), "u"))
    value, gradient = quadratic(matrix(P), [0.0, 0.0])
    made = Loop(
        plant, nothing, value, gradient, motion, 0.125, 0.5, 2.0**-10, (-1.0, -1.0), (1.0, 1.0),
        InnerEllipsoid(matrix(P), (0.0, 0.0), 0.25), 0.5,
    )  # fmt: skip
    return replace(made, **changes)


def test_quadratic_forms() -> None:
    rng = random.Random(0)
    for _ in range(20):
        a, b, c, x, y, p, q = (Fraction(rng.randint(-16, 16), 8) for _ in range(7))
        value, gradient = quadratic(
            matrix([[float(a), float(b)], [float(b), float(c)]]), [float(p), float(q)]
        )
        e, f = x - p, y - q
        point = Vector.constant([float(x), float(y)])
        assert contains(value(point).values[0], a * e * e + 2 * b * e * f + c * f * f)
        assert contains(gradient(point).values[0], 2 * (a * e + b * f))
        assert contains(gradient(point).values[1], 2 * (b * e + c * f))
        assert value(point).values[0].rad() < 1e-12
        slopes = value(Vector.box([float(x), float(y)], [float(x), float(y)])).jacobian[0]
        assert contains(slopes[0], 2 * (a * e + b * f))
        assert contains(slopes[1], 2 * (b * e + c * f))


def test_positive_definite_matrices() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 4):
        for _ in range(40):
            M = np.round(rng.normal(size=(n, n)) * 8) / 8
            shift = rng.integers(-2, 6)
            S = M + M.T + shift * np.eye(n)
            least = np.linalg.eigvalsh(S).min()
            if abs(least) > 1e-6:
                # given by another matrix with the same symmetric part
                skew = np.round(rng.normal(size=(n, n)) * 8) / 8
                assert positive_definite(matrix((S + skew - skew.T).tolist())) is bool(least > 0)
    assert not positive_definite(matrix([[0.0]]))
    assert not positive_definite(matrix([[1.0, 1.0], [1.0, 1.0]]))
    assert not positive_definite(arb_mat(1, 1, [NAN]))
    assert not positive_definite(arb_mat(2, 2, [arb(1), interval(-2.0, 0.0), interval(-2.0, 0.0), arb(1)]))


def test_ellipsoids() -> None:
    """`2 a² + 2 a b + 3 b² <= 5` about (1, -1)."""
    E = InnerEllipsoid(matrix([[2.0, 1.0], [1.0, 3.0]]), (1.0, -1.0), 5.0)
    assert E.value([arb(3), arb(1)]) == 8 + 8 + 12
    assert E.value([arb(1), arb(0)]) == 3
    assert ends(E.norm([arb(2), arb(0)]))[1] >= math.sqrt(8) - 1e-15
    assert float(E.norm([arb(2), arb(-1)])) == pytest.approx(math.sqrt(8 - 4 + 3), abs=1e-12)
    assert float(E.norm([interval(0.0, 2.0), arb(0)])) >= math.sqrt(8) - 1e-9
    assert E.norm([arb(0), arb(0)]) == 0
    assert not E.norm([NAN, arb(0)]).is_finite()
    low, high = E.hull()
    widths = [math.sqrt(5 * 3 / 5), math.sqrt(5 * 2 / 5)]
    assert low == pytest.approx([1 - widths[0], -1 - widths[1]], abs=1e-12)
    assert high == pytest.approx([1 + widths[0], -1 + widths[1]], abs=1e-12)
    assert low[0] <= 1 - widths[0] + 1e-16
    assert E.contains([0.5, -1.5], [1.5, -0.5])
    assert not E.contains([0.5, -1.5], [1.5, 0.5])  # one corner is out
    assert not E.contains([-1.5, -1.5], [1.5, -0.5])
    assert replace(E, P=matrix([[0.0, 0.0], [0.0, 0.0]])).hull() is None
    assert replace(E, P=matrix([[-1.0, 0.0], [0.0, -1.0]])).hull() is None


def test_change_of_one_step() -> None:
    """`V(x⁺) - V(x) = -15/16 x²`."""
    L = loop()
    for a, b in ((0.5, 0.5), (0.5, 0.5078125), (-0.75, -0.7421875)):
        change, stays, found = L.bound_change([a], [b])
        true = -15 / 16 * min(a * a, b * b)
        assert true <= change <= true + 0.01 * (b - a) + 1e-12
        assert stays
        assert contains(found.values[1], Fraction(a) / 4)
        assert change >= ends(found.values[0])[1]
    for slope in (3.0, -3.0):  # past the upper end, and past the lower one
        far = loop(data__plant=program(2, ["affine", 0, encode([slope, 0.0]), encode([0.0])]))
        assert far.bound_change([0.25], [0.25])[1]
        assert not far.bound_change([0.5], [0.5])[1]
        assert far.proves("d", [0.25], [0.25]) is None


@pytest.mark.parametrize("motion", ["held", "continuous"])
def test_change_of_solutions(motion: str) -> None:
    """From `x` with `u = -x/4` held for 1/8 s: `x⁺ = x (5/4 e^(-1/8) - 1/4)`; or `dV/dt = -5/2 x²`."""
    L = loop(motion)
    factor = (1.25 * math.exp(-0.125) - 0.25) ** 2 - 1 if motion == "held" else -2.5
    for x in (0.5, -0.5, 0.75):
        change, stays, _ = L.bound_change([x], [x])
        assert stays
        assert factor * x * x - 1e-12 <= change <= factor * x * x + 1e-6
        assert L.proves("d", [x], [x]) == change
        assert L.fails_at([x]) is None


def test_held_solutions_stay_in_the_domain() -> None:
    """`dx/dt = v`: the step from 0.9 ends in the domain or not; what is not proved to decrease costs no remainder."""
    for sign in (1.0, -1.0):
        out = loop("held", data__plant=program(2, ["affine", 0, encode([0.0, 0.0]), encode([2.0 * sign])]))
        assert out.remainder([0.5 * sign], [0.5 * sign]) is not None
        assert out.remainder([0.875 * sign], [0.875 * sign]) is None
        change, stays, _ = out.bound_change([0.5 * sign], [0.5 * sign])
        assert (change > 0, stays) == (True, False)
    # dx/dt = -40 x: the formula lands inside, the solution from the box is not enclosed
    stiff = loop("held", data__plant=program(2, ["affine", 0, encode([-40.0, 0.0]), encode([0.0])]))
    assert stiff.remainder([0.5], [0.5]) is None
    fine = loop("held")
    bound = fine.proves("d", [0.5], [0.53125])
    assert bound is not None
    assert bound <= -fine.margin
    unsteady = replace(fine, margin=0.5)
    assert unsteady.proves("d", [0.5], [0.53125]) is None
    assert unsteady.bound_change([0.5], [0.53125])[1] is False


def test_remainder_is_that_of_the_formula() -> None:
    """`x⁺` of the solution less that of the formula, for `dx/dt = -x + u`: about -h⁵/120 (5/4) x."""
    (error,) = loop("held").remainder([0.5], [0.5])
    h = 0.125
    formula = sum((-h) ** k / math.factorial(k) for k in range(5))
    true = 0.5 * 1.25 * (math.exp(-h) - formula)
    least, most = ends(error)
    assert least <= true <= most
    assert most - least < 1e-6


def test_difference_that_a_remainder_makes() -> None:
    """`(y + δ)² - y²` for `y = 1/2`, `|δ| <= 1/4`."""
    L = loop("held")
    found = L._bound_shift([arb(0.5)], [arb(0.25)])
    assert found.contains(0.5625 - 0.25)
    least, most = ends(L._bound_shift([arb(0.5)], [interval(-0.25, 0.25)]))
    assert least <= 0.0625 - 0.25
    assert most >= 0.5625 - 0.25
    assert most <= 0.5
    L2 = two([[0.5, 0.0], [0.0, 0.5]], [[1.0, 0.5], [0.5, 2.0]])
    found = L2._bound_shift([arb(1), arb(2)], [arb(0.25), arb(-0.5)])
    assert found.contains((1.25**2 + 1.25 * 1.5 + 2 * 1.5**2) - (1 + 2 + 8))


def test_continuous_motion_stays_off_the_edge() -> None:
    """A level set that reaches an end of the domain is refused there, and nowhere else."""
    for level, stays in ((0.5, True), (0.99, True), (1.5, False)):
        L = loop("continuous", level=encode(level))
        for low, high in ((0.875, 1.0), (-1.0, -0.875)):
            assert L.bound_change([low], [high])[1] is stays
            assert (L.proves("d", [low], [high]) is not None) is stays
        assert L.bound_change([-0.5], [0.5])[1]
    # two dimensions: of the four edges, the box meets one; V = x1² + 8 x2²
    L2 = two([[-1.0, 0.0], [0.0, -1.0]], [[1.0, 0.0], [0.0, 8.0]], motion="continuous", level=2.0)
    assert not L2.bound_change([0.5, 0.0], [1.0, 0.25])[1]  # V = 1 at (1, 0)
    assert L2.bound_change([0.5, 0.5], [1.0, 0.75])[1]  # V >= 3 there
    assert L2.bound_change([0.0, 0.75], [0.25, 1.0])[1]  # V >= 8 there
    assert not replace(L2, level=9.0).bound_change([0.0, 0.75], [0.25, 1.0])[1]
    assert not replace(L2, level=9.0).bound_change([0.0, -1.0], [0.25, -0.75])[1]


def test_labels() -> None:
    L = loop()
    assert L.proves("o", [0.75], [1.0]) == -math.inf
    assert L.proves("o", [0.5], [1.0]) is None
    assert L.proves("i", [-0.25], [0.25]) == -math.inf
    assert L.proves("i", [-0.25], [0.3125]) is None
    assert L.proves("i", [-0.3125], [0.25]) is None
    assert L.proves("d", [0.5], [0.5]) == pytest.approx(-15 / 64)
    assert L.proves("d", [0.0], [0.0]) is None  # no decrease at rest
    assert replace(L, margin=15 / 64).proves("d", [0.5], [0.5]) is not None
    assert replace(L, margin=15 / 64 + 1e-9).proves("d", [0.5], [0.5]) is None
    assert L.is_outside([0.75], [1.0])
    assert not L.is_outside([0.70], [1.0])


def test_what_the_claim_is_about() -> None:
    L = loop()
    for x, about in (
        (0.5, True),
        (-0.5, True),
        (0.75, False),
        (0.25, False),
        (0.125, False),
        (1.25, False),
        (-1.25, False),
    ):
        assert L.is_about([x]) is about
    wide = replace(L, level=9.0)
    for x, about in ((1.0, True), (1.25, False), (-1.25, False)):
        assert wide.is_about([x]) is about


@pytest.mark.parametrize("motion", ["step", "held", "continuous"])
def test_counterexamples(motion: str) -> None:
    """Growth by a half in a step, or at the rate 1: a counterexample wherever the claim is about it."""
    slope = 1.5 if motion == "step" else 1.0
    L = loop(motion, data__plant=program(2, ["affine", 0, encode([slope, 0.0]), encode([0.0])]))
    true = {"step": 1.25, "held": math.exp(0.25) - 1, "continuous": 2.0}[motion] * 0.25
    assert float(L.fails_at([0.5])) == pytest.approx(true, abs=1e-6)
    assert float(L.fails_at([-0.5])) == pytest.approx(true, abs=1e-6)
    for x in (0.75, 0.125, 1.5):
        assert L.fails_at([x]) is None
    assert replace(L, margin=-true - 0.01).fails_at([0.5]) is None
    assert replace(L, margin=-true + 0.01).fails_at([0.5]) is not None
    if motion == "held":  # from 0.99 the solution leaves the domain: nothing is said
        assert replace(L, level=2.0).fails_at([0.99]) is None


@pytest.mark.parametrize(
    ("motion", "factor", "contracts"),
    [
        ("step", 0.5, True), ("step", 0.2578125, True), ("step", 0.2421875, False),
        ("held", 0.9375, True), ("held", 0.8671875, True), ("held", 0.84375, False),
        ("continuous", 1.0, True), ("continuous", 1.24, True), ("continuous", 1.26, False),
    ],
)  # fmt: skip
def test_factors_of_contraction(motion: str, factor: float, contracts: bool) -> None:
    """The loop multiplies by 1/4, by 5/4 e^(-1/8) - 1/4 = 0.853, or falls at the rate 5/4."""
    L = replace(loop(motion), factor=factor)
    assert L._contracts([-0.25], [0.25]) is contracts
    wanted = None if contracts else "the linearization is not proved a contraction over the inner ellipsoid"
    if factor < 0.95 or motion == "continuous":
        assert L.closes() == wanted


def test_contraction_in_two_dimensions() -> None:
    """`ρ² P - AᵀPA` and `-(AᵀP + PA) - 2ρP` against eigenvalues, with a matrix that is not symmetric."""
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        A = np.round(rng.normal(size=(2, 2)) * 4) / 8
        M = np.round(rng.normal(size=(2, 2)) * 4) / 4
        P = M @ M.T + np.eye(2)
        for motion in ("step", "continuous"):
            B = A if motion == "step" else A - np.eye(2)
            rho = 0.875 if motion == "step" else 0.25
            gap = rho**2 * P - B.T @ P @ B if motion == "step" else -(B.T @ P + P @ B) - 2 * rho * P
            least = np.linalg.eigvalsh(gap).min()
            if abs(least) > 1e-3:
                L = two(B.tolist(), P.tolist(), motion=motion, factor=rho)
                assert L._contracts([-0.1, -0.1], [0.1, 0.1]) is bool(least > 0)
                seen.add((motion, bool(least > 0)))
    assert len(seen) == 4


def test_only_parts_that_meet_the_ellipsoid_count() -> None:
    """`x⁺ = x²`: a contraction by 1/2 where |x| < 1/4, found by bisection of a box that is twice as wide."""
    square = program(2, ["take", 0, [0]], ["square", 1])
    L = loop(data__plant=square, radius=encode(0.05), factor=encode(0.5))
    assert L._contracts([-0.5], [0.5])
    assert not replace(L, inner=replace(L.inner, radius=0.09))._contracts([-0.5], [0.5])
    # x⁺ = x0² + x1², ...: two axes are bisected in turn
    both = program(3, ["take", 0, [0, 1]], ["square", 1])
    L2 = replace(
        two([[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], factor=0.5),
        plant=Interpreter(parse(both, "plant")),
        inner=InnerEllipsoid(matrix([[1.0, 0.0], [0.0, 1.0]]), (0.0, 0.0), 0.05),
    )  # fmt: skip
    assert L2._contracts([-0.5, -0.5], [0.5, 0.5])
    assert not replace(L2, inner=replace(L2.inner, radius=0.09))._contracts([-0.5, -0.5], [0.5, 0.5])


def test_what_closes() -> None:
    """Each condition of the inner ellipsoid by itself."""
    L = loop()
    assert L.closes() is None
    definite = "the matrix of the inner ellipsoid is not proved positive definite"
    inside = "the inner ellipsoid is not inside the domain"
    mapped = "the inner ellipsoid is not proved to be mapped into itself"
    for P in ([[0.0]], [[-1.0]]):
        assert replace(L, inner=replace(L.inner, P=matrix(P))).closes() == definite
    # (P⁻¹)ᵢᵢ > 0 although P is not definite
    odd = two([[0.25, 0.0], [0.0, 0.25]], [[-1.0, 2.0], [2.0, -1.0]])
    assert odd.inner.hull() is not None
    assert odd.closes() == definite
    assert replace(L, lower=(-0.25,)).closes() == inside
    assert replace(L, upper=(0.25,)).closes() == inside
    assert replace(L, lower=(-0.2578125,), upper=(0.2578125,)).closes() is None
    # x⁺ = x/4 + d moves the center by d: ρ/4 + d <= 1/4
    for d, closed in ((0.12, True), (0.13, False), (-0.12, True), (-0.13, False)):
        moved = loop(data__plant=program(2, ["affine", 0, encode([0.5, 1.0]), encode([d])]))
        assert moved.closes() == (None if closed else mapped)
    # dx/dt = -5/4 x + d: |d| <= ρ/4
    for d, closed in ((0.12, True), (0.13, False), (-0.13, False)):
        moved = loop("continuous", data__plant=program(2, ["affine", 0, encode([-1.0, 1.0]), encode([d])]))
        assert moved.closes() == (None if closed else mapped)
    # held: with the remainder of the formula, ρ = 15/16 leaves 1/64
    for d, closed in ((0.12, True), (0.14, False)):
        moved = loop("held", data__plant=program(2, ["affine", 0, encode([-1.0, 1.0]), encode([d])]))
        assert moved.closes() == (None if closed else mapped)
    # about another center
    far = loop(
        data__plant=program(2, ["affine", 0, encode([0.5, 1.0]), encode([0.375])]), data__center=encode([0.5]),
        data__controller=program(1, ["affine", 0, encode([-0.25]), encode([0.0])]),
    )  # fmt: skip
    assert far.closes() is None


def test_remainder_counts_in_the_ellipsoid() -> None:
    """A remainder as large as what is left: `ρ √r + |drift| + |δ| <= √r`."""
    L = replace(loop("held"), factor=0.9375)
    for error, closed in ((0.0, True), (0.015, True), (0.016, False), (-0.016, False)):
        assert (off_by(L, error).closes() is None) is closed
    assert L.remainder([-0.25], [0.25]) is not None


def test_remainder_counts_in_the_change() -> None:
    """`V(x⁺ + δ) - V(x)` with `x⁺` = 0.427 from 1/2, and whether `x⁺ + δ` is in [-1, 1]."""
    L, x = loop("held"), 0.5
    y = x * (1.25 * sum((-0.125) ** k / math.factorial(k) for k in range(5)) - 0.25)
    for error, stays in (
        (0.0625, True),
        (-0.0625, True),
        (0.6, False),
        (-0.6, True),
        (-1.5, False),
        (1.4, False),
    ):
        change, kept, _ = off_by(L, error).bound_change([x], [x])
        true = (y + error) ** 2 - x * x
        assert kept is stays
        assert change >= true - 1e-12
        assert change <= true + 1.001 * error * error + 1e-6  # the slope is enclosed between y and y + δ
        found = off_by(L, error).fails_at([x])
        if error > 0.3:  # else it is not decided
            assert found is not None
            assert found.contains(true) or abs(float(found.mid()) - true) <= float(found.rad()) + 1e-12
        elif change < -L.margin:
            assert found is None
