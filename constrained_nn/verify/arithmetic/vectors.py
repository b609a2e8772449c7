"""Vectors of balls with their Jacobians, programs on them, and mean-value enclosures over boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from flint import arb, arb_mat

from constrained_nn.verify.arithmetic.balls import (
    NAN,
    ONE,
    UNARY,
    ZERO,
    interval,
    maximum,
    meet,
    minimum,
    power,
    reciprocal,
)
from constrained_nn.verify.arithmetic.program import BINARY, Algebra, Instruction, Program, bind
from constrained_nn.verify.arithmetic.program import UNARY as NAMES
from constrained_nn.verify.cover import middle

Row = list[arb]


@dataclass(frozen=True, eq=False)
class Vector:
    """A function of the box's coordinates, enclosed over the whole box.

    Where the function has a kink (`relu`, `abs`, `max`, `min`) the Jacobian encloses every generalized one: along any
    segment in the box the function is absolutely continuous, and almost everywhere its derivative is one of these
    matrices times the direction, which is all that the mean-value form needs.

    Args:
        values: Balls `(k)` that contain its components.
        jacobian: Balls `(k, n)` that contain its derivatives; None where they are not wanted.
    """

    values: Row
    jacobian: list[Row] | None = None

    @staticmethod
    def box(lower: Sequence[float], upper: Sequence[float]) -> Vector:
        """The coordinates of a box, with the identity as Jacobian."""
        values = [interval(a, b) for a, b in zip(lower, upper, strict=True)]
        n = range(len(values))
        return Vector(values, [[ONE if i == j else ZERO for j in n] for i in n])

    @staticmethod
    def constant(numbers: Iterable[float | arb]) -> Vector:
        """Numbers, without Jacobian."""
        return Vector([arb(v) for v in numbers])

    def take(self, which: Sequence[int]) -> Vector:
        """Components, in the order given."""
        rows = None if self.jacobian is None else [self.jacobian[i] for i in which]
        return Vector([self.values[i] for i in which], rows)

    def __len__(self) -> int:
        return len(self.values)


Map = Callable[..., Vector]


def join(*parts: Vector) -> Vector:
    """Vectors one after the other."""
    parts = _give_jacobians(*parts)
    values = [v for part in parts for v in part.values]
    rows = [part.jacobian for part in parts]
    return Vector(values, None if rows[0] is None else [r for block in rows for r in block or ()])


def apply(op: str, *args: Vector) -> Vector:
    """An operation of `program.UNARY` or `program.BINARY`, or `sum`, of vectors."""
    if op == "sum":
        (a,) = args
        rows = a.jacobian
        return Vector(
            [_sum(a.values)], None if rows is None else [[_sum(c) for c in zip(*rows, strict=True)]]
        )
    if len(args) == 1:
        image, slope = UNARY[op]
        (a,) = args
        values = [image(v) for v in a.values]
        return Vector(values, _scale([slope(v) for v in a.values], a) if a.jacobian else None)
    a, b = args if len(args[0].values) == len(args[1].values) else _match_sizes(*args)
    f = _VALUES[op]
    values = [f(x, y) for x, y in zip(a.values, b.values, strict=True)]
    if a.jacobian is None and b.jacobian is None:
        return Vector(values)
    rows, none = _ROWS[op], [None] * len(values)
    terms = zip(a.values, b.values, a.jacobian or none, b.jacobian or none, strict=True)
    return Vector(values, [rows(x, y, dx, dy) for x, y, dx, dy in terms])


def _give_jacobians(*parts: Vector) -> tuple[Vector, ...]:
    """All with a Jacobian if one has it: that of a constant is zero."""
    widths = [len(part.jacobian[0]) for part in parts if part.jacobian]
    if not widths:
        return parts
    return tuple(
        part if part.jacobian else Vector(part.values, [[ZERO] * widths[0] for _ in part.values])
        for part in parts
    )


def _match_sizes(a: Vector, b: Vector) -> tuple[Vector, Vector]:
    if len(a) == len(b):
        return a, b
    return (a.take([0] * len(b)), b) if len(a) == 1 else (a, b.take([0] * len(a)))


def _sum(values: Sequence[arb]) -> arb:
    total = ZERO
    for value in values:
        total = total + value
    return total


def _scale(slopes: Row, a: Vector) -> list[Row]:
    return [[_product(s, d) for d in row] for s, row in zip(slopes, a.jacobian or (), strict=True)]


def _product(slope: arb, derivative: arb) -> arb:
    """A slope times a derivative; of no account where the derivative is zero, unless there is no slope."""
    return ZERO if derivative.is_zero() and slope.is_finite() else slope * derivative


# Derivatives of the operations on two components, of which at most one may have none (None: a constant).


def _add_rows(x: arb, y: arb, dx: Row | None, dy: Row | None) -> Row:
    if dx is None or dy is None:
        return dx or dy or []
    return [p + q for p, q in zip(dx, dy, strict=True)]


def _subtract_rows(x: arb, y: arb, dx: Row | None, dy: Row | None) -> Row:
    return _add_rows(x, y, dx, None if dy is None else [-q for q in dy])


def _multiply_rows(x: arb, y: arb, dx: Row | None, dy: Row | None) -> Row:
    left = None if dx is None else [_product(y, p) for p in dx]
    return _add_rows(x, y, left, None if dy is None else [_product(x, q) for q in dy])


def _divide_rows(x: arb, y: arb, dx: Row | None, dy: Row | None) -> Row:
    inverse = reciprocal(y)
    left = None if dx is None else [_product(inverse, p) for p in dx]
    if dy is None:
        return left or []
    back = -x * inverse * inverse
    return _add_rows(x, y, left, [_product(back, q) for q in dy])


def _choose_rows(x: arb, y: arb, dx: Row | None, dy: Row | None) -> Row:
    """Of `max(x, y)`: where either may be the larger, everything between the two."""
    dx = dx or [ZERO] * len(dy or ())
    dy = dy or [ZERO] * len(dx)
    if x > y:
        return dx
    if y > x:
        return dy
    if not (x.is_finite() and y.is_finite()):
        return [NAN] * len(dx)
    return [p.union(q) for p, q in zip(dx, dy, strict=True)]


_VALUES: dict[str, Callable[[arb, arb], arb]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x * reciprocal(y),
    "max": maximum,
    "min": minimum,
}
_ROWS: dict[str, Callable[[arb, arb, Row | None, Row | None], Row]] = {
    "add": _add_rows,
    "sub": _subtract_rows,
    "mul": _multiply_rows,
    "div": _divide_rows,
    "max": _choose_rows,
    "min": lambda x, y, dx, dy: _choose_rows(-x, -y, dx, dy),
}


class Interpreter:
    """A program on vectors of balls.

    Args:
        program: The program.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._execute = bind(program, _ALGEBRA)

    def __call__(self, x: Vector) -> Vector:
        """Its result for an input `(n)`, with Jacobian if the input has one."""
        if len(x) != self.program.inputs:
            raise AssertionError(f"a program of {self.program.inputs} inputs was given {len(x)}")
        result = self._execute(x)
        if x.jacobian and result.jacobian is None:  # a constant
            return Vector(result.values, [[ZERO] * len(x.jacobian[0]) for _ in result.values])
        return result


def _make_constant(i: Instruction) -> Map:
    value = Vector.constant(i.numbers)
    return lambda: value


def _make_affine(i: Instruction) -> Map:
    matrix = arb_mat(i.size, len(i.numbers) // i.size, [arb(v) for v in i.numbers])
    offset = [arb(v) for v in i.offset]
    return lambda a: _affine(matrix, offset, a)


def _make_power(i: Instruction) -> Map:
    (k,) = i.integers

    def raise_to(a: Vector) -> Vector:
        slopes = [k * power(v, k - 1) for v in a.values] if a.jacobian else []
        return Vector([power(v, k) for v in a.values], _scale(slopes, a) if a.jacobian else None)

    return raise_to


_ALGEBRA: Algebra[Vector] = {
    "const": _make_constant,
    "take": lambda i: lambda a: a.take(i.integers),
    "join": lambda i: join,
    "affine": _make_affine,
    "power": _make_power,
    **{op: lambda i: partial(apply, i.op) for op in ("sum", *NAMES, *BINARY)},
}


def _affine(matrix: arb_mat, offset: Row, a: Vector) -> Vector:
    columns = 1 if a.jacobian is None else 1 + len(a.jacobian[0])
    rows = (
        [[v] for v in a.values]
        if a.jacobian is None
        else [[v, *row] for v, row in zip(a.values, a.jacobian, strict=True)]
    )
    entries = (matrix * arb_mat(len(rows), columns, [e for row in rows for e in row])).entries()
    values = [entries[k * columns] + b for k, b in enumerate(offset)]
    if a.jacobian is None:
        return Vector(values)
    return Vector(values, [entries[k * columns + 1 : (k + 1) * columns] for k in range(len(offset))])


def linear(A: Sequence[Sequence[float]], b: Sequence[float], x: Vector) -> Vector:
    """`A x + b`."""
    matrix = arb_mat(len(A), len(x), [arb(v) for row in A for v in row])
    return _affine(matrix, [arb(v) for v in b], x)


def enclose(function: Map, lower: Sequence[float], upper: Sequence[float]) -> Vector:
    """Enclosure of a function over a box: natural, and by the mean-value theorem about the center `c`,

        f(x) ∈ f(c) + J (x − c),

    whichever is tighter in each component. A box without finite enclosure gives balls that are not finite.

    Args:
        function: What is enclosed, made of programs and `apply`.
        lower: Lower ends of the box `(n)`.
        upper: Upper ends of the box `(n)`.
    """
    box = Vector.box(lower, upper)
    over = function(box)
    if over.jacobian is None:
        return over
    # in the box, where alone J is known: half of the smallest double is none, and rounds to another
    center = [min(max(middle(a, b), a), b) for a, b in zip(lower, upper, strict=True)]
    at_center = function(Vector.constant(center))
    moves = [x - c for x, c in zip(box.values, center, strict=True)]
    values = []
    for natural, value, row in zip(over.values, at_center.values, over.jacobian, strict=True):
        mean = value + _sum([_product(d, m) for d, m in zip(row, moves, strict=True)])
        values.append(meet(natural, mean))
    return Vector(values, over.jacobian)
