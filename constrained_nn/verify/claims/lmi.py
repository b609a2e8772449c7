"""Grade `proof`: linear matrix inequalities, every block factored in exact arithmetic."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from flint import fmpz

from constrained_nn.errors import FileFormatError
from constrained_nn.verify.claim import COMMON
from constrained_nn.verify.file import decode, decode_one, integer, mapping, sequence

KIND, GRADE = "lmi", "proof"
KEYS = (*COMMON, "elements", "variables", "orders", "worst", "data")
DATA = ("S", "Y", "z", "blocks")
BLOCK = ("constant", "left", "right", "slopes")
_MOST_ORDER = 512

Matrix = list[list[int]]


@dataclass(frozen=True)
class LMIAccount:
    """Exact account of all blocks of all elements.

    Args:
        elements: Number of decisions.
        blocks: Inequalities that were factored.
        pivot: Smallest pivot of an `L D Lᵀ` factorization, rounded to nearest.
        element: Where it occurs.
        block: Its block.
        counterexample: Description of a block that is not positive semidefinite, or None.
    """

    elements: int
    blocks: int
    pivot: float
    element: int
    block: int
    counterexample: str | None

    @property
    def verdict(self) -> str:
        return "holds" if self.counterexample is None else "counterexample"

    @property
    def line(self) -> str:
        return f"holds: {self.blocks} blocks factored in exact arithmetic, smallest pivot {self.pivot:.3g}"


@dataclass(frozen=True)
class _Exact:
    """Integers over a common power of two."""

    entries: list[int]
    exponent: int  # entry = integer * 2**-exponent


def evaluate(claim: dict[str, Any], certificate: dict[str, Any]) -> LMIAccount:
    """`constant + left V right + (left V right)ᵀ + Σ zⱼ slopesⱼ` exactly, and its factorization, for every block.

    Raises:
        FileFormatError: The data are not what the claim says they are.
    """
    elements = integer(claim["elements"], "elements", least=1, most=10**7)
    sizes = sequence(claim["variables"], "variables")
    if len(sizes) != 3:
        raise FileFormatError("variables: expected the numbers p, k and s.")
    p, k, s = (integer(v, "variables", most=_MOST_ORDER) for v in sizes)
    if not p + s:  # else a short file could have the checker count without end
        raise FileFormatError("variables: expected a matrix S or scalars, got decisions without numbers.")
    orders = [integer(n, "orders", least=1, most=_MOST_ORDER) for n in sequence(claim["orders"], "orders")]
    data = mapping(claim["data"], DATA, "data")
    blocks = [mapping(b, BLOCK, "data.blocks") for b in sequence(data["blocks"], "data.blocks")]
    if len(blocks) != len(orders) or not blocks:
        raise FileFormatError(f"data.blocks: expected {len(orders)} blocks, got {len(blocks)}.")
    S = _numbers(data["S"], "data.S", elements, p * p, shared=False)
    Y = _numbers(data["Y"], "data.Y", elements, k * p, shared=False)
    z = _numbers(data["z"], "data.z", elements, s, shared=False)
    for e, entries in enumerate(S):
        if any(entries[i * p + j] != entries[j * p + i] for i in range(p) for j in range(i)):
            raise FileFormatError(f"data.S: expected a symmetric matrix, got another in element {e}.")
    shapes = [(n * n, n * (p + k), p * n, s * n * n) for n in orders]
    tensors = [
        [
            _numbers(b[name], f"data.blocks.{name}", elements, size, shared=True)
            for name, size in zip(BLOCK, shape, strict=True)
        ]
        for b, shape in zip(blocks, shapes, strict=True)
    ]

    if not any(_depends(*(any(map(any, t)) for t in block[1:])) for block in tensors):
        raise FileFormatError("data.blocks: expected one that depends on the decisions. Nothing is claimed.")
    worst: tuple[int, int, int, int] | None = None  # numerator, denominator, element, block
    for e in range(elements):
        V = [S[e][i * p : (i + 1) * p] for i in range(p)] + [Y[e][i * p : (i + 1) * p] for i in range(k)]
        for b, n in enumerate(orders):
            constant, left, right, slopes = (t[e if len(t) > 1 else 0] for t in tensors[b])
            F, exponent = _matrix(n, p, k, V, z[e], constant, left, right, slopes)
            bad, pivot = _smallest_pivot(F)
            if bad is not None:
                value = _ratio(pivot[0], pivot[1] << exponent)
                text = (
                    f"element {e}, block {b} is not positive semidefinite: pivot {bad} of its factorization is "
                    f"{value:.6g}"
                )
                return LMIAccount(elements, elements * len(orders), value, e, b, text)
            numerator, denominator = pivot[0], pivot[1] << exponent
            if worst is None or numerator * worst[1] < worst[0] * denominator:
                worst = numerator, denominator, e, b
    assert worst is not None
    value = _ratio(worst[0], worst[1])
    return LMIAccount(elements, elements * len(orders), value, worst[2], worst[3], None)


def _depends(left: bool, right: bool, slopes: bool) -> bool:
    """Whether a block with these coefficients, zero or not, has a decision in it."""
    return slopes or (left and right)


def _numbers(text: Any, where: str, elements: int, size: int, *, shared: bool) -> list[list[float]]:
    """The numbers of every element, or of all together where they share them."""
    values = decode(text, where)
    if shared and len(values) == size:
        return [values]
    if len(values) != elements * size:
        raise FileFormatError(
            f"{where}: expected {size} numbers for each of {elements} elements, got {len(values)}."
        )
    return [values[i * size : (i + 1) * size] for i in range(elements)]


def _exact(values: list[float]) -> _Exact:
    ratios = [v.as_integer_ratio() for v in values]
    common = max((d for _, d in ratios), default=1)  # all are powers of two
    return _Exact([n * (common // d) for n, d in ratios], common.bit_length() - 1)


def _matrix(
    n: int,
    p: int,
    k: int,
    V: list[list[float]],
    z: list[float],
    constant: list[float],
    left: list[float],
    right: list[float],
    slopes: list[float],
) -> tuple[Matrix, int]:
    """Twice the symmetric part of `F`, as integers over `2**exponent`."""
    C, L, R, D = (_exact(t) for t in (constant, left, right, slopes))
    W, Z = _exact([v for row in V for v in row]), _exact(z)
    q = p + k
    terms = (C.exponent, L.exponent + W.exponent + R.exponent, D.exponent + Z.exponent)
    exponent = max(terms)
    up_c, up_v, up_d = (exponent - t for t in terms)
    LV = [
        [sum(L.entries[i * q + a] * W.entries[a * p + j] for a in range(q)) for j in range(p)]
        for i in range(n)
    ]
    G = [[sum(LV[i][a] * R.entries[a * n + j] for a in range(p)) << up_v for j in range(n)] for i in range(n)]
    F = [[C.entries[i * n + j] << up_c for j in range(n)] for i in range(n)]
    for index, value in enumerate(Z.entries):
        for i in range(n):
            for j in range(n):
                F[i][j] += (value * D.entries[(index * n + i) * n + j]) << up_d
    twice = [[F[i][j] + F[j][i] + 2 * (G[i][j] + G[j][i]) for j in range(n)] for i in range(n)]
    return twice, exponent + 1


def _smallest_pivot(F: Matrix) -> tuple[int | None, tuple[int, int]]:
    """First pivot that proves `F` not positive semidefinite, or None; and that or the smallest pivot, as a fraction.

    Fraction-free elimination: the leading minors `M_k` are its pivots, and `M_k / M_{k−1}` those of `L D Lᵀ`. A
    zero pivot needs a zero row, which is then left out.
    """
    n = len(F)
    A = [[fmpz(v) for v in row] for row in F]
    previous = fmpz(1)
    smallest: tuple[int, int] | None = None
    for i in range(n):
        pivot = A[i][i]
        fraction = int(pivot), int(previous)
        if pivot < 0:
            return i, fraction
        if pivot == 0:
            if any(A[i][j] != 0 for j in range(i + 1, n)):
                return i, fraction
            smallest = 0, 1
            continue  # the row is zero already: the others are as they were
        if smallest is None or fraction[0] * smallest[1] < smallest[0] * fraction[1]:
            smallest = fraction
        for j in range(i + 1, n):
            factor = A[i][j]
            for m in range(j, n):
                A[j][m] = (
                    (A[j][m] * pivot - factor * A[i][m]) / previous
                    if previous != 1
                    else A[j][m] * pivot - factor * A[i][m]
                )
        previous = pivot
    assert smallest is not None
    return None, smallest


def _ratio(numerator: int, denominator: int) -> float:
    """The nearest float; beyond the largest, the largest."""
    try:
        return numerator / denominator
    except OverflowError:
        return sys.float_info.max if numerator > 0 else -sys.float_info.max


def check_stated(claim: dict[str, Any], found: LMIAccount) -> None:
    """The stated smallest pivot and its place must be those of the data.

    Raises:
        FileFormatError: They differ.
    """
    worst = mapping(claim["worst"], ("pivot", "element", "block"), "worst")
    stated = (
        decode_one(worst["pivot"], "worst.pivot"),
        integer(worst["element"], "worst.element"),
        integer(worst["block"], "worst.block"),
    )
    if stated != (found.pivot, found.element, found.block):
        raise FileFormatError(
            f"worst: the claim says {stated}, the data give {(found.pivot, found.element, found.block)}."
        )


def statement(claim: dict[str, Any], certificate: dict[str, Any]) -> str:
    """The claim in words, made from its numbers."""
    p, k, s = claim["variables"]
    orders = ", ".join(map(str, claim["orders"]))
    return (
        f"Each of {claim['elements']} decisions (S of order {p}, Y with {k} rows, {s} scalars) of "
        f"{certificate['task']['name']} (version {certificate['task']['version']}) satisfies its linear matrix "
        f"inequalities constant + left V right + (left V right)' + sum z slopes >= 0, V = [S; Y], of orders {orders}, "
        f"without tolerance."
    )


ASSUMPTIONS = (
    "The matrices of the inequalities are those of the task, as recorded.",
    "S, Y and z are the decisions as recorded, in float64; another rounding is another decision.",
)
