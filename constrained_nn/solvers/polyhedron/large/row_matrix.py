"""Unit rows of one polyhedron in NumPy, sparse where most entries are zero, and their Newton systems.

The systems of a projection, `(A D Aᵀ + E) v = r` with diagonal `D >= 0` and `E >= 0`, know nothing of bounds
on the point itself: those are in `D`. They are factored in the space of the rows or of the columns, whichever
is smaller, and by a sparse factorization where the fill is small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Solve = Callable[[Array], Array]

# Share of nonzero entries under which products with the sparse matrix are cheaper, and the size from which on.
_SPARSE, _SPARSE_FROM = 0.2, 30_000
# Rows from which on a sparse factor is cheaper, and the share of nonzero entries in the matrix and in its factor.
_SPARSE_FACTOR_FROM, _SPARSE_MATRIX, _SPARSE_FACTOR = 200, 0.06, 0.15
# Added to the diagonal of a normal matrix, relative to it, so that dependent rows do no harm.
_SHIFT = 1e-12


class RowMatrix:
    """Rows `A (m, n)` of norm one (zero rows stay zero), with the products that a projection needs.

    Args:
        A: The rows as they are given.
    """

    def __init__(self, A: Array) -> None:
        largest = np.abs(A).max(axis=1, initial=0.0)
        self.zero = largest == 0
        largest = np.where(self.zero, 1.0, largest)
        A = A / largest[:, None]  # so that no square overflows
        norm = np.where(self.zero, 1.0, np.linalg.norm(A, axis=1))
        self.norm = largest * norm
        unit = A / norm[:, None]
        if A.size >= _SPARSE_FROM and np.count_nonzero(unit) < _SPARSE * A.size:
            from scipy.sparse import csr_array

            unit = csr_array(unit)
        self._set(unit)

    def _set(self, unit: Any) -> None:
        self.shape, self.A = unit.shape, unit
        self.sparse = not isinstance(unit, np.ndarray)
        self.At = unit.T.tocsr() if self.sparse else np.ascontiguousarray(unit.T)
        self._order: NDArray[np.intp] | None = None
        self._dense_factor = not self.sparse or self.shape[0] < _SPARSE_FACTOR_FROM
        self._squares: Any = None
        self._beside: Any = None

    @property
    def magnitude(self):
        """`|A|`."""
        return abs(self.A)

    def take(self, rows: NDArray[np.intp]) -> RowMatrix:
        """Some of the rows."""
        part = object.__new__(RowMatrix)
        part.norm, part.zero = self.norm[rows], self.zero[rows]
        part._set(self.A[rows])
        return part

    def column_gram(self, weight: Array) -> Array:
        """`Aᵀ diag(weight) A (n, n)`."""
        return _weighted(self.At, weight, self.A)

    def factor(self, D: Array, E: Array | float = 0.0) -> Solve | None:
        """Solve with `A diag(D) Aᵀ + diag(E)` by its factor; `None` if there is none.

        Args:
            E: Where `E > 0` in most rows, a factor in the space of the columns may be smaller.
        """
        E = np.broadcast_to(E, self.shape[:1])
        equality = E == 0
        if 2 * self.shape[1] < self.shape[0] - int(equality.sum()):
            return self._column_factor(D, E, equality)
        if not self._dense_factor:
            return self._sparse_factor(D, E)
        return cholesky(_weighted(self.A, D, self.At), E)

    def _sparse_factor(self, D: Array, E: Array) -> Solve | None:
        """Factor of the sparse matrix, its rows in the order of least fill that the first one found."""
        from scipy.sparse import csc_array, eye_array, hstack
        from scipy.sparse.linalg import splu

        if self._beside is None:
            wide: Any = hstack([self.A, eye_array(self.shape[0])], format="csr")
            self._beside, self._squares = (wide, wide.T.tocsr()), self.A.power(2)
        shift = _SHIFT * np.maximum(self._squares @ D + E, 1e-3)
        M = _weighted_sparse(self._beside[0], np.concatenate([D, E + shift]), self._beside[1])
        m = self.shape[0]
        order = self._order
        if order is None and M.nnz > _SPARSE_MATRIX * m * m:
            self._dense_factor = True
            return self.factor(D, E)
        options = {"SymmetricMode": True, "Equil": False}
        ordering = "MMD_AT_PLUS_A" if order is None else "NATURAL"
        M = csc_array((M.data, M.indices, M.indptr), shape=(m, m))  # it is symmetric
        try:
            lu = splu(M, permc_spec=ordering, diag_pivot_thresh=0.0, options=options)
        except RuntimeError:
            return None
        if order is not None:
            back = np.argsort(order)
            return lambda r: lu.solve(r[order])[back]
        if lu.nnz > _SPARSE_FACTOR * m * m:
            self._dense_factor = True
        self._order = np.argsort(lu.perm_c)
        wide = self._beside[0][self._order]
        self._beside = (wide, wide.T.tocsr())
        return lu.solve

    def _column_factor(self, D: Array, E: Array, equality: NDArray[np.bool_]) -> Solve | None:
        """With `q = −D Aᵀ v`: `(D⁻¹ + Aᵢᵀ Eᵢ⁻¹ Aᵢ) q + Aₑᵀ vₑ = −Aᵢᵀ Eᵢ⁻¹ rᵢ` and `Aₑ q = −rₑ`."""
        inverse = np.where(equality, 0.0, 1.0 / np.where(equality, 1.0, E))
        inner = cholesky(self.column_gram(inverse), 1.0 / np.maximum(D, 1e-30))
        if inner is None:
            return None
        A, At = self.A, self.At
        some = np.flatnonzero(equality)
        Ae = A[some].toarray() if self.sparse else A[some]
        across, outer = np.zeros((self.shape[1], 0)), None
        if some.size:
            across = np.stack([inner(row) for row in Ae], axis=1)
            outer = cholesky(Ae @ across, 0.0)
            if outer is None:
                return None

        def solve(r: Array) -> Array:
            q = -inner(At @ (inverse * r))
            v = np.zeros_like(r)
            if outer is not None:
                v[some] = outer(Ae @ q + r[some])
                q = q - across @ v[some]
            return np.where(equality, v, inverse * (A @ q + r))

        return solve


def _weighted(left, weight: Array, right) -> Array:
    """`left diag(weight) right`, dense."""
    if isinstance(left, np.ndarray):
        return (left * weight) @ right
    return _weighted_sparse(left, weight, right).toarray()


def _weighted_sparse(left, weight: Array, right):
    scaled = left.copy()
    scaled.data = left.data * weight[left.indices]
    return scaled @ right


def cholesky(M: Array, extra: Array | float) -> Solve | None:
    """Solve with `M + diag(extra)` by its Cholesky factor (`M` is overwritten); `None` if there is none."""
    from scipy.linalg.lapack import dpotrf, dpotrs  # pyright: ignore[reportAttributeAccessIssue]

    diagonal = np.einsum("ii->i", M)
    diagonal += extra
    diagonal += _SHIFT * np.maximum(diagonal, 1e-3)
    if M.shape[0] == 0:
        return lambda r: r
    C, failure = dpotrf(M.T, lower=1, overwrite_a=1, clean=0)
    return None if failure else lambda r: dpotrs(C, r, lower=1)[0]
