"""Sums of matrix products to twice the working precision, from products that are exact in float64.

The entries of both factors are cut into slices of so few bits that products of slices, and their sums, have no rounding
error (Ozaki et al.). A residual that is formed in this way is that of the given numbers, not that of the rounding, so
that Newton's method with it brings a solution to full accuracy, and its last step measures the error that is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from constrained_nn.solvers.equations.matrices import Array, namespace

_SLICES = 4


def _bits(inner: int) -> int:
    """Bits of a slice: a sum of `2 · inner` products of two slices fits into 53 bits."""
    return (53 - math.ceil(math.log2(2 * inner))) // 2


def unit_error(inner: int) -> float:
    """Error of `sum_of_products` relative to the product of the norms of its factors, as roundings add up."""
    return 2.0 * math.sqrt(inner) * 2.0 ** (-_SLICES * _bits(inner))


def sum_of_products(pairs: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """`Σ X Y` over the pairs `(X, Y)` as an unevaluated sum of two matrices.

    References:
        Ozaki, Ogita, Oishi, Rump, Error-free transformations of matrix multiplication by using fast routines of matrix
        multiplication (2012).
    """
    xp = namespace(pairs[0][0])
    X = xp.concatenate([x for x, _ in pairs], -1)
    Y = xp.concatenate([y for _, y in pairs], -2)
    # powers of two that give column k of X the size of row k of Y: what a slice cuts off is then small in the product
    columns, rows = xp.amax(abs(X), -2), xp.amax(abs(Y), -1)
    both = (columns > 0) & (rows > 0)
    half = 0.5 * (xp.log2(xp.where(both, rows, 1.0)) - xp.log2(xp.where(both, columns, 1.0)))
    scale = xp.where(both, xp.exp2(xp.round(half)), 0.0)
    unscale = xp.where(both, xp.exp2(-xp.round(half)), 0.0)
    bits = _bits(X.shape[-1])
    X = _slices(X * scale[..., None, :], -1, bits)
    Y = _slices(Y * unscale[..., :, None], -2, bits)
    hi, lo = X[0] @ Y[0], None
    for last in range(1, _SLICES):
        left, right = xp.concatenate(X[: last + 1], -1), xp.concatenate(Y[last::-1], -2)
        hi, error = two_sum(hi, left @ right)
        lo = error if lo is None else lo + error
    return two_sum(hi, lo)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """`a + b` rounded, and its rounding error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _slices(M: Array, axis: int, bits: int) -> list[Array]:
    """Matrices that add up to `M`, but for what is below the last: each entry has `bits` bits at a common exponent
    along `axis`."""
    xp = namespace(M)
    top = xp.amax(abs(M), axis)
    exponent = xp.ceil(xp.log2(xp.where(top > 0, top, 1.0))) + 1.0
    shape = (..., None) if axis == -1 else (..., None, slice(None))
    carry = 1.5 * xp.exp2(exponent + (52 - bits))[shape]
    parts = []
    for _ in range(_SLICES):
        part = (M + carry) - carry
        parts.append(part)
        M = M - part
        carry = carry * 2.0**-bits
    return parts
