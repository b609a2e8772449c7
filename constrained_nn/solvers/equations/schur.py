"""Schur methods for single equations, those that doubling leaves; in NumPy, at a cost of n³ and a memory of n².

`SchurPair` solves Sylvester equations with any right-hand side, `stabilizing_subspace` a Riccati equation by its
matrix pencil.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Matrix = np.ndarray
# Working memory of a Schur form in columns: a block of a reduction, and what goes with it.
_WORK = 40


@functools.cache
def _scipy() -> Any:
    from scipy import linalg

    return linalg


@functools.cache
def blas() -> Any:
    """SciPy's BLAS."""
    return _scipy().blas


@functools.cache
def lapack() -> Any:
    """SciPy's LAPACK, without the checks of its functions, which take longer than a small matrix."""
    return _scipy().lapack


@dataclass(eq=False)  # not frozen, which would take as long as a Schur form of a small matrix
class SchurPair:
    """Solves `A X + X B + C = 0`, or `X = A X B + C` for `discrete`, from Schur forms of `A` and `B`.

    Args:
        U, T: `A = U T Uᴴ`, or `U Tᴴ Uᴴ` where `A_adjoint`; real and block triangular, or (discrete) complex.
        V, S: `B` likewise.
        around: Matrices that turn a discrete right-hand side into that of the continuous equation solved instead.
        shift: The `σ` of that equation (`bilinear`).
    """

    U: Matrix
    T: Matrix
    V: Matrix
    S: Matrix
    discrete: bool
    A_adjoint: bool = False
    B_adjoint: bool = False
    around: tuple[Matrix, Matrix] | None = None
    shift: float = 0.0

    @classmethod
    def factor(cls, A: Matrix, B: Matrix, *, discrete: bool) -> SchurPair:
        """One factorization where `A` is the transpose of `B`, otherwise two."""
        S, V = _schur(B, complex_form=discrete)
        if _are_transposed(A, B):
            return cls(V, S, V, S, discrete, A_adjoint=True)
        T, U = _schur(A, complex_form=discrete)
        return cls(U, T, V, S, discrete)

    @classmethod
    def bilinear(cls, A: Matrix, B: Matrix) -> SchurPair:
        """For `X = A X B + C` by the continuous equation of `M = (A + σI) (A − σI)⁻¹` and its like of `B`: faster, and
        less accurate near an eigenvalue `σ`, which is 1 or −1, on the side of fewer eigenvalues."""
        one, other = np.eye(len(A)), np.eye(len(B))
        shift = -1.0 if A.trace() + B.trace() > 0.0 else 1.0
        F = np.linalg.inv(A - shift * one)
        if _are_transposed(A, B):
            G = F.T
            M = one + (2.0 * shift) * F
            N = M.T
        else:
            G = np.linalg.inv(B - shift * other)
            M, N = one + (2.0 * shift) * F, other + (2.0 * shift) * G
        return replace(cls.factor(M, N, discrete=False), around=(2.0 * F, G), shift=shift)

    def eigenvalues(self) -> Matrix:
        """Eigenvalues of `B`."""
        poles = _form_eigenvalues(self.S)
        return poles if self.around is None else self.shift + 2.0 * self.shift / (poles - 1.0)

    def transposed(self) -> SchurPair:
        """The pair of `Aᵀ` and `Bᵀ`."""
        around = None if self.around is None else (self.around[0].T, self.around[1].T)
        return replace(self, A_adjoint=not self.A_adjoint, B_adjoint=not self.B_adjoint, around=around)

    def solve(self, C: Matrix) -> Matrix:
        """`X` for a right-hand side `(n, m)`."""
        if self.around is not None:
            C = self.around[0] @ C @ self.around[1]
        if not self.discrete:
            Y = self._sylvester(self.U.T.dot(C).dot(self.V))
            return self.U.dot(Y).dot(self.V.T)
        Y = self._stein(self.U.conj().T @ C @ self.V)
        return np.ascontiguousarray(np.real(self.U @ Y @ self.V.conj().T))

    def gap(self) -> float:
        """Least `|λ + μ|` over the eigenvalues of `A` and `B` relative to their size, or least `|1 − λ μ|`."""
        left, right = (_form_eigenvalues(M) for M in (self.T, self.S))
        if self.discrete:
            left, right = (
                v.conj() if adjoint else v for v, adjoint in ((left, self.A_adjoint), (right, self.B_adjoint))
            )
            return float(np.abs(1.0 - np.outer(left, right)).min())
        size = np.abs(left).max() + np.abs(right).max()
        return float(np.abs(left[:, None] + right).min() / (size if size > 0 else 1.0))

    def _sylvester(self, F: Matrix) -> Matrix:
        left, right = ("T" if adjoint else "N" for adjoint in (self.A_adjoint, self.B_adjoint))
        Y, scale, _ = lapack().dtrsyl(self.T, self.S, F, trana=left, tranb=right)
        return Y / -scale if scale > 0 else np.full_like(Y, np.nan)

    def _stein(self, F: Matrix) -> Matrix:
        """`Y = T Y S + F`, one column after the other: `(I − s_jj T) y_j = f_j + T Σ y_k s_kj`."""
        T, n, ztrtrs = self.T, F.shape[1], lapack().ztrtrs
        # with Tᴴ on the left, conjugation of s keeps the upper triangle: I − s Tᴴ = (I − conj(s) T)ᴴ
        S = self.S.conj().T if self.B_adjoint else self.S
        left = T.conj().T if self.A_adjoint else T
        Y, one = np.zeros_like(F), np.eye(len(T))
        done: list[int] = []
        for j in range(n - 1, -1, -1) if self.B_adjoint else range(n):
            right = F[:, j] + left @ (Y[:, done] @ S[done, j]) if done else F[:, j]
            s = S[j, j]
            triangle = one - (s.conjugate() if self.A_adjoint else s) * T
            y, info = ztrtrs(triangle, right, trans=2 if self.A_adjoint else 0)
            Y[:, j] = y.reshape(-1) if info == 0 else np.nan
            done.append(j)
        return Y


def _are_transposed(A: Matrix, B: Matrix) -> bool:
    """Whether `A` is the transpose of `B`."""
    return A.shape == B.shape and bool((A == B.T).all())


def _schur(M: Matrix, *, complex_form: bool) -> tuple[Matrix, Matrix]:
    if complex_form:
        return _scipy().schur(M, output="complex", check_finite=False)
    T, U, _ = schur_form(M)
    return T, U


def schur_form(M: Matrix, *, stable_first: bool = False) -> tuple[Matrix, Matrix, int]:
    """`T` and `U` of `M = U T Uᵀ`, and with `stable_first` how many eigenvalues of the left half plane come first.

    Raises:
        LinAlgError: The iteration, or the change of the order, has failed.
    """
    # a plain lambda: LAPACK's wrapper asks for the number of its arguments, which a checked function hides
    T, stable, _, _, U, _, info = lapack().dgees(
        lambda real, _: real < 0.0, M, sort_t=int(stable_first), lwork=_WORK * len(M)
    )
    if info:
        raise np.linalg.LinAlgError(f"the Schur form failed (dgees: {info})")
    return T, U, stable


def _form_eigenvalues(T: Matrix) -> Matrix:
    """Eigenvalues of a Schur form, whose blocks have equal diagonal entries where they are complex."""
    d = np.diagonal(T).astype(complex)
    if np.iscomplexobj(T) or len(T) < 2:
        return d
    above, below = np.diagonal(T, 1), np.diagonal(T, -1)
    turn = np.sqrt((above * below).astype(complex))
    d[:-1] += np.where(below != 0.0, turn, 0.0)
    d[1:] -= np.where(below != 0.0, turn, 0.0)
    return d


def stabilizing_subspace(
    A: Matrix, B: Matrix, Q: Matrix, R: Matrix, N: Matrix, E: Matrix, *, discrete: bool
) -> Matrix | None:
    """Stabilizing `P` of a Riccati equation by the stable deflating subspace of its pencil, or `None`.

    The pencil `H − λ J` acts on `(x, Pẋ, u)`, so that neither `R` nor `A` needs an inverse; an orthogonal basis of the
    rows that do not meet `u` reduces it to size `2n`.

    References:
        Van Dooren, A generalized eigenvalue approach for solving Riccati equations (1981).
    """
    scipy = _scipy()
    n, m = B.shape
    H, J = np.zeros((2, 2 * n + m, 2 * n + m))
    H[:n, :n], H[:n, 2 * n :] = A, B
    H[n : 2 * n, :n], H[n : 2 * n, 2 * n :] = -Q, -N
    H[2 * n :, :n], H[2 * n :, 2 * n :] = N.T, R
    J[:n, :n] = E
    if discrete:
        H[n : 2 * n, n : 2 * n] = E.T
        J[n : 2 * n, n : 2 * n], J[2 * n :, n : 2 * n] = A.T, -B.T
    else:
        H[n : 2 * n, n : 2 * n], H[2 * n :, n : 2 * n] = -A.T, B.T
        J[n : 2 * n, n : 2 * n] = E.T
    basis, _ = scipy.qr(H[:, 2 * n :], check_finite=False)
    rows = basis[:, m:].T
    try:
        *_, Z = scipy.ordqz(
            rows @ H[:, : 2 * n], rows @ J[:, : 2 * n], sort="iuc" if discrete else "lhp", check_finite=False
        )
        P = np.linalg.solve((E @ Z[:n, :n]).T, Z[n:, :n].T).T
    except (np.linalg.LinAlgError, ValueError):
        return None
    return 0.5 * (P + P.T)
