"""Unit rows of one polyhedron in NumPy, sparse where most entries are zero, and their Newton systems.

The systems of a projection, `(A D Aᵀ + E) v = r` with diagonal `D >= 0` and `E >= 0`, know nothing of bounds
on the point itself: those are in `D`. They are factored in the space of the rows or of the columns, whichever
is smaller.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Share of nonzero entries under which products with the sparse matrix are cheaper, and the size from which on.
_SPARSE, _SPARSE_FROM = 0.2, 2000
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
        self.shape = A.shape
        self.unit = A / norm[:, None]
        self.sparse = A.size >= _SPARSE_FROM and np.count_nonzero(A) < _SPARSE * A.size
        if self.sparse:
            from scipy.sparse import csr_array

            self.A = csr_array(self.unit)
            self.At = csr_array(self.A.T)
        else:
            self.A, self.At = self.unit, np.ascontiguousarray(self.unit.T)

    @property
    def magnitude(self):
        """`|A|`."""
        return abs(self.A)

    def take(self, rows: NDArray[np.intp]) -> RowMatrix:
        """Some of the rows."""
        part = object.__new__(RowMatrix)
        part.norm, part.zero, part.unit = self.norm[rows], self.zero[rows], self.unit[rows]
        part.shape, part.sparse, part.A = part.unit.shape, self.sparse, self.A[rows]
        part.At = part.A.T.tocsr() if self.sparse else np.ascontiguousarray(part.A.T)
        return part

    def gram(self, weight: Array, *, columns: bool = False) -> Array:
        """`A diag(weight) Aᵀ (m, m)`, or `Aᵀ diag(weight) A (n, n)` for `columns`."""
        left, right = (self.At, self.A) if columns else (self.A, self.At)
        if not self.sparse:
            return (left * weight) @ right
        scaled = left.copy()
        scaled.data = left.data * weight[left.indices]
        return (scaled @ right).toarray()

    def factor(self, D: Array, E: Array) -> Callable[[Array], Array] | None:
        """Solve with `A diag(D) Aᵀ + diag(E)` for rows, where `E > 0` for inequalities; `None` if it fails."""
        few = E == 0
        columns = self.shape[1]
        if 2 * columns < self.shape[0] - int(few.sum()):
            return self._column_factor(D, E, few)
        M = self.gram(D)
        return cholesky(M, E)

    def _column_factor(self, D: Array, E: Array, equality: NDArray[np.bool_]) -> Callable | None:
        """With `q = −D Aᵀ v`: `(D⁻¹ + Aᵢᵀ Eᵢ⁻¹ Aᵢ) q + Aₑᵀ vₑ = −Aᵢᵀ Eᵢ⁻¹ rᵢ` and `Aₑ q = −rₑ`."""
        inverse = np.where(equality, 0.0, 1.0 / np.where(equality, 1.0, E))
        inner = cholesky(self.gram(inverse, columns=True), 1.0 / np.maximum(D, 1e-30))
        if inner is None:
            return None
        A, At = self.A, self.At
        some = np.flatnonzero(equality)
        Ae = self.unit[some]
        outer = None
        if some.size:
            across = np.stack([inner(row) for row in Ae], axis=1)
            outer = cholesky(Ae @ across, np.zeros(some.size))
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


def cholesky(M: Array, extra: Array) -> Callable[[Array], Array] | None:
    """Solve with `M + diag(extra)` by its Cholesky factor (`M` is overwritten); `None` if there is none."""
    from scipy.linalg.lapack import dpotrf, dpotrs

    diagonal = np.einsum("ii->i", M)
    diagonal += extra
    diagonal += _SHIFT * np.maximum(diagonal, 1e-3)
    if M.shape[0] == 0:
        return lambda r: r
    C, failure = dpotrf(M.T, lower=1, overwrite_a=1, clean=0)
    return None if failure else lambda r: dpotrs(C, r, lower=1)[0]
