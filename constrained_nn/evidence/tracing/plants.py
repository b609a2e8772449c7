"""Plants and integrators as straight-line programs: the functions that simulate them, run on numbers that record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from constrained_nn.evidence.tracing.builder import Builder, Number
from constrained_nn.verify.arithmetic import UNARY
from control_envs.dynamics import Dynamics
from control_envs.simulate import Integrator

Array = np.ndarray


def trace(function: Callable[..., Any], *sizes: int) -> dict[str, Any]:
    """The program of a function of vectors, as a JSON value.

    Args:
        function: Called with arrays of numbers `(size,)` and `xp=` the array namespace that records; its result, an
            array of numbers, is the program's.
        sizes: Components of the arguments, which follow each other in the program's input.

    Raises:
        TypeError: It branches on what it computes, or uses a function that no program has.
    """
    builder = Builder(sum(sizes))
    x = builder.numbers(0)
    parts = np.split(x, np.cumsum(sizes)[:-1])
    return builder.program(builder.gather(function(*parts, xp=NAMESPACE)))


def trace_derivative(plant: Dynamics, *, disturbed: bool = False) -> dict[str, Any]:
    """`f(x, u)`, or `f(x, u, w)`, at time 0; the plant must not depend on time."""

    def derivative(x: Array, u: Array, w: Array | None = None, *, xp: Any) -> Array:
        rows = [None if v is None else v[None] for v in (x, u, w)]
        return plant.derivative(0.0, *rows, xp=xp)[0]

    return trace(derivative, *_sizes(plant, disturbed))


def trace_step(
    plant: Dynamics, integrator: Integrator, dt: float, *, disturbed: bool = False
) -> dict[str, Any]:
    """One step of the integrator's own formula, `(x, u) -> x⁺`, or `(x, u, w) -> x⁺`, `u` and `w` held for `dt`."""

    def step(x: Array, u: Array, w: Array | None = None, *, xp: Any) -> Array:
        rows = [None if v is None else v[None] for v in (x, u, w)]
        return integrator.step(plant, 0.0, rows[0], rows[1], rows[2], dt, xp)[0]

    return trace(step, *_sizes(plant, disturbed))


def _sizes(plant: Dynamics, disturbed: bool) -> Sequence[int]:
    sizes = [plant.state_dim, plant.input_dim]
    return [*sizes, len(plant.disturbance)] if disturbed else sizes


def _one(value: Any, op: str) -> Any:
    if isinstance(value, Number):
        return value.unary(op)
    return float(getattr(np, _NUMPY.get(op, op))(float(value)))


_NUMPY = {"atan": "arctan", "neg": "negative"}


class _Linalg:
    """Small systems by elimination without pivoting, which suits the positive definite ones of mechanics."""

    @staticmethod
    def solve(A: Array, b: Array) -> Array:
        A, b = np.broadcast_to(A, A.shape).astype(object), b.astype(object)
        if A.ndim > 2:
            return np.stack([_Linalg.solve(p, q) for p, q in zip(A, b, strict=True)])
        n = len(A)
        A, b = A.copy(), b.copy()
        for i in range(n):
            for j in range(i + 1, n):
                factor = A[j, i] / A[i, i]
                A[j, i:] = A[j, i:] - factor * A[i, i:]
                b[j] = b[j] - factor * b[i]
        for i in reversed(range(n)):
            b[i] = (b[i] - (A[i, i + 1 :, None] * b[i + 1 :]).sum(0)) / A[i, i]
        return b

    @staticmethod
    def inv(A: Array) -> Array:
        return _Linalg.solve(A, np.broadcast_to(np.eye(A.shape[-1]), A.shape))


class _Namespace:
    """The part of an array namespace in which physics is written, on arrays of numbers that record."""

    linalg = _Linalg
    inf, pi = np.inf, np.pi

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python asks of any object
            raise AttributeError(name)
        op = {"arctan": "atan", "negative": "neg", "absolute": "abs"}.get(name, name)
        if op not in UNARY:
            raise TypeError(
                f"trace: there is no '{name}' in a program. Write the plant with {', '.join(UNARY)}, maximum, minimum."
            )
        return lambda a: np.frompyfunc(lambda v: _one(v, op), 1, 1)(_objects(a))

    @staticmethod
    def stack(parts: Sequence[Any], axis: int = 0) -> Array:
        return np.stack([_objects(p) for p in parts], axis)

    @staticmethod
    def concatenate(parts: Sequence[Any], axis: int = 0) -> Array:
        return np.concatenate([_objects(p) for p in parts], axis)

    concat = cat = concatenate

    @staticmethod
    def asarray(values: Any) -> Array:
        return np.asarray(values, dtype=float) if not isinstance(values, np.ndarray) else values

    array = asarray

    @staticmethod
    def zeros_like(a: Any) -> Array:
        return np.zeros(np.shape(a)).astype(object)

    @staticmethod
    def ones_like(a: Any) -> Array:
        return np.ones(np.shape(a)).astype(object)

    @staticmethod
    def maximum(a: Any, b: Any) -> Array:
        return np.frompyfunc(lambda p, q: _pair(p, q, "maximum"), 2, 1)(_objects(a), _objects(b))

    @staticmethod
    def minimum(a: Any, b: Any) -> Array:
        return np.frompyfunc(lambda p, q: _pair(p, q, "minimum"), 2, 1)(_objects(a), _objects(b))

    def clip(self, a: Any, lower: Any, upper: Any) -> Array:
        return self.minimum(self.maximum(a, lower), upper)

    @staticmethod
    def cumsum(a: Any, axis: int = -1) -> Array:
        return np.cumsum(_objects(a), axis)

    @staticmethod
    def sum(a: Any, axis: int = -1) -> Array:
        return np.sum(_objects(a), axis)


def _objects(a: Any) -> Array:
    return np.asarray(a, dtype=object)


def _pair(p: Any, q: Any, name: str) -> Any:
    if isinstance(p, Number):
        return getattr(p, name)(q)
    return getattr(q, name)(p) if isinstance(q, Number) else (max if name == "maximum" else min)(p, q)


NAMESPACE = _Namespace()
