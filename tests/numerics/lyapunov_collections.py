"""CTLEX and DTLEX, collections of Lyapunov equations, and their solutions in 600-bit arithmetic.

Kressner, Mehrmann, Penzl, CTLEX and DTLEX, collections of benchmark examples for continuous-time and discrete-time
Lyapunov equations, SLICOT working notes 1999-6 and 1999-7: the examples 4.1 and 4.2, whose matrices are dense.
"""

from __future__ import annotations

from collections.abc import Iterator

import flint
import numpy as np


def equations(sizes: tuple[int, ...], *, discrete: bool) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """`A` and `Q` of `A X + X Aᵀ + Q = 0` or `X = A X Aᵀ + Q`."""
    for n in sizes:
        for r, s in ((1.1, 1.1), (1.5, 1.2), (1.5, 1.5), (2.0, 1.1)):
            if r**n < 1e60:
                powers = r ** np.arange(n)
                D = np.diag((powers - 1) / (powers + 1)) if discrete else np.diag(-powers)
                yield f"4.1-{n}-{r}-{s}", *_turned(D, s)
        for rate in (0.3, 0.6, 0.9):
            for s in (1.1, 1.3, 2.0):
                D = (rate if discrete else -10.0 * (1.0 - rate)) * np.eye(n) + np.eye(n, k=1)
                yield f"4.2-{n}-{rate}-{s}", *_turned(D, s)


def _turned(D: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray]:
    """In coordinates `H₁ S H₂` of two reflections and a scaling `diag(1, s, s², …)`."""
    n = len(D)
    e, f = np.ones((n, 1)), ((-1.0) ** np.arange(n))[:, None]
    first, second = np.eye(n) - 2 / n * e @ e.T, np.eye(n) - 2 / n * f @ f.T
    scale = s ** np.arange(n)
    V, inverse = first @ (scale[:, None] * second), (second / scale) @ first
    b = np.arange(1, n + 1)[None] @ inverse
    return (V @ D @ inverse).T, b.T @ b


def reference(A: np.ndarray, Q: np.ndarray, *, discrete: bool, bits: int = 600) -> np.ndarray:
    """The solution for a stable `A` by doubling in `bits` bits, rounded."""
    before = flint.ctx.prec
    flint.ctx.prec = bits
    try:
        M, X = flint.arb_mat(A.tolist()), flint.arb_mat(Q.tolist())
        if not discrete:  # X = M X Mᵀ + 2γ F Q Fᵀ with F = (γI − A)⁻¹, M = F (γI + A)
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
