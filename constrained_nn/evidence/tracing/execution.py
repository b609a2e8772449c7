"""Programs on points, in NumPy float64: for tests, for samples, and to repeat a counterexample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from constrained_nn.verify.arithmetic import Algebra, Instruction, Program, bind

Array = np.ndarray


def evaluate(program: Program, x: Array) -> Array:
    """Result `(*batch, outputs)` of a program at the points `x` `(*batch, inputs)`."""
    x = np.asarray(x, dtype=float)

    def make_constant(i: Instruction) -> Callable[[], Array]:
        return lambda: np.broadcast_to(np.array(i.numbers), (*x.shape[:-1], i.size))

    return bind(program, {**_ALGEBRA, "const": make_constant})(x)


def _make_affine(i: Instruction) -> Callable[[Array], Array]:
    W, b = np.array(i.numbers).reshape(i.size, -1), np.array(i.offset)
    return lambda a: a @ W.T + b


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
_ALGEBRA: Algebra[Array] = {
    "take": lambda i: lambda a: a[..., list(i.integers)],
    "join": lambda i: lambda *parts: np.concatenate(parts, -1),
    "affine": _make_affine,
    "power": lambda i: lambda a: a ** i.integers[0],
    "sum": lambda i: lambda a: a.sum(-1, keepdims=True),
    **{op: lambda i: (POINTWISE | _BINARY)[i.op] for op in POINTWISE | _BINARY},
}
