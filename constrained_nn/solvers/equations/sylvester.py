"""The linear operators of Sylvester-type matrix equations, factored once and applied to any right-hand side.

Matrices are stacked by rows: `vec(A X B) = (A ⊗ Bᵀ) vec X`. An operator is built without derivatives, and `solve` is
linear in its argument, so that its own derivatives are those of plain operations in every transform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn.solvers.equations.matrices import Array, identity, is_traced, namespace, norm, solve
from constrained_nn.solvers.equations.schur import SchurPair

# Up to this many unknowns the Kronecker matrix is factored; beyond, stable equations are summed by doubling.
_DENSE = 64
_DOUBLINGS = 24
_LEFT_OUT = 1e-18


@dataclass(frozen=True)
class SylvesterOperator:
    """Solves `A X + X B + C = 0`, or `X = A X B + C` for `discrete`, for any `C`.

    Args:
        discrete: Which of the two.
        singular: Elements without an operator `(*batch)`: a pivot is 0, or the sum does not converge.
        lu, pivots: Factored Kronecker matrix of the elements in `dense`; of all where `powers` is empty.
        powers: `(M^(2^k), N^(2^k))` of `X = M X N + …`, smallest first, for the others.
        around: Matrices `F, G` of the first term `F C G` of that sum (None: `C` itself).
        rest: Positions of the elements whose sum does not converge.
        pairs: Schur forms of those elements.
    """

    discrete: bool
    singular: Bool[Tensor, "*batch"]
    lu: Tensor | None = None
    pivots: Tensor | None = None
    powers: tuple[tuple[Tensor, Tensor], ...] = ()
    around: tuple[Tensor, Tensor] | None = None
    rest: Tensor | None = None
    pairs: tuple[SchurPair, ...] = ()

    def solve(self, C: Float[Tensor, "*batch n m"]) -> Float[Tensor, "*batch n m"]:
        """`X`; unspecified where `singular`."""
        if not self.powers:
            return self._solve_dense(C)
        X = C if self.around is None else self.around[0] @ C @ self.around[1]
        for M, N in self.powers:
            X = X + M @ X @ N
        if self.rest is not None:
            X = X.index_copy(0, self.rest, _SchurSolve.apply(C[self.rest], self.pairs))
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

    Above 64 unknowns the batch has one dimension; equations that are not stable are solved by Schur forms, one by one,
    and while tracing they are flagged.
    """
    A, B = A.detach(), B.detach()
    if A.shape[-1] * B.shape[-1] <= _DENSE:
        return _factored(A, B, discrete)
    M, N, around = (A, B, None) if discrete else _cayley(A, B)
    powers = _powers(M, N)
    # ‖M‖ ‖N‖ of the last power bounds what is left out; not a number where the powers overflowed
    unstable = ~(norm(powers[-1][0]) * norm(powers[-1][1]) < _LEFT_OUT)
    blank = unstable[..., None, None]
    stable = tuple((torch.where(blank, 0.0, M), torch.where(blank, 0.0, N)) for M, N in powers)
    if is_traced(A) or not bool(unstable.any()):
        return SylvesterOperator(discrete, unstable, powers=stable, around=around)
    rest = unstable.nonzero(as_tuple=True)[0]
    pairs = tuple(
        SchurPair.factor(a.cpu().numpy(), b.cpu().numpy(), discrete=discrete)
        for a, b in zip(A[rest], B[rest], strict=True)
    )
    none = torch.zeros_like(unstable)
    return SylvesterOperator(discrete, none, powers=stable, around=around, rest=rest, pairs=pairs)


class _SchurSolve(torch.autograd.Function):
    """`X` of single equations; linear in `C`, and its transpose is the solution of the transposed equations."""

    @staticmethod
    def forward(C: Tensor, pairs: tuple[SchurPair, ...]) -> Tensor:
        X = [torch.from_numpy(p.solve(c)) for p, c in zip(pairs, C.detach().cpu().numpy(), strict=True)]
        return torch.stack(X).to(C.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.pairs = inputs[1]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _SchurSolve.apply(g, tuple(p.transposed() for p in ctx.pairs)), None

    @staticmethod
    def jvp(ctx: Any, C: Tensor, _: Any) -> Any:
        return _SchurSolve.apply(C, ctx.pairs)


def _factored(A: Tensor, B: Tensor, discrete: bool) -> SylvesterOperator:
    n, m = A.shape[-1], B.shape[-1]
    one, other = identity(n, A), identity(m, A)
    if discrete:
        matrix = _kronecker(one, other) - _kronecker(A, B.mT)
    else:
        matrix = _kronecker(A, other) + _kronecker(one, B.mT)
    lu, pivots, _ = torch.linalg.lu_factor_ex(matrix)
    size = lu.diagonal(dim1=-2, dim2=-1).abs()
    singular = ~((size.amin(-1) > 0) & (size.amax(-1) < torch.inf))
    lu = torch.where(singular[..., None, None], identity(n * m, A), lu)
    return SylvesterOperator(discrete, singular, lu, pivots)


def _powers(M: Array, N: Array | None = None) -> list[tuple[Array, Array]]:
    """`(M^(2^k), N^(2^k))` until the rest of the sum is below rounding, at most 24; `N = Mᵀ` where there is none."""
    traced, pairs = is_traced(M), []
    for k in range(_DOUBLINGS):
        if k:
            M, N = M @ M, None if N is None else N @ N
        pairs.append((M, M.mT if N is None else N))
        if not traced and bool((norm(M) * norm(pairs[-1][1]) < _LEFT_OUT).all()):
            break
    return pairs


def closed_loop_sums(A: Array, *, discrete: bool) -> Callable[[Array], Array]:
    """Solves `Aᵀ X + X A + C = 0`, or `X = Aᵀ X A + C`, for a stable `A` by doubling; `C` is `(*more, batch, n, n)`."""
    around = None
    if not discrete:
        one, shift = identity(A.shape[-1], A), norm(A)[..., None, None]
        shift = namespace(A).where(shift > 0, shift, 1.0)
        inverse = solve(shift * one - A, one + 0.0 * A)
        A, around = inverse @ (shift * one + A), (2.0 * shift * inverse.mT, inverse)
    powers = _powers(A)

    def solution(C: Array) -> Array:
        X = C if around is None else around[0] @ C @ around[1]
        for M, _ in powers:
            X = X + M.mT @ X @ M
        return X

    return solution


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
