"""Layers in closed form as instructions: what a projection layer computes, in real arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np

from constrained_nn.evidence.tracing.builder import Builder


def clamp(builder: Builder, y: int, lower: Any, upper: Any) -> int:
    """`min(max(y, lower), upper)`; an infinite bound is none. The projection onto a `Box`."""
    size = builder.sizes[y]
    lower, upper = (np.broadcast_to(np.asarray(b, dtype=float).ravel(), (size,)) for b in (lower, upper))
    for bound, op in ((lower, "max"), (upper, "min")):
        if np.isfinite(bound).all():
            y = builder.emit(op, y, builder.constant(bound))
        elif np.isfinite(bound).any():
            parts = [builder.take(y, [i]) for i in range(size)]
            y = builder.join(
                *(
                    builder.emit(op, part, builder.constant([b])) if np.isfinite(b) else part
                    for part, b in zip(parts, bound, strict=True)
                )
            )
    return y


def enforce_row(
    builder: Builder, y: int, normal: int, *, lower: int | None = None, upper: int | None = None
) -> int:
    """`y + a (clamp(a·y, lower, upper) − a·y) / |a|²`: HardNet-Aff with one row, the projection onto a half-space.

    Args:
        builder: Where the instructions go.
        y: Register of the decision `(n)`.
        normal: Register of the row `a` `(n)`, nowhere zero.
        lower: Register of its lower bound `(1)`, or None.
        upper: Register of its upper bound `(1)`, or None.
    """
    value = builder.emit("sum", builder.emit("mul", normal, y))
    excess = []
    if upper is not None:
        excess.append(builder.emit("relu", builder.emit("sub", value, upper)))
    if lower is not None:
        excess.append(builder.emit("neg", builder.emit("relu", builder.emit("sub", lower, value))))
    total = excess[0] if len(excess) == 1 else builder.emit("add", *excess)
    square = builder.emit("sum", builder.emit("square", normal))
    return builder.emit("sub", y, builder.emit("mul", normal, builder.emit("div", total, square)))


def enforce_rows(builder: Builder, y: int, A: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> int:
    """`y + A⁺ (clamp(A y, lower, upper) − A y)`: HardNet-Aff with constant rows of full rank (Eq. 5).

    Args:
        builder: Where the instructions go.
        y: Register of the decision `(n)`.
        A: Rows `(k, n)`, `k <= n`, independent. `A⁺` is written out in float64, as the layer uses it.
        lower, upper: Bounds `(k)`; an infinite one is none, and each row has one that is finite.
    """
    values = builder.affine(y, A)
    excess = []
    for i, bounds in enumerate(zip(lower, upper, strict=True)):
        value = builder.take(values, [i])
        low, high = (builder.constant([b]) if np.isfinite(b) else None for b in bounds)
        parts = []
        if high is not None:
            parts.append(builder.emit("relu", builder.emit("sub", value, high)))
        if low is not None:
            parts.append(builder.emit("neg", builder.emit("relu", builder.emit("sub", low, value))))
        excess.append(parts[0] if len(parts) == 1 else builder.emit("add", *parts))
    return builder.emit("sub", y, builder.affine(builder.join(*excess), np.linalg.pinv(A)))


def along_ray(builder: Builder, y: int, center: Any, Q: Any, level: int) -> int:
    """`center + d / √max(1, dᵀ Q d / level)`, `d = y − center`: the ray projection of ECO, `level` positive."""
    d = builder.emit("sub", y, builder.constant(center))
    energy = builder.emit("sum", builder.emit("mul", d, builder.affine(d, Q)))
    ratio = builder.emit("max", builder.emit("div", energy, level), builder.constant([1.0]))
    return builder.emit("add", builder.constant(center), builder.emit("div", d, builder.emit("sqrt", ratio)))


def quadratic(builder: Builder, x: int, P: Any, center: Any) -> int:
    """`(x − center)ᵀ P (x − center)`."""
    e = builder.emit("sub", x, builder.constant(center))
    return builder.emit("sum", builder.emit("mul", e, builder.affine(e, P)))
