"""CTLEX and DTLEX, collections of Lyapunov equations, and their solutions in many bits.

Kressner, Mehrmann, Penzl, CTLEX and DTLEX, collections of benchmark examples for continuous-time and discrete-time
Lyapunov equations, SLICOT working notes 1999-6 and 1999-7: the examples 4.1 to 4.4, with the parameters of SLICOT's
BB03AD and BB04AD and others. Those of 4.3 and 4.4 have a descriptor matrix `E`: `Aᵀ X E + Eᵀ X A + BᵀB = 0` becomes the
equation of `A E⁻¹` and `B E⁻¹`, which has the same solution. The reference is that of the matrices as they are rounded.
"""

from __future__ import annotations

from collections.abc import Iterator

import flint
import numpy as np


def equations(sizes: tuple[int, ...], *, discrete: bool) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """`A` and `Q` of `A X + X Aᵀ + Q = 0` or `X = A X Aᵀ + Q`."""
    for n in sizes:
        count, first = np.arange(1.0, n + 1.0), np.eye(n)[0]
        for r, s in ((1.1, 1.1), (1.5, 1.2), (1.5, 1.5), (2.0, 1.1)):
            if r**n < 1e60:
                powers = r ** np.arange(n)
                D = np.diag((powers - 1) / (powers + 1)) if discrete else np.diag(-powers)
                yield f"4.1-{n}-{r}-{s}", *_turned(D, first if discrete else count, s)
        for rate in (-0.5, 0.3, 0.6, 0.9):
            for s in (1.1, 1.3, 1.5, 2.0):
                if rate > 0 or s == 1.5:
                    eigenvalue = rate if discrete or rate < 0 else -10.0 * (1.0 - rate)
                    D = eigenvalue * np.eye(n) + np.eye(n, k=1)
                    yield f"4.2-{n}-{rate}-{s}", *_turned(D, first, s)
        for t in (2, 10, 20, 30):
            yield f"4.3-{n}-{t}", *_triangular(n, t, discrete)
        for t in (1.1, 1.5, 2.0):
            if n % 3 == 0 and t ** (n / 3) < 1e30:
                yield f"4.4-{n}-{t}", *_blocks(n // 3, t, discrete)


def _turned(D: np.ndarray, b: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray]:
    """In coordinates `H₂ S H₁` of two reflections and a scaling `diag(1, s, s², …)`."""
    n = len(D)
    e, f = np.ones((n, 1)), ((-1.0) ** np.arange(n))[:, None]
    first, second = np.eye(n) - 2 / n * e @ e.T, np.eye(n) - 2 / n * f @ f.T
    scale = s ** np.arange(n)
    V, inverse = second @ (scale[:, None] * first), (first / scale) @ second
    b = b[None] @ inverse
    return (V @ D @ inverse).T, b.T @ b


def _triangular(n: int, t: int, discrete: bool) -> tuple[np.ndarray, np.ndarray]:
    """4.3: triangular `A` and `E`; an eigenvalue of `A E⁻¹` is about `2⁻ᵗ` from the boundary. `X` is all ones."""
    E = np.eye(n) + 2.0**-t * np.tri(n, k=-1)
    A = np.diag(np.arange(n) + float(discrete) + 2.0**-t) + np.tri(n, k=-1).T
    X = np.ones((n, n))
    Y = A.T @ X @ A - E.T @ X @ E if discrete else A.T @ X @ E + E.T @ X @ A
    inverse = np.linalg.inv(E)
    return (A @ inverse).T, -inverse.T @ Y @ inverse


def _blocks(q: int, t: float, discrete: bool) -> tuple[np.ndarray, np.ndarray]:
    """4.4: blocks of 3 with eigenvalues `−tⁱ` and `−tⁱ (1 ± i)`, or `1 − t⁻ⁱ` and others of that modulus; the sums of
    states in their order, `E = L Lᵀ J` with ones below the diagonal of `L`, and reversed columns."""
    n = 3 * q
    D = np.zeros((n, n))
    for i in range(1, q + 1):
        single = 1 - t**-i if discrete else -(t**i)
        pair = -single / np.sqrt(2.0) if discrete else single
        k = n - 3 * i
        D[k : k + 3, k : k + 3] = [[pair, -pair, 0], [pair, pair, 0], [0, 0, single]]
    inverse = np.eye(n) - np.eye(n, k=-1)
    b = np.arange(n, 0.0, -1.0)[None] @ inverse.T @ inverse
    return (np.tri(n) @ D @ inverse).T, b.T @ b


def reference(A: np.ndarray, Q: np.ndarray, *, discrete: bool, bits: int = 600) -> np.ndarray:
    """The solution by doubling in `bits` bits, rounded, for `A` with all eigenvalues on one side of the boundary."""
    before = flint.ctx.prec
    flint.ctx.prec = bits
    try:
        M, X = flint.arb_mat(A.tolist()), flint.arb_mat(Q.tolist())
        if discrete:
            if np.linalg.slogdet(A)[1] > 0:  # X = A⁻¹ (X − Q) A⁻ᵀ
                M = M.inv().mid()
                X = (-1 * (M * X * M.transpose())).mid()
        else:  # X = M X Mᵀ + 2γ F Q Fᵀ with F = (γI − A)⁻¹, M = F (γI + A)
            if np.trace(A) > 0:
                A, M, X = -A, -1 * M, -1 * X
            shift = flint.arb(float(np.abs(np.linalg.eigvals(A)).mean()) + 1.0)
            one = flint.arb_mat(np.eye(len(A)).tolist())
            F = (shift * one - M).inv().mid()
            M, X = (F * (shift * one + M)).mid(), (2 * shift * (F * X * F.transpose())).mid()
        for _ in range(60):
            step = (M * X * M.transpose()).mid()
            X, M = (X + step).mid(), (M * M).mid()
            if _norm(step) < _norm(X) * 1e-40:
                break
        return np.array([[float(x) for x in row] for row in X.tolist()])
    finally:
        flint.ctx.prec = before


def _norm(X: flint.arb_mat) -> float:
    return float(sum((x * x for row in X.tolist() for x in row), flint.arb(0)).sqrt().mid())
