"""Programs on power series of balls: derivatives along solutions, and their slopes in an input.

A series `Σ cₖ sᵏ` encloses, for every point of the balls it was made from, the Taylor coefficients in the time `s` of
one smooth function. Operations with a kink give a coefficient that is not finite, of which nothing is ever proved; nor
of those after it, which could be finite only by accident: a function without a value has no derivatives.

A series knows to which order it goes, and a coefficient beyond is NaN, not zero: the order in force belongs to the
process, and another thread may have cut the series short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache

from flint import arb, arb_series

from constrained_nn.verify.arithmetic.balls import NAN, UNARY, setting
from constrained_nn.verify.arithmetic.program import BINARY, Algebra, Instruction, Program, bind
from constrained_nn.verify.arithmetic.program import UNARY as NAMES


def order(count: int) -> AbstractContextManager[None]:
    """Work with series of `count` coefficients."""
    return setting("cap", count)


@dataclass(frozen=True, eq=False)
class Jet:
    """A series, and its derivative in one chosen input (None: zero)."""

    value: arb_series
    slope: arb_series | None = None

    @staticmethod
    def of(coefficients: Sequence[arb], slopes: Sequence[arb] | None = None) -> Jet:
        """A polynomial: what follows its coefficients is zero."""
        return Jet(arb_series(list(coefficients)), None if slopes is None else arb_series(list(slopes)))

    @staticmethod
    def begin(coefficients: Sequence[arb], slopes: Sequence[arb] | None = None) -> Jet:
        """The first coefficients of a series: of what follows nothing is known."""
        return Jet(_begin(coefficients), None if slopes is None else _begin(slopes))

    def coefficient(self, k: int) -> arb:
        """`cₖ`; NaN where it is not known, or an earlier coefficient is not finite."""
        return _read_coefficient(self.value, k)

    def slope_coefficient(self, k: int) -> arb:
        """Derivative of `cₖ` in the chosen input; NaN where it is not known, or an earlier one is not finite."""
        if not _read_coefficient(self.value, k).is_finite():
            return NAN
        return arb(0) if self.slope is None else _read_coefficient(self.slope, k)

    def __add__(self, other: Jet) -> Jet:
        if self.slope is None or other.slope is None:
            return Jet(self.value + other.value, other.slope if self.slope is None else self.slope)
        return Jet(self.value + other.value, self.slope + other.slope)

    def __neg__(self) -> Jet:
        return Jet(-self.value, None if self.slope is None else -self.slope)

    def __sub__(self, other: Jet) -> Jet:
        return self + (-other)

    def __mul__(self, other: Jet) -> Jet:
        if not (self.coefficient(0).is_finite() and other.coefficient(0).is_finite()):
            return _no_jet()  # zero times what has no value has none; of two series the product would be zero
        left = None if self.slope is None else self.slope * other.value
        right = None if other.slope is None else self.value * other.slope
        slope = right if left is None else left if right is None else left + right
        return Jet(self.value * other.value, slope)

    def inverse(self) -> Jet:
        inverse = _reciprocal(self.value)
        return Jet(inverse, None if self.slope is None else -self.slope * inverse * inverse)

    def map(self, f: Callable[[arb_series], arb_series], df: Callable[[arb_series], arb_series]) -> Jet:
        """`f` of it, with derivative `df`."""
        return Jet(f(self.value), None if self.slope is None else df(self.value) * self.slope)


def _begin(coefficients: Sequence[arb]) -> arb_series:
    return arb_series(list(coefficients), len(coefficients))


def _read_coefficient(series: arb_series, k: int) -> arb:
    return series[k] if k < series.prec and all(series[i].is_finite() for i in range(k)) else NAN


def _no_series() -> arb_series:
    """Where there is no series: the first coefficient is NaN, so that no later one passes for a derivative."""
    return _begin([NAN])


def _no_jet() -> Jet:
    return Jet(_no_series(), _no_series())


def _reciprocal(v: arb_series) -> arb_series:
    """`1 / v`; nothing where the constant term may be zero."""
    return 1 / v if _read_coefficient(v, 0).is_finite() and v[0] != 0 else _no_series()


def _square(a: Jet) -> Jet:
    product = a * a
    start = UNARY["square"][0](a.coefficient(0))  # is never negative, which a product of balls does not know
    return Jet(arb_series([start, *product.value.coeffs()[1:]], product.value.prec), product.slope)


def _sqrt(a: Jet) -> Jet:
    return (
        a.map(lambda v: v.sqrt(), lambda v: _reciprocal(2 * v.sqrt())) if a.coefficient(0) > 0 else _no_jet()
    )


def _log(a: Jet) -> Jet:
    return a.map(lambda v: v.log(), _reciprocal) if a.coefficient(0) > 0 else _no_jet()


def _wave(v: arb_series) -> tuple[arb_series, arb_series]:
    """Sine and cosine by the sum formula about the constant term, whose own are enclosed without overestimation."""
    start, motion = _read_coefficient(v, 0), arb_series([arb(0), *v.coeffs()[1:]], v.prec)
    sine, cosine = UNARY["sin"][0](start), UNARY["cos"][0](start)
    s, c = motion.sin(), motion.cos()
    return sine * c + cosine * s, cosine * c - sine * s


def _sin(a: Jet) -> Jet:
    sine, cosine = _wave(a.value)
    return Jet(sine, None if a.slope is None else cosine * a.slope)


def _cos(a: Jet) -> Jet:
    sine, cosine = _wave(a.value)
    return Jet(cosine, None if a.slope is None else -sine * a.slope)


def _tanh(v: arb_series) -> arb_series:
    return 1 - 2 * _reciprocal(1 + (2 * v).exp())


_UNARY: dict[str, Callable[[Jet], Jet]] = {
    "neg": lambda a: -a,
    "square": _square,
    "sqrt": _sqrt,
    "log": _log,
    "exp": lambda a: a.map(lambda v: v.exp(), lambda v: v.exp()),
    "sin": _sin,
    "cos": _cos,
    "atan": lambda a: a.map(lambda v: v.atan(), lambda v: _reciprocal(1 + v * v)),
    "tanh": lambda a: a.map(_tanh, lambda v: 1 - _tanh(v) * _tanh(v)),
}
_BINARY: dict[str, Callable[[Jet, Jet], Jet]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a * b.inverse(),
}
Jets = list[Jet]  # a vector


def run(program: Program, inputs: Sequence[Jet]) -> Jets:
    """The result of a program on jets; a component that no series encloses is not finite."""
    return _bind(program)(list(inputs))


@lru_cache(maxsize=64)  # a solution runs the same program once for each of its coefficients
def _bind(program: Program) -> Callable[[Jets], Jets]:
    return bind(program, _ALGEBRA)


def _make_pointwise(i: Instruction) -> Callable[..., Jets]:
    """One function of every component; nothing where it has a kink, or no series here."""
    function = _UNARY.get(i.op) or _BINARY.get(i.op) or (lambda *jets: _no_jet())
    return lambda *vectors: [function(*jets) for jets in zip(*vectors, strict=True)]


def _make_affine(i: Instruction) -> Callable[[Jets], Jets]:
    width = len(i.numbers) // i.size
    rows = [i.numbers[k * width : (k + 1) * width] for k in range(i.size)]
    return lambda a: [_affine(row, b, a) for row, b in zip(rows, i.offset, strict=True)]


_ALGEBRA: Algebra[Jets] = {
    "const": lambda i: lambda: [Jet.of([arb(v)]) for v in i.numbers],
    "take": lambda i: lambda a: [a[k] for k in i.integers],
    "join": lambda i: lambda *parts: [jet for part in parts for jet in part],
    "affine": _make_affine,
    "power": lambda i: lambda a: [_power(jet, i.integers[0]) for jet in a],
    "sum": lambda i: lambda a: [_affine([1.0] * len(a), 0.0, a)],
    **dict.fromkeys((*NAMES, *BINARY), _make_pointwise),
}


def _affine(weights: Sequence[float], offset: float, jets: Sequence[Jet]) -> Jet:
    total = Jet(arb_series([arb(offset)], min(jet.value.prec for jet in jets)))
    for weight, jet in zip(weights, jets, strict=True):
        if weight or not jet.coefficient(0).is_finite():
            total = total + Jet.of([arb(weight)]) * jet
    return total


def _power(jet: Jet, exponent: int) -> Jet:
    result = jet
    for _ in range(exponent - 1):
        result = result * jet
    return result


def solution(plant: Program, x: Sequence[arb], u: Sequence[arb], count: int, chosen: int | None) -> list[Jet]:
    """Taylor coefficients 0 to `count` of the solutions that are at `x` with the input `u` held.

    Args:
        plant: Program `(x, u) -> dx/dt`.
        x: State, balls.
        u: Input, balls.
        count: Order of the last coefficient.
        chosen: Index of the input in which the slope is wanted, or None.
    """
    inputs = [Jet.of([v], [arb(1)] if j == chosen else None) for j, v in enumerate(u)]
    values = [[v] for v in x]
    slopes: list[list[arb]] | None = None if chosen is None else [[arb(0)] for _ in x]
    for k in range(count):
        jets = [Jet.begin(c, None if slopes is None else slopes[i]) for i, c in enumerate(values)]
        for i, jet in enumerate(run(plant, [*jets, *inputs])):
            values[i].append(jet.coefficient(k) / (k + 1))
            if slopes is not None:
                slopes[i].append(jet.slope_coefficient(k) / (k + 1))
    return [Jet.begin(c, None if slopes is None else slopes[i]) for i, c in enumerate(values)]
