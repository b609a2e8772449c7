"""Programs on points, in NumPy float64: for tests, for samples, and to repeat a counterexample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from constrained_nn.verify.arithmetic import Instruction, Program

Array = np.ndarray


def evaluate(program: Program, x: Array) -> Array:
    """Result `(*batch, outputs)` of a program at the points `x` `(*batch, inputs)`."""
    registers = [np.asarray(x, dtype=float)]
    for instruction in program.code:
        registers.append(
            _execute(instruction, [registers[a] for a in instruction.args], registers[0].shape[:-1])
        )
    return registers[-1]


def _execute(i: Instruction, args: list[Array], batch: tuple[int, ...]) -> Array:
    if i.op == "const":
        return np.broadcast_to(np.array(i.numbers), (*batch, i.size))
    if i.op == "take":
        return args[0][..., list(i.integers)]
    if i.op == "join":
        return np.concatenate(args, -1)
    if i.op == "affine":
        return args[0] @ np.array(i.numbers).reshape(i.size, -1).T + np.array(i.offset)
    if i.op == "power":
        return args[0] ** i.integers[0]
    if i.op == "sum":
        return args[0].sum(-1, keepdims=True)
    return (POINTWISE.get(i.op) or _BINARY[i.op])(*args)


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -x))


def _erf(x: Array) -> Array:
    from scipy.special import erf

    return erf(x)


POINTWISE: dict[str, Callable[..., Array]] = {
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "square": np.square,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "atan": np.arctan,
    "tanh": np.tanh,
    "erf": _erf,
    "relu": lambda x: np.maximum(x, 0.0),
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.logaddexp(0.0, x),
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1.0 + _erf(x / np.sqrt(2.0))),
}
_BINARY: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}
