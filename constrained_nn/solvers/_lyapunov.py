"""Sylvester, Lyapunov and Stein equations: batched, differentiable, with a status for each element."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.solvers._matrix_equations import (
    all_finite,
    checked,
    identity,
    relative_residual,
    require_tensors,
    tracked,
)
from constrained_nn.solvers._matrix_solution import MatrixSolution
from constrained_nn.solvers._solution import Status
from constrained_nn.solvers._sylvester import sylvester_operator


def solve_sylvester(
    A: Float[Tensor, "*#batch n n"],
    B: Float[Tensor, "*#batch m m"],
    C: Float[Tensor, "*#batch n m"],
    *,
    rtol: float = 1e-10,
) -> MatrixSolution:
    """Solution of the Sylvester equation.

    `A X + X B + C = 0`.

    Guarantee: status `OK` means that the residual of the returned `X` is at most `rtol` of the sum of its terms, and
    that the equation has no other solution. Derivatives of first and second order in all matrices, in every
    transform; those of a failed element are 0. Computed in float64 whatever the dtype.

    Args:
        A: Left matrix `(*batch, n, n)`.
        B: Right matrix `(*batch, m, m)`.
        C: Right-hand side `(*batch, n, m)`.
        rtol: Largest relative residual of an element that is called `OK`.

    Returns:
        A `MatrixSolution`; no value raises. Up to `n m = 64` by one factorization of the Kronecker matrix, beyond by
        doubling where `A` and `B` are stable; larger equations that are not stable cost `(n m)³`, and under
        `torch.func` and compilation they are flagged.

    Raises:
        ShapeError: The matrices do not fit each other, or are not tensors.

    Example:
        >>> import torch
        >>> two = torch.full((1, 1), 2.0)
        >>> solve_sylvester(two, two, two).X
        tensor([[-0.5000]])

    References:
        Kao, Hennequin, Automatic differentiation of Sylvester, Lyapunov, and algebraic Riccati equations (2020).
    """
    return _solve("solve_sylvester", A, B, C, rtol, discrete=False)


def solve_lyapunov(
    A: Float[Tensor, "*#batch n n"], Q: Float[Tensor, "*#batch n n"], *, rtol: float = 1e-10
) -> MatrixSolution:
    """Solution of the continuous-time Lyapunov equation.

    `A X + X Aᵀ + Q = 0`.

    Guarantee: as for `solve_sylvester`. For stable `A` and symmetric positive definite `Q`, `X` is positive definite.

    Args:
        A: System matrix `(*batch, n, n)`; pass its transpose for `Aᵀ X + X A + Q = 0`.
        Q: Right-hand side `(*batch, n, n)`, symmetric or not.
        rtol: Largest relative residual of an element that is called `OK`.

    Returns:
        A `MatrixSolution`; no value raises.

    Raises:
        ShapeError: The matrices do not fit each other, or are not tensors.

    Example:
        >>> import torch
        >>> solve_lyapunov(-torch.eye(1), torch.eye(1)).X
        tensor([[0.5000]])

    References:
        Kao, Hennequin, Automatic differentiation of Sylvester, Lyapunov, and algebraic Riccati equations (2020).
    """
    return _solve("solve_lyapunov", A, None, Q, rtol, discrete=False)


def solve_discrete_sylvester(
    A: Float[Tensor, "*#batch n n"],
    B: Float[Tensor, "*#batch m m"],
    C: Float[Tensor, "*#batch n m"],
    *,
    rtol: float = 1e-10,
) -> MatrixSolution:
    """Solution of the discrete-time Sylvester (Stein) equation.

    `X = A X B + C`.

    Guarantee: as for `solve_sylvester`.

    Args:
        A: Left matrix `(*batch, n, n)`.
        B: Right matrix `(*batch, m, m)`.
        C: Right-hand side `(*batch, n, m)`.
        rtol: Largest relative residual of an element that is called `OK`.

    Returns:
        A `MatrixSolution`; no value raises.

    Raises:
        ShapeError: The matrices do not fit each other, or are not tensors.

    Example:
        >>> import torch
        >>> half, one = torch.full((1, 1), 0.5), torch.ones(1, 1)
        >>> solve_discrete_sylvester(half, half, one).X
        tensor([[1.3333]])

    References:
        Smith, Matrix equation XA + BX = C (1968).
    """
    return _solve("solve_discrete_sylvester", A, B, C, rtol, discrete=True)


def solve_discrete_lyapunov(
    A: Float[Tensor, "*#batch n n"], Q: Float[Tensor, "*#batch n n"], *, rtol: float = 1e-10
) -> MatrixSolution:
    """Solution of the discrete-time Lyapunov equation.

    `X = A X Aᵀ + Q`.

    Guarantee: as for `solve_sylvester`. For stable `A` and symmetric positive definite `Q`, `X` is positive definite.

    Args:
        A: System matrix `(*batch, n, n)`; pass its transpose for `X = Aᵀ X A + Q`.
        Q: Right-hand side `(*batch, n, n)`, symmetric or not.
        rtol: Largest relative residual of an element that is called `OK`.

    Returns:
        A `MatrixSolution`; no value raises.

    Raises:
        ShapeError: The matrices do not fit each other, or are not tensors.

    Example:
        >>> import torch
        >>> solve_discrete_lyapunov(0.5 * torch.eye(1), torch.eye(1)).X
        tensor([[1.3333]])

    References:
        Kao, Hennequin, Automatic differentiation of Sylvester, Lyapunov, and algebraic Riccati equations (2020).
    """
    return _solve("solve_discrete_lyapunov", A, None, Q, rtol, discrete=True)


def _solve(
    where: str, A: Tensor, B: Tensor | None, C: Tensor, rtol: float, *, discrete: bool
) -> MatrixSolution:
    """`B` is the transpose of `A` where there is none."""
    right, last = ("A transposed", "Q") if B is None else ("B", "C")
    require_tensors(where, A=A, B=B, **{last: C})
    n, m = (C.shape[-2], C.shape[-1]) if C.ndim >= 2 else (0, 0)
    if B is None:
        B = A.mT if A.ndim >= 2 else A
    dtype = A.dtype
    batch, (A, B, C) = checked(where, {"A": (A, n, n), right: (B, m, m), last: (C, n, m)})

    def replaced(good: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        good = good[..., None, None]
        one, other = identity(n, A), identity(m, A)
        return torch.where(good, A, -0.5 * one), torch.where(good, B, -0.5 * other), torch.where(good, C, 0.0)

    def terms(A: Tensor, B: Tensor, C: Tensor, X: Tensor) -> tuple[Tensor, ...]:
        return (-X, A @ X @ B, C) if discrete else (A @ X, X @ B, C)

    def newton(X: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        first, *rest = terms(A, B, C, X)
        return X + operator.solve(sum(rest, first))

    with torch.no_grad():
        finite = all_finite(A, B, C)
        fixed_A, fixed_B, fixed_C = (M.detach() for M in replaced(finite))
        operator = sylvester_operator(fixed_A, fixed_B, discrete=discrete)
        X = newton(operator.solve(fixed_C), fixed_A, fixed_B, fixed_C)
        residual = relative_residual(*terms(fixed_A, fixed_B, fixed_C, X))
        status = torch.where(residual <= rtol, int(Status.OK), int(Status.MAX_STEPS))
        status = torch.where(operator.singular, int(Status.SINGULAR), status)
        status = torch.where(finite, status, int(Status.NONFINITE_INPUT)).to(torch.int8)
        solved = status == int(Status.OK)
        residual = torch.where(operator.singular | ~finite, torch.inf, residual)
    if tracked(A, B, C):
        # Newton steps with a constant derivative: each adds an order to the derivatives that come out right.
        matrices = replaced(solved)
        X = newton(newton(X, *matrices), *matrices)
    X = torch.where(solved[..., None, None], X, 0.0).to(dtype)
    return MatrixSolution(X.reshape(*batch, n, m), status.reshape(batch), residual.to(dtype).reshape(batch))
