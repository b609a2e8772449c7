"""Ball arithmetic: straight-line programs on balls, vectors, and power series."""

from constrained_nn.verify.arithmetic.balls import (
    ONE,
    ZERO,
    above,
    below,
    interval,
    maximum,
    precision,
    widen,
)
from constrained_nn.verify.arithmetic.jets import Jet, order, run, solution
from constrained_nn.verify.arithmetic.program import (
    BINARY,
    OPERATIONS,
    UNARY,
    Algebra,
    Instruction,
    Program,
    bind,
    parse,
)
from constrained_nn.verify.arithmetic.solutions import enclose_solutions, reach, rk4, rk4_error
from constrained_nn.verify.arithmetic.vectors import Interpreter, Map, Vector, apply, enclose, join, linear

__all__ = [
    "BINARY",
    "ONE",
    "OPERATIONS",
    "UNARY",
    "ZERO",
    "Algebra",
    "Instruction",
    "Interpreter",
    "Jet",
    "Map",
    "Program",
    "Vector",
    "above",
    "apply",
    "below",
    "bind",
    "enclose",
    "enclose_solutions",
    "interval",
    "join",
    "linear",
    "maximum",
    "order",
    "parse",
    "precision",
    "reach",
    "rk4",
    "rk4_error",
    "run",
    "solution",
    "widen",
]
