"""Sound functions of balls: enclosures of the value and of the slope over every point of a ball.

A ball `[m ± r]` stands for all real numbers in it. Where a function is monotone its image is that of the two ends;
elsewhere the turning points inside are added. A ball that is not finite gives NaN, of which no inequality is ever
true, so that what cannot be enclosed is never proved.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache

from flint import arb, ctx

NAN = arb.nan()
ZERO, ONE = arb(0), arb(1)
Function = Callable[[arb], arb]


_FLINT = threading.RLock()  # precision and order belong to the process: one thread computes at a time


def _renew() -> None:
    """A child has no thread that could give back what was held when its parent was forked."""
    global _FLINT
    _FLINT = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def setting(name: str, value: int) -> Iterator[None]:
    """Work with this setting of flint's, alone among all threads, and leave it as it was."""
    with _FLINT:
        before = getattr(ctx, name)
        setattr(ctx, name, value)
        try:
            yield
        finally:
            setattr(ctx, name, before)


def precision(bits: int) -> AbstractContextManager[None]:
    """Work with this many bits."""
    return setting("prec", bits)


def interval(lower: float | arb, upper: float | arb) -> arb:
    """A ball that contains `[lower, upper]`."""
    return arb(lower).union(arb(upper))


def widen(x: arb, share: float, least: float) -> arb:
    """A ball about the same middle, its radius larger by a share of it and by `least`."""
    return arb(x.mid(), x.rad() * (1 + share) + least)


def maximum(a: arb, b: arb) -> arb:
    """`max(a, b)` for all pairs: `[max of the lower ends, max of the upper ends]`."""
    if not (a.is_finite() and b.is_finite()):
        return NAN
    if a >= b:
        return a
    if b >= a:
        return b
    lower, upper = (a.lower(), b.lower()), (a.upper(), b.upper())
    return (lower[0] if lower[0] >= lower[1] else lower[1]).union(
        upper[0] if upper[0] >= upper[1] else upper[1]
    )


def minimum(a: arb, b: arb) -> arb:
    """`min(a, b)` for all pairs."""
    return -maximum(-a, -b)


def meet(a: arb, b: arb) -> arb:
    """The intersection of two enclosures of the same set; one that is not finite says nothing."""
    if not b.is_finite():
        return a
    if not a.is_finite():
        return b
    return a.intersection(b) if a.overlaps(b) else NAN


def _map_ends(f: Function) -> Function:
    def image(x: arb) -> arb:
        return f(x.lower()).union(f(x.upper())) if x.is_finite() else NAN

    return image


def _map_turns(f: Function, turns: Callable[[], Iterable[arb]]) -> Function:
    """Image under a function that is monotone between its `turns`."""

    def image(x: arb) -> arb:
        if not x.is_finite():
            return NAN
        y = f(x.lower()).union(f(x.upper()))
        for turn in turns():
            if x.overlaps(turn):
                y = y.union(f(turn))
        return y

    return image


def _wave(f: Function, first: int) -> Function:
    """Image under a sine or cosine, whose extrema `(−1)ᵏ` are at `(k + first/2) π`."""

    def image(x: arb) -> arb:
        if not x.is_finite():
            return NAN
        if not abs(x) < 1000:
            return interval(-1, 1)
        half = float(x.rad().upper()) / 3.0
        if half >= 1.0:
            return interval(-1, 1)
        y = f(x.lower()).union(f(x.upper()))
        nearest = round(float(x.mid()) / 3.141592653589793 - 0.5 * first)
        for k in (nearest - 1, nearest, nearest + 1):
            if x.overlaps(arb.pi() * (2 * k + first) / 2):
                y = y.union(arb((-1) ** k))
        return y

    return image


def _root(f: Function, low: float, high: float) -> arb:
    """The root of a function that increases on `[low, high]`, to 2^-100, by bisection with proved signs."""
    with precision(256):
        a, b = arb(low), arb(high)
        if not (f(a) < 0 and f(b) > 0):
            raise AssertionError("a turning point is not bracketed")
        for _ in range(100):
            middle = (a + b).mid() / 2
            sign = f(middle)
            if sign < 0:
                a = middle
            elif sign > 0:
                b = middle
            else:
                break
        return a.union(b)


def _sigmoid(x: arb) -> arb:
    return 1 / (1 + (-x).exp())


def _sigmoid_slope(x: arb) -> arb:
    s = _sigmoid(x)
    return s * (1 - s)


def _silu(x: arb) -> arb:
    return x * _sigmoid(x)


def _silu_slope(x: arb) -> arb:
    s = _sigmoid(x)
    return s * (1 + x * (1 - s))


def _normal(x: arb) -> arb:
    """Distribution function of the standard normal law."""
    return (1 + (x / arb(2).sqrt()).erf()) / 2


def _bell(x: arb) -> arb:
    return (-x * x / 2).exp() / (2 * arb.pi()).sqrt()


def _gelu_slope(x: arb) -> arb:
    return _normal(x) + x * _bell(x)


@cache
def _silu_turn() -> tuple[arb, ...]:
    """Where `s (1 + x (1 − s)) = 0`: its sign is that of `1 + x + eˣ`, which increases."""
    return (_root(lambda x: 1 + x + x.exp(), -2.0, -1.0),)


@cache
def _silu_slope_turns() -> tuple[arb, ...]:
    """Where `s' (2 + x (1 − 2 s)) = 0`, that is `x tanh(x/2) = 2`, even and increasing in `|x|`."""
    root = _root(lambda x: x * (x / 2).tanh() - 2, 2.0, 3.0)
    return root, -root


@cache
def _gelu_turn() -> tuple[arb, ...]:
    """Where `Φ + x φ = 0`; its derivative `φ (2 − x²)` leaves one sign change, in `(−√2, √2)`."""
    return (_root(_gelu_slope, -1.0, -0.5),)


@cache
def _gelu_slope_turns() -> tuple[arb, ...]:
    with precision(128):
        return arb(2).sqrt(), -arb(2).sqrt()


def _at_zero() -> tuple[arb, ...]:
    return (ZERO,)


def _step(x: arb) -> arb:
    """Slope of `max(x, 0)`: all of `[0, 1]` where `x` may have either sign."""
    if not x.is_finite():
        return NAN
    return ONE if x > 0 else ZERO if x < 0 else interval(0, 1)


def _sign(x: arb) -> arb:
    return 2 * _step(x) - 1


def _tan(x: arb) -> arb:
    return _map_ends(lambda p: p.tan())(x) if abs(_cos(x)) > 0 else NAN


def reciprocal(x: arb) -> arb:
    """`1 / x`."""
    return _map_ends(lambda p: 1 / p)(x) if abs(x) > 0 else NAN


def power(x: arb, k: int) -> arb:
    """`xᵏ`."""
    image = _map_ends if k % 2 else lambda f: _map_turns(f, _at_zero)
    return image(lambda p: p**k)(x)


_sin, _cos = _wave(lambda p: p.sin(), 1), _wave(lambda p: p.cos(), 0)
_exp, _tanh = _map_ends(lambda p: p.exp()), _map_ends(lambda p: p.tanh())
_square = _map_turns(lambda p: p * p, _at_zero)
_abs = _map_turns(abs, _at_zero)
_squashed = _map_ends(_sigmoid)


def _relu(x: arb) -> arb:
    return maximum(x, ZERO)


def _require_positive(x: arb) -> arb:
    """`x` where it is proved positive: a square root or a logarithm is nothing elsewhere."""
    return x if x.is_finite() and x > 0 else NAN


def _sqrt(x: arb) -> arb:
    return _map_ends(lambda p: p.sqrt())(x) if x >= 0 else NAN


# name -> image, image of the slope
UNARY: dict[str, tuple[Function, Function]] = {
    "neg": (lambda x: -x, lambda x: -ONE),
    "abs": (_abs, _sign),
    "sqrt": (_sqrt, lambda x: 1 / (2 * _sqrt(_require_positive(x)))),
    "square": (_square, lambda x: 2 * x),
    "exp": (_exp, _exp),
    "expm1": (_map_ends(lambda p: p.expm1()), _exp),
    "log": (
        lambda x: _map_ends(lambda p: p.log())(_require_positive(x)),
        lambda x: 1 / _require_positive(x),
    ),
    "log1p": (
        lambda x: _map_ends(lambda p: p.log1p())(x if 1 + x > 0 else NAN),
        lambda x: 1 / _require_positive(1 + x),
    ),
    "sin": (_sin, _cos),
    "cos": (_cos, lambda x: -_sin(x)),
    "tan": (_tan, lambda x: 1 + _square(_tan(x))),
    "atan": (_map_ends(lambda p: p.atan()), lambda x: 1 / (1 + _square(x))),
    "tanh": (_tanh, lambda x: 1 - _square(_tanh(x))),
    "erf": (_map_ends(lambda p: p.erf()), lambda x: 2 * _exp(-_square(x)) / arb.pi().sqrt()),
    "relu": (_relu, _step),
    "sigmoid": (_squashed, _map_turns(_sigmoid_slope, _at_zero)),
    "softplus": (_map_ends(lambda p: p.exp().log1p()), _squashed),
    "silu": (_map_turns(_silu, _silu_turn), _map_turns(_silu_slope, _silu_slope_turns)),
    "gelu": (
        _map_turns(lambda p: p * _normal(p), _gelu_turn),
        _map_turns(_gelu_slope, _gelu_slope_turns),
    ),
}


def below(x: arb) -> float:
    """The largest double, or the one before it, that is not above any number of a ball; −inf if there is none."""
    if not x.is_finite():
        return -math.inf
    nearest = float(x.lower())
    return nearest if arb(nearest) <= x.lower() else math.nextafter(nearest, -math.inf)


def above(x: arb) -> float:
    """A double that is not below any number of a ball."""
    return -below(-x)
