"""The linear operators of Sylvester-type matrix equations, factored once and applied to any right-hand side.

Matrices are stacked by rows: `vec(A X B) = (A ⊗ Bᵀ) vec X`. An operator is built without derivatives, and `solve` is
linear in its argument, so that its own derivatives are those of plain operations in every transform.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn._linalg import branchless
from constrained_nn.solvers._matrix_equations import identity, norm

# Up to this many unknowns the Kronecker matrix is factored; beyond, stable equations are summed by doubling.
_DENSE = 64
_DOUBLINGS = 24
# A pivot below this share of the largest one: the operator is singular to working precision.
_SINGULAR = 1e-13
_LEFT_OUT = 1e-18


@dataclass(frozen=True)
class SylvesterOperator:
    """Solves `A X + X B + C = 0`, or `X = A X B + C` for `discrete`, for any `C`.

    Args:
        discrete: Which of the two.
        singular: Elements whose operator is singular to working precision `(*batch)`.
        lu, pivots: Factored Kronecker matrix of the elements in `dense`; of all where `powers` is empty.
        powers: `(M^(2^k), N^(2^k))` of `X = M X N + …`, smallest first, for the others.
        around: Matrices `F, G` of the first term `F C G` of that sum (None: `C` itself).
        dense: Positions of the elements that have a factored matrix although there are powers.
    """

    discrete: bool
    singular: Bool[Tensor, "*batch"]
    lu: Tensor | None = None
    pivots: Tensor | None = None
    powers: tuple[tuple[Tensor, Tensor], ...] = ()
    around: tuple[Tensor, Tensor] | None = None
    dense: Tensor | None = None

    def solve(self, C: Float[Tensor, "*batch n m"]) -> Float[Tensor, "*batch n m"]:
        """`X`; unspecified but finite where `singular`."""
        if not self.powers:
            return self._solve_dense(C)
        X = C if self.around is None else self.around[0] @ C @ self.around[1]
        for M, N in self.powers:
            X = X + M @ X @ N
        if self.dense is not None:
            X = X.index_copy(0, self.dense, self._solve_dense(C[self.dense]))
        return X

    def _solve_dense(self, C: Tensor) -> Tensor:
        assert self.lu is not None
        assert self.pivots is not None
        right = C.flatten(-2).unsqueeze(-1)
        X = torch.linalg.lu_solve(self.lu, self.pivots, right if self.discrete else -right)
        return X.squeeze(-1).unflatten(-1, C.shape[-2:])


@torch.no_grad()
def sylvester_operator(
    A: Float[Tensor, "*batch n n"], B: Float[Tensor, "*batch m m"], *, discrete: bool
) -> SylvesterOperator:
    """The operator of finite `A` and `B`, without derivatives.

    Above 64 unknowns the batch has one dimension; equations that are not stable are factored one and all.
    """
    A, B = A.detach(), B.detach()
    if A.shape[-1] * B.shape[-1] <= _DENSE:
        return _factored(A, B, discrete)
    if discrete:
        M, N, around = A, B, None
    else:
        M, N, around = _cayley(A, B)
    powers = [(M, N)]
    for _ in range(_DOUBLINGS - 1):
        M, N = M @ M, N @ N
        powers.append((M, N))
        if not branchless(A) and bool((norm(M) * norm(N) < _LEFT_OUT).all()):
            break
    # ‖M‖ ‖N‖ of the last power bounds what is left out; not a number where the powers overflowed
    unstable = ~(norm(M) * norm(N) < _LEFT_OUT)
    blank = unstable[..., None, None]
    stable = tuple((torch.where(blank, 0.0, M), torch.where(blank, 0.0, N)) for M, N in powers)
    if branchless(A) or not bool(unstable.any()):
        return SylvesterOperator(discrete, unstable, powers=stable, around=around)
    index = unstable.nonzero(as_tuple=True)[0]
    rest = _factored(A[index], B[index], discrete)
    singular = unstable.index_copy(0, index, rest.singular)
    return SylvesterOperator(
        discrete, singular, rest.lu, rest.pivots, powers=stable, around=around, dense=index
    )


def _factored(A: Tensor, B: Tensor, discrete: bool) -> SylvesterOperator:
    n, m = A.shape[-1], B.shape[-1]
    one, other = identity(n, A), identity(m, A)
    if discrete:
        matrix = _kronecker(one, other) - _kronecker(A, B.mT)
    else:
        matrix = _kronecker(A, other) + _kronecker(one, B.mT)
    lu, pivots, _ = torch.linalg.lu_factor_ex(matrix)
    size = lu.diagonal(dim1=-2, dim2=-1).abs()
    singular = ~(size.amin(-1) > _SINGULAR * size.amax(-1))
    lu = torch.where(singular[..., None, None], identity(n * m, A), lu)
    return SylvesterOperator(discrete, singular, lu, pivots)


def _cayley(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """`A X + X B + C = 0` as `X = M X N + 2γ (γI − A)⁻¹ C (γI − B)⁻¹`, a sum that converges for stable `A`, `B`."""
    one, other = identity(A.shape[-1], A), identity(B.shape[-1], A)
    shift = (norm(A) * norm(B)).sqrt()[..., None, None]
    shift = torch.where(shift > 0, shift, 1.0)
    left, right = torch.linalg.inv_ex(shift * one - A)[0], torch.linalg.inv_ex(shift * other - B)[0]
    return left @ (shift * one + A), (shift * other + B) @ right, (2.0 * shift * left, right)


def _kronecker(A: Tensor, B: Tensor) -> Tensor:
    n, m = A.shape[-1], B.shape[-1]
    product = A[..., :, None, :, None] * B[..., None, :, None, :]
    return product.reshape(*product.shape[:-4], n * m, n * m)
