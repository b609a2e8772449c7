"""Ranges of functions over many boxes at once, with their Jacobians: interval arithmetic in torch, float64.

Sound in real arithmetic; rounding is not bounded here, and whoever states a bound adds a slack for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import SetTypeError
from constrained_nn.verify.arithmetic import OPERATIONS, Algebra, Instruction, Program, bind


@dataclass(frozen=True, eq=False)
class Range:
    """A function `(n,) -> (k,)` enclosed over boxes `[x − h, x + h]`.

    Args:
        center: Its values at the centers `(boxes, k)`.
        low: Lower ends of its values over the boxes `(boxes, k)`.
        high: Upper ends.
        slope: Middle of its Jacobian's entries over the boxes `(boxes, k, n)`.
        spread: Half width of the Jacobian's entries.
        h: Half widths of the boxes `(boxes, n)`.
    """

    center: Tensor
    low: Tensor
    high: Tensor
    slope: Tensor
    spread: Tensor
    h: Tensor

    @staticmethod
    def boxes(x: Float[Tensor, "boxes n"], h: Float[Tensor, "boxes n"]) -> Range:
        """The coordinates of the boxes."""
        eye = torch.eye(x.shape[-1], dtype=x.dtype).expand(*x.shape, x.shape[-1])
        return Range(x, x - h, x + h, eye, torch.zeros_like(eye), h)

    def met(self) -> Range:
        """The same, its values met with the mean-value form `center ± |Jacobian| h`."""
        reach = ((self.slope.abs() + self.spread) @ self.h.unsqueeze(-1)).squeeze(-1)
        low, high = (
            torch.maximum(self.low, self.center - reach),
            torch.minimum(self.high, self.center + reach),
        )
        # of functions with kinks or of rounding: never an empty range
        return Range(
            self.center,
            torch.minimum(low, self.center),
            torch.maximum(high, self.center),
            self.slope,
            self.spread,
            self.h,
        )

    def size(self) -> Tensor:
        """Largest magnitude of every component `(boxes, k)`."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def take(self, which: list[int]) -> Range:
        return Range(
            self.center[:, which],
            self.low[:, which],
            self.high[:, which],
            self.slope[:, which],
            self.spread[:, which],
            self.h,
        )

    def affine(self, W: Tensor, b: Tensor | None = None) -> Range:
        """`W y + b`."""
        offset = 0.0 if b is None else b
        middle, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        value, reach = middle @ W.mT + offset, half @ W.abs().mT
        return Range(
            self.center @ W.mT + offset,
            value - reach,
            value + reach,
            W @ self.slope,
            W.abs() @ self.spread,
            self.h,
        ).met()

    def __add__(self, other: Range) -> Range:
        return Range(
            self.center + other.center,
            self.low + other.low,
            self.high + other.high,
            self.slope + other.slope,
            self.spread + other.spread,
            self.h,
        ).met()

    def scaled(self, factor: float) -> Range:
        k = self.center.shape[-1]
        return self.affine(factor * torch.eye(k, dtype=self.center.dtype))

    def __sub__(self, other: Range) -> Range:
        return self + other.scaled(-1.0)

    def __mul__(self, other: Range) -> Range:
        """Component by component."""
        ends = torch.stack(
            [self.low * other.low, self.low * other.high, self.high * other.low, self.high * other.high]
        )
        slope_1, spread_1 = _times(self._ends(), other.slope, other.spread)
        slope_2, spread_2 = _times(other._ends(), self.slope, self.spread)
        return Range(
            self.center * other.center,
            ends.amin(0),
            ends.amax(0),
            slope_1 + slope_2,
            spread_1 + spread_2,
            self.h,
        ).met()

    def sum(self) -> Range:
        """Sum of the components, as one."""
        return self.affine(torch.ones(1, self.center.shape[-1], dtype=self.center.dtype))

    def map(self, name: str) -> Range:
        """A function of every component."""
        value, derivative = _FUNCTIONS[name]
        low, high = value(self.low, self.high)
        center = value(self.center, self.center)[0]
        slope, spread = _times(derivative(self.low, self.high), self.slope, self.spread)
        return Range(center, low, high, slope, spread, self.h).met()

    def _ends(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high


def join(*parts: Range) -> Range:
    """Components one after the other."""

    def column(name: str) -> Tensor:
        return torch.cat([getattr(p, name) for p in parts], 1)

    return Range(
        column("center"), column("low"), column("high"), column("slope"), column("spread"), parts[0].h
    )


def _times(ends: tuple[Tensor, Tensor], slope: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a Jacobian times factors between `ends`."""
    middle, half = 0.5 * (ends[0] + ends[1]).unsqueeze(-1), 0.5 * (ends[1] - ends[0]).unsqueeze(-1)
    return middle * slope, middle.abs() * spread + half * (slope.abs() + spread)


Ends = tuple[Tensor, Tensor]


def _ends_of_rising(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Ends]:
    return lambda low, high: (f(low), f(high))


def _ends_of_hump(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Ends]:
    """Of an even function that falls away from 0."""

    def ends(low: Tensor, high: Tensor) -> Ends:
        near = torch.where((low <= 0) & (high >= 0), 0.0, torch.minimum(low.abs(), high.abs()))
        return f(torch.maximum(low.abs(), high.abs())), f(near)

    return ends


def _sin(low: Tensor, high: Tensor) -> Ends:
    """Widened by 1e-12, so that rounding of the turn's number does not miss a peak."""

    def holds(phase: float) -> Tensor:
        turns = (torch.stack([low - 1e-12, high + 1e-12]) - phase) / (2.0 * math.pi)
        return turns[1].floor() >= turns[0].ceil()

    a, b = low.sin(), high.sin()
    return (
        torch.where(holds(-0.5 * math.pi), -1.0, torch.minimum(a, b)),
        torch.where(holds(0.5 * math.pi), 1.0, torch.maximum(a, b)),
    )


def _cos(low: Tensor, high: Tensor) -> Ends:
    return _sin(low + 0.5 * math.pi, high + 0.5 * math.pi)


def _square(low: Tensor, high: Tensor) -> Ends:
    least, most = _ends_of_hump(lambda a: -a.square())(low, high)
    return -most, -least


def _tan(low: Tensor, high: Tensor) -> Ends:
    """Without bounds where a pole is inside, or within 1e-12."""
    turns = (torch.stack([low - 1e-12, high + 1e-12]) / math.pi + 0.5).floor()
    whole = turns[0] == turns[1]
    return torch.where(whole, low.tan(), -torch.inf), torch.where(whole, high.tan(), torch.inf)


def _tan_slope(low: Tensor, high: Tensor) -> Ends:
    least, most = _square(*_tan(low, high))
    return 1.0 + least, 1.0 + most


def _logistic_slope(a: Tensor) -> Tensor:
    s = torch.sigmoid(a)
    return s * (1.0 - s)


_FUNCTIONS: dict[str, tuple[Callable[[Tensor, Tensor], Ends], Callable[[Tensor, Tensor], Ends]]] = {
    "tanh": (_ends_of_rising(torch.tanh), _ends_of_hump(lambda a: 1.0 - torch.tanh(a).square())),
    "softplus": (
        _ends_of_rising(lambda a: torch.logaddexp(a, torch.zeros_like(a))),
        _ends_of_rising(torch.sigmoid),
    ),
    "sigmoid": (_ends_of_rising(torch.sigmoid), _ends_of_hump(_logistic_slope)),
    "exp": (_ends_of_rising(torch.exp), _ends_of_rising(torch.exp)),
    "atan": (_ends_of_rising(torch.atan), _ends_of_hump(lambda a: 1.0 / (1.0 + a.square()))),
    "sin": (_sin, _cos),
    "cos": (_cos, lambda low, high: tuple(-e for e in reversed(_sin(low, high)))),  # type: ignore[return-value]
    "tan": (_tan, _tan_slope),
    "square": (_square, _ends_of_rising(lambda a: 2.0 * a)),
    "neg": (
        lambda low, high: (-high, -low),
        lambda low, high: (-torch.ones_like(low), -torch.ones_like(low)),
    ),
}


def range_of_program(program: Program, x: Range) -> Range:
    """The range of a traced function.

    Raises:
        SetTypeError: It has an operation that has no range here.
    """

    def make_constant(i: Instruction) -> Callable[[], Range]:
        return lambda: constant(torch.tensor(i.numbers, dtype=x.center.dtype), x)

    return bind(program, {**_ALGEBRA, "const": make_constant})(x)


def _make_affine(i: Instruction) -> Callable[[Range], Range]:
    W, b = (torch.tensor(v, dtype=torch.float64) for v in (i.numbers, i.offset))
    W = W.reshape(i.size, -1)
    return lambda a: a.affine(W.to(a.center), b.to(a.center))


def _make_power(i: Instruction) -> Callable[[Range], Range]:
    if i.integers[0] == 2:
        return lambda a: a.map("square")
    if i.integers[0] == 3:
        return lambda a: a.map("square") * a
    return _refuse(i)


def _refuse(i: Instruction) -> Callable[..., Range]:
    raise SetTypeError(
        f"range_of_program: expected sums, products, quotients and {', '.join(_FUNCTIONS)}, got '{i.op}'. Give "
        f"`plant_lipschitz` instead of a plant to be traced."
    )


_ALGEBRA: Algebra[Range] = {
    **dict.fromkeys(OPERATIONS, _refuse),
    "take": lambda i: lambda a: a.take(list(i.integers)),
    "join": lambda i: join,
    "affine": _make_affine,
    "sum": lambda i: lambda a: a.sum(),
    "power": _make_power,
    "add": lambda i: lambda a, b: a + b,
    "sub": lambda i: lambda a, b: a - b,
    "mul": lambda i: lambda a, b: a * b,
    "div": lambda i: lambda a, b: a * _invert(b),
    **{name: lambda i: lambda a: a.map(i.op) for name in _FUNCTIONS},
}


def constant(values: Tensor, like: Range) -> Range:
    """The same values over every box."""
    boxes, n = like.h.shape
    value = values.expand(boxes, -1)
    zero = torch.zeros(boxes, len(values), n, dtype=value.dtype)
    return Range(value, value, value, zero, zero, like.h)


def spread_to(a: Range, size: int) -> Range:
    """One component as `size` of them; `size` components as they are."""
    return a if a.center.shape[-1] == size else a.take([0] * size)


def _invert(a: Range) -> Range:
    """`1 / a`, infinite where a box holds a zero of it."""
    safe = (a.low > 0) | (a.high < 0)
    low, high = torch.where(safe, 1.0 / a.high, -torch.inf), torch.where(safe, 1.0 / a.low, torch.inf)
    ends = (-torch.maximum(low.abs(), high.abs()).square(), -torch.minimum(low.abs(), high.abs()).square())
    slope, spread = _times(tuple(torch.where(safe, e, 0.0) for e in ends), a.slope, a.spread)  # type: ignore[arg-type]
    spread = torch.where(safe.unsqueeze(-1), spread, torch.inf)
    return Range(1.0 / a.center, low, high, slope, spread, a.h)
