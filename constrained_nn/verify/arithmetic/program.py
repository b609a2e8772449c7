"""Straight-line programs: what a plant, a controller or a certificate function is to the checker.

A program of `n` inputs is a list of instructions. Register 0 is the input `(n,)`; instruction `i` makes register
`i + 1`, a vector of real numbers, from earlier ones; the last register is the result. There are no branches and no
loops. All numbers are exact: hexadecimal floats, each the rational number that it is. In JSON:

    {"inputs": 2, "code": [["take", 0, [0]], ["sin", 1], ["const", "0x1.8p+0"], ["mul", 2, 3]]}

is `1.5 sin(x₁)`. Operations:

- `["const", numbers]`; `["take", a, [i, ...]]` (components of `a`); `["join", a, b, ...]`;
- `["affine", a, W, b]`: `W a + b`, `W` row by row; `["power", a, k]`: `aᵏ`, an integer `k >= 2`;
- `["sum", a]` (of the components); `["sub", a, b]`, likewise `add`, `mul`, `div`, `max`, `min`: component by
  component, where a vector of one component goes with any other;
- `["sin", a]`, likewise every name in `UNARY`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from constrained_nn.errors import FileFormatError
from constrained_nn.verify.file import decode, integer, mapping, sequence

UNARY = (
    "neg", "abs", "sqrt", "square", "exp", "expm1", "log", "log1p", "sin", "cos", "tan", "atan", "tanh", "erf",
    "relu", "sigmoid", "softplus", "silu", "gelu",
)  # fmt: skip
BINARY = ("add", "sub", "mul", "div", "max", "min")
OPERATIONS = ("const", "take", "join", "affine", "power", "sum", *UNARY, *BINARY)
MOST_INSTRUCTIONS = 100_000
MOST_COMPONENTS = 1_000_000  # of all registers together
MOST_POWER = 64


@dataclass(frozen=True)
class Instruction:
    """One instruction: `op` of the registers `args`, a vector of `size` components.

    Args:
        op: Name of the operation.
        args: Registers that it reads, all earlier.
        size: Number of components.
        numbers: Of `const`, its components; of `affine`, the rows of `W` one after the other.
        offset: Of `affine`, `b`.
        integers: Of `take`, the components; of `power`, the exponent.
    """

    op: str
    args: tuple[int, ...]
    size: int
    numbers: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    integers: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Program:
    """A program that was validated.

    Args:
        inputs: Number of inputs `n`.
        code: Its instructions.
    """

    inputs: int
    code: tuple[Instruction, ...]

    @property
    def outputs(self) -> int:
        """Number of components of the result."""
        return self.code[-1].size if self.code else self.inputs


ValueT = TypeVar("ValueT")
# for every name in OPERATIONS: of an instruction, what it makes of the values in its registers
Algebra = Mapping[str, Callable[[Instruction], Callable[..., ValueT]]]


def bind(program: Program, algebra: Algebra[ValueT]) -> Callable[[ValueT], ValueT]:
    """The program as a function of its input, over whatever kind of values an algebra is about.

    This is the only place where instructions are carried out, one after the other. Points, balls, power series and
    intervals differ in their algebra alone: in what a register holds, and in what each operation makes of that.
    """
    sizes = [program.inputs, *(i.size for i in program.code)]
    steps = []
    for i in program.code:
        operation = algebra[i.op](i)
        if i.op in BINARY and sizes[i.args[0]] != sizes[i.args[1]]:
            operation = _spread(operation, [sizes[a] for a in i.args], i, algebra)
        steps.append((operation, i.args))

    def execute(x: ValueT) -> ValueT:
        registers = [x]
        for operation, args in steps:
            registers.append(operation(*(registers[a] for a in args)))
        return registers[-1]

    return execute


def _spread(
    operation: Callable[..., ValueT], sizes: list[int], i: Instruction, algebra: Algebra[ValueT]
) -> Callable[..., ValueT]:
    """The operation where one of both vectors has a single component: it goes with all of the other."""
    repeat = algebra["take"](Instruction("take", i.args[:1], i.size, integers=(0,) * i.size))
    if sizes[0] == 1:
        return lambda a, b: operation(repeat(a), b)
    return lambda a, b: operation(a, repeat(b))


def parse(data: Any, where: str, *, inputs: int | None = None, outputs: int | None = None) -> Program:
    """The program in a JSON value.

    Args:
        data: The value.
        where: Its place in the file, for messages.
        inputs: How many inputs it must have, if that is known.
        outputs: How many components its result must have, if that is known.

    Raises:
        FileFormatError: An instruction is unknown, reads a register that is not there, or does not fit the sizes.
    """
    data = mapping(data, ("inputs", "code"), where)
    n = integer(data["inputs"], f"{where}.inputs", least=1, most=MOST_COMPONENTS)
    items = sequence(data["code"], f"{where}.code")
    if len(items) > MOST_INSTRUCTIONS:
        raise FileFormatError(f"{where}.code: expected at most {MOST_INSTRUCTIONS} instructions.")
    sizes, code, total = [n], [], n
    for i, item in enumerate(items):
        code.append(_instruction(item, sizes, f"{where}.code[{i}]"))
        sizes.append(code[-1].size)
        total += code[-1].size
        if total > MOST_COMPONENTS:
            raise FileFormatError(f"{where}.code[{i}]: expected at most {MOST_COMPONENTS} components in all.")
    program = Program(n, tuple(code))
    for what, expected, found in (("inputs", inputs, n), ("outputs", outputs, program.outputs)):
        if expected is not None and expected != found:
            raise FileFormatError(f"{where}: expected a program of {expected} {what}, got {found}.")
    return program


def _instruction(item: Any, sizes: list[int], where: str) -> Instruction:
    item = sequence(item, where)
    op = item[0] if item and isinstance(item[0], str) else None
    if op == "const":
        numbers = tuple(decode(_rest(item, 1, where)[0], where))
        return Instruction("const", (), _require_some(len(numbers), where), numbers)
    if op == "join":
        args = tuple(_register(a, sizes, where) for a in item[1:])
        return Instruction("join", args, _require_some(sum(sizes[a] for a in args), where))
    if op == "take":
        a, which = _rest(item, 2, where)
        a = _register(a, sizes, where)
        taken = tuple(integer(k, where, most=sizes[a] - 1) for k in sequence(which, where))
        return Instruction("take", (a,), _require_some(len(taken), where), integers=taken)
    if op == "affine":
        a, W, b = _rest(item, 3, where)
        a = _register(a, sizes, where)
        offset = tuple(decode(b, where))
        weights = tuple(decode(W, where, _require_some(len(offset), where) * sizes[a]))
        return Instruction("affine", (a,), len(offset), weights, offset)
    if op == "power":
        a, k = _rest(item, 2, where)
        a = _register(a, sizes, where)
        return Instruction("power", (a,), sizes[a], integers=(integer(k, where, least=2, most=MOST_POWER),))
    if op == "sum":
        return Instruction("sum", (_register(_rest(item, 1, where)[0], sizes, where),), 1)
    if op in UNARY:
        a = _register(_rest(item, 1, where)[0], sizes, where)
        return Instruction(op, (a,), sizes[a])
    if op in BINARY:
        a, b = (_register(r, sizes, where) for r in _rest(item, 2, where))
        if sizes[a] != sizes[b] and 1 not in (sizes[a], sizes[b]):
            raise FileFormatError(f"{where}: '{op}' does not join {sizes[a]} and {sizes[b]} components.")
        return Instruction(op, (a, b), max(sizes[a], sizes[b]))
    raise FileFormatError(f"{where}: there is no such instruction.")


def _rest(item: list[Any], count: int, where: str) -> list[Any]:
    if len(item) != count + 1:
        raise FileFormatError(f"{where}: '{item[0]}' takes {count} arguments, got {len(item) - 1}.")
    return item[1:]


def _register(value: Any, sizes: list[int], where: str) -> int:
    return integer(value, where, most=len(sizes) - 1)


def _require_some(count: int, where: str) -> int:
    if count < 1:
        raise FileFormatError(f"{where}: expected at least one component, got none.")
    return count
