"""CAREX and DAREX, collections of Riccati equations, and their solutions in 600-bit arithmetic.

Benner, Laub, Mehrmann, A collection of benchmark examples for the numerical solution of algebraic Riccati equations I
and II, SPC 95_22 and SPC 95_23 (1995). Small examples of fixed data are in `riccati_collections.json`, numbered as in
SciPy's tests; larger ones are taken from the files that SciPy installs with its tests, where they are there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import flint
import numpy as np
import scipy

Matrices = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def carex() -> Iterator[tuple[str, Matrices]]:
    """The twenty examples with SciPy's parameters, and those with a parameter swept over it."""
    yield from _fixed("carex")
    for k in (6, 15, 18, 19, 20):
        file = Path(scipy.__file__).parent / "linalg" / "tests" / "data" / f"carex_{k}_data.npz"
        if file.exists():
            with np.load(file) as data:
                yield f"carex-{k}", _matrices(*(data[name] for name in "ABQR"))
    yield "carex-16", _circle(64)
    yield "carex-17", _matrices(np.eye(21, k=1), np.eye(21)[:, -1:], _corner(21), 1)
    for k in range(9):
        yield f"carex-2.1-{k}", _matrices([[1, 0], [0, -2]], [[10.0**-k], [0]], np.ones((2, 2)), 1)
    for k in range(0, 12, 2):
        R = np.ones((2, 2)) + np.diag([10.0**-k, 0])
        Q = [[100, 1000], [1000, 10000]]
        yield f"carex-2.2-{k}", _matrices(np.diag([-0.1, -0.02]), [[0.1, 0], [0.001, 0.01]], Q, R)
    for k in range(-8, 9):
        yield f"carex-2.3-{k}", _matrices([[0, 10.0**k], [0, 0]], [[0], [1]], np.eye(2), 1)
    for k in range(10):
        A = np.ones((2, 2)) + 10.0**-k * np.eye(2)
        yield f"carex-2.4-{k}", _matrices(A, np.eye(2), 10.0 ** (-2 * k) * np.eye(2), np.eye(2))
    for e in (0.0, 1e-3, 0.5, 1.0):
        Q = [[4 * e - 11, 2 * e - 5], [2 * e - 5, 2 * e - 2]]
        yield f"carex-2.5-{e}", _matrices([[3 - e, 1], [4, 2 - e]], [[1], [1]], Q, 1)
    V = np.eye(3) - 2.0 / 3.0
    for k in range(9):
        e = 10.0**k
        A, Q = V @ np.diag([e, 2 * e, 3 * e]) @ V, V @ np.diag([1 / e, 1, e]) @ V
        yield f"carex-2.6-{k}", _matrices(A, np.eye(3), 0.5 * (Q + Q.T), e * np.eye(3))
    for k in range(9):
        f = 10.0**k
        A = [[0, 0.4, 0, 0], [0, 0, 0.345, 0], [0, -0.524 * f, -0.465 * f, 0.262 * f], [0, 0, 0, -f]]
        yield f"carex-2.7-{k}", _matrices(A, [[0], [0], [0], [f]], np.diag([1, 0, 1, 0]), 1)
    for k in range(9):
        e = 10.0**-k
        A = [[-e, 1, 0, 0], [-1, -e, 0, 0], [0, 0, e, 1], [0, 0, -1, e]]
        yield f"carex-2.8-{k}", _matrices(A, np.ones((4, 1)), np.ones((4, 4)), 1)
    for n in (5, 9, 16, 32):
        yield f"carex-3.2-{n}", _circle(n)
    for n in (1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 30):
        for r in (1e-4, 1.0, 1e4):
            yield f"carex-4.1-{n}-{r:g}", _matrices(np.eye(n, k=1), np.eye(n)[:, -1:], _corner(n), r)
    for n in (10, 20, 40, 100):  # 4.2: diffusion
        N, h = n, 1.0 / (n + 1)
        M = h / 6 * (4 * np.eye(N) + np.eye(N, k=1) + np.eye(N, k=-1))
        K = -0.01 / h * (2 * np.eye(N) - np.eye(N, k=1) - np.eye(N, k=-1))
        b = np.zeros(N)
        b[: N // 3] = h
        A, B = np.linalg.solve(M, K), np.linalg.solve(M, b)[:, None]
        yield f"carex-4.2-{n}", _matrices(A, B, np.outer(b, b), 1)
    for n in (2, 4, 8, 15):  # 4.3: masses, springs, dampers
        size = n + 1
        K = np.diag([1.0, *[2.0] * (size - 2), 1.0]) - np.eye(size, k=1) - np.eye(size, k=-1)
        M, L = 1.0, 4.0
        A = np.block([[np.zeros((size, size)), np.eye(size)], [-K / M, -L / M * np.eye(size)]])
        B = np.zeros((2 * size, 2))
        B[size, 0], B[-1, 1] = 1 / M, -1 / M
        yield f"carex-4.3-{n}", _matrices(A, B, np.eye(2 * size), np.eye(2))


def darex() -> Iterator[tuple[str, Matrices]]:
    """The examples of SciPy's tests with real data, and those with a parameter swept over it."""
    yield from _fixed("darex")
    yield "darex-18", _matrices(np.eye(100, k=1), np.eye(100)[:, -1:], np.eye(100), 1)
    for k in range(-8, 9):
        yield f"darex-2.1-{k}", _matrices([[0, 10.0**k], [0, 0]], [[0], [1]], np.eye(2), 1)
    V = np.eye(3) - 2.0 / 3.0
    A = V @ np.diag([0, 1, 3]) @ V
    for k in range(-8, 9, 2):
        yield f"darex-2.2-{k}", _matrices(A, np.eye(3), 10.0**k * np.eye(3), 10.0**k * np.eye(3))
    for k in range(1, 11):
        A = np.eye(4, k=-1)
        A[0, 0] = 1 - 10.0**-k
        yield f"darex-2.3-{k}", _matrices(A, 10.0**-k * np.eye(4)[:, :1], np.diag([0, 0, 0, 1]), 0.25)
    for n in (2, 5, 10, 20, 40):
        for r in (1e-6, 1.0, 1e6):
            yield f"darex-2.4-{n}-{r:g}", _matrices(np.eye(n, k=1), np.eye(n)[:, -1:], np.eye(n), r)


def _fixed(collection: str) -> Iterator[tuple[str, Matrices]]:
    examples = json.loads(Path(__file__).with_suffix(".json").read_text())
    yield from ((name, _matrices(*M)) for name, M in examples.items() if name.startswith(collection))


def _circle(n: int) -> Matrices:
    A = np.eye(n, k=1) + np.eye(n, k=-1) - 2 * np.eye(n)
    A[0, -1] = A[-1, 0] = 1
    return _matrices(A, np.eye(n), np.eye(n), np.eye(n))


def _corner(n: int) -> np.ndarray:
    Q = np.zeros((n, n))
    Q[0, 0] = 1
    return Q


def _matrices(A, B, Q, R) -> Matrices:
    A, B, Q, R = (np.atleast_2d(np.asarray(M, dtype=float)) for M in (A, B, Q, R))
    return A, B, 0.5 * (Q + Q.T), R


def reference(A, B, Q, R, *, discrete: bool, bits: int = 600) -> np.ndarray | None:
    """The stabilizing solution by the matrix sign function in `bits` bits, rounded; `None` where it has none.

    `R` has an inverse. The stable subspace of the Hamiltonian matrix (of the symplectic pencil, by a Cayley transform)
    is the null space of `sign + I`.
    """
    n, before = len(A), flint.ctx.prec
    flint.ctx.prec = bits
    try:
        A, B, Q, R = (flint.arb_mat(np.asarray(M, dtype=float).tolist()) for M in (A, B, Q, R))
        one, zero = _eye(n), flint.arb_mat(n, n)
        S = (B * R.solve(B.transpose())).mid()
        if discrete:
            M, L = _block(A, zero, -1 * Q, one), _block(one, S, zero, A.transpose())
            W = (M + L).solve(M - L).mid()
        else:
            W = _block(A, -1 * S, -1 * Q, -1 * A.transpose())
        W = _sign(W, bits)
        if W is None:
            return None
        full = (W + _eye(2 * n)).tolist()
        left = flint.arb_mat([row[n:] for row in full])
        right = flint.arb_mat([row[:n] for row in full])
        X = (left.transpose() * left).mid().solve((left.transpose() * right).mid()).mid()
        return -np.array([[float(x) for x in row] for row in X.tolist()])
    except ZeroDivisionError:
        return None
    finally:
        flint.ctx.prec = before


def _eye(n: int) -> flint.arb_mat:
    return flint.arb_mat(np.eye(n).tolist())


def _block(A, B, C, D) -> flint.arb_mat:
    top = [a + b for a, b in zip(A.tolist(), B.tolist(), strict=True)]
    return flint.arb_mat(top + [c + d for c, d in zip(C.tolist(), D.tolist(), strict=True)])


def _sign(W: flint.arb_mat, bits: int) -> flint.arb_mat | None:
    """Newton's iteration `W ← (c W + (c W)⁻¹) / 2` with norms for the factor."""
    for _ in range(300):
        V = W.inv().mid()
        w, v = _size(W), _size(V)
        c = (v / w).sqrt().mid() if abs(float((v * w).log())) > 1 else flint.arb(1)
        new = ((W * c + V * (1 / c)) * flint.arb(0.5)).mid()
        if _size(new - W) < _size(new) * flint.arb(2) ** (-bits // 2):
            return new
        W = new
    return None


def _size(W: flint.arb_mat) -> flint.arb:
    total = flint.arb(0)
    for row in W.tolist():
        for x in row:
            total = total + x * x
    return total.sqrt().mid()
