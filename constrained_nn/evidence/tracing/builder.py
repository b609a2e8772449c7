"""Writes straight-line programs: numbers that record what is done to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from constrained_nn.verify import encode
from constrained_nn.verify.arithmetic import BINARY, UNARY, Program, parse


class Builder:
    """Instructions of a program, each written once.

    Args:
        inputs: Number of inputs.
    """

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.sizes = [inputs]
        self._code: list[list[Any]] = []
        self._known: dict[Any, int] = {}

    def emit(self, op: str, *args: int, extra: Sequence[Any] = ()) -> int:
        """The register of an operation on registers; one that exists already is used again."""
        if op in ("add", "mul", "max", "min"):
            args = tuple(sorted(args))
        key = (op, args, repr(extra))
        if key not in self._known:
            self._code.append([op, *args, *extra])
            self.sizes.append(self._size(op, args, extra))
            self._known[key] = len(self.sizes) - 1
        return self._known[key]

    def constant(self, values: Any) -> int:
        """The register of constant numbers, flattened."""
        values = np.asarray(values, dtype=float).ravel()
        return self.emit("const", extra=[encode(values.tolist())])

    def affine(self, a: int, W: Any, b: Any | None = None) -> int:
        """`W a + b`, `W` `(k, n)`, `b` `(k)` or None."""
        W = np.asarray(W, dtype=float)
        b = np.zeros(len(W)) if b is None else np.asarray(b, dtype=float)
        return self.emit("affine", a, extra=[encode(W.ravel().tolist()), encode(b.tolist())])

    def take(self, a: int, which: Sequence[int]) -> int:
        """Components of a register."""
        which = [int(i) for i in which]
        return a if which == list(range(self.sizes[a])) else self.emit("take", a, extra=[which])

    def join(self, *parts: int) -> int:
        """Registers one after the other."""
        return parts[0] if len(parts) == 1 else self.emit("join", *parts)

    def number(self, a: int, i: int = 0) -> Number:
        """Component `i` of a register as a number."""
        return Number(self, self.take(a, [i]))

    def numbers(self, a: int) -> np.ndarray:
        """All components of a register as an array of numbers `(size,)`."""
        found = np.empty(self.sizes[a], dtype=object)
        found[:] = [self.number(a, i) for i in range(self.sizes[a])]
        return found

    def gather(self, values: Any) -> int:
        """The register of an array of numbers, flattened."""
        return self.join(*(self.register(v) for v in np.asarray(values, dtype=object).ravel()))

    def register(self, value: Any) -> int:
        """The register of one number, a constant one if it is a float."""
        return value.register if isinstance(value, Number) else self.constant([value])

    def program(self, result: int) -> dict[str, Any]:
        """The program whose result is this register, without what it does not need, as a JSON value."""
        return {"inputs": self.inputs, "code": self._select_needed(result)}

    def _select_needed(self, result: int) -> list[list[Any]]:
        needed, stack = set(), [result]
        while stack:
            r = stack.pop()
            if r and r not in needed:
                needed.add(r)
                stack += self._args(self._code[r - 1])
        if not result:
            return [["take", 0, list(range(self.inputs))]]
        order = sorted(needed)
        place = {0: 0} | {r: i + 1 for i, r in enumerate(order)}
        code = []
        for r in order:
            item = self._code[r - 1]
            count = len(self._args(item))
            code.append([item[0], *(place[a] for a in item[1 : 1 + count]), *item[1 + count :]])
        return code

    def _args(self, item: list[Any]) -> list[int]:
        op = item[0]
        if op == "const":
            return []
        return item[1:] if op in (*BINARY, *UNARY, "join", "sum") else item[1:2]

    def _size(self, op: str, args: tuple[int, ...], extra: Sequence[Any]) -> int:
        if op == "const":
            return len(extra[0].split())
        if op == "take":
            return len(extra[0])
        if op == "affine":
            return len(extra[1].split())
        if op == "join":
            return sum(self.sizes[a] for a in args)
        return 1 if op == "sum" else max(self.sizes[a] for a in args)


class Number:
    """One component that is computed in a program; arithmetic writes instructions.

    Only what changes no real number is simplified: sums with 0, products with 0 and 1.
    """

    def __init__(self, builder: Builder, register: int) -> None:
        self.builder = builder
        self.register = register

    def unary(self, op: str) -> Number:
        """A function of `_program.UNARY`."""
        return Number(self.builder, self.builder.emit(op, self.register))

    def _binary(self, op: str, other: Any, *, swapped: bool = False) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented  # NumPy goes through its elements
        pair = (self.register, self.builder.register(other))
        return Number(self.builder, self.builder.emit(op, *(pair[::-1] if swapped else pair)))

    def __add__(self, other: Any) -> Any:
        return self if _is(other, 0.0) else self._binary("add", other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self if _is(other, 0.0) else self._binary("sub", other)

    def __rsub__(self, other: Any) -> Any:
        return -self if _is(other, 0.0) else self._binary("sub", other, swapped=True)

    def __mul__(self, other: Any) -> Any:
        if _is(other, 0.0):
            return 0.0
        if isinstance(other, Number) and other.register == self.register:
            return self.unary("square")
        return self if _is(other, 1.0) else -self if _is(other, -1.0) else self._binary("mul", other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self if _is(other, 1.0) else self._binary("div", other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._binary("div", other, swapped=True)

    def __neg__(self) -> Number:
        return self.unary("neg")

    def __pos__(self) -> Number:
        return self

    def __abs__(self) -> Number:
        return self.unary("abs")

    def __pow__(self, k: Any) -> Any:
        if not (isinstance(k, int | float) and k == int(k) and 1 <= k <= 64):
            raise TypeError(f"Number.__pow__: expected an integer exponent from 1 to 64, got {k!r}.")
        if k <= 2:
            return self if k == 1 else self.unary("square")
        return Number(self.builder, self.builder.emit("power", self.register, extra=[int(k)]))

    def maximum(self, other: Any) -> Number:
        """`max(self, other)`."""
        return self.unary("relu") if _is(other, 0.0) else self._binary("max", other)

    def minimum(self, other: Any) -> Number:
        """`min(self, other)`."""
        return self._binary("min", other)

    def __bool__(self) -> bool:
        raise TypeError("Number.__bool__: a traced program cannot branch on what it computes.")

    def __lt__(self, other: Any) -> bool:
        raise TypeError("Number.__lt__: a traced program cannot branch on what it computes. Use maximum.")

    __gt__ = __le__ = __ge__ = __lt__


def _is(value: Any, number: float) -> bool:
    return isinstance(value, int | float | np.number) and not math.isnan(value) and float(value) == number


def program_of(data: dict[str, Any]) -> Program:
    """The validated program of a JSON value."""
    return parse(data, "program")
