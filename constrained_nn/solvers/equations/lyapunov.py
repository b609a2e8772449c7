"""Sylvester, Lyapunov and Stein equations: batched, differentiable, with a status for each element."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.linalg import branchless
from constrained_nn.solvers.equations.linear import (
    REFINED,
    TRUSTED,
    LinearEquation,
    LinearFound,
    LinearVerdict,
    audit,
    by_schur,
    harmless,
    judge,
    solve_single,
)
from constrained_nn.solvers.equations.matrices import all_finite, checked, follow, require_tensors, tracked
from constrained_nn.solvers.equations.solution import MatrixSolution
from constrained_nn.solvers.equations.sylvester import SylvesterOperator, sylvester_operator
from constrained_nn.solvers.solution import Status

# Batches up to this size are solved by Schur forms at once.
_FEW = 4


def solve_sylvester(
    A: Float[Tensor, "*#batch n n"],
    B: Float[Tensor, "*#batch m m"],
    C: Float[Tensor, "*#batch n m"],
    *,
    rtol: float = 1e-10,
) -> MatrixSolution:
    """Solution of the Sylvester equation.

    `A X + X B + C = 0`.

    Guarantee: status `OK` is about the `X` that is returned, after rounding to its dtype: its
    estimated error is at most `1000 rtol` of its norm, its residual at most `rtol` of the sum of
    its terms (and what rounding to a dtype of less than float64 leaves), and the equation has no
    other solution. Derivatives of first and second order in all matrices, in every transform, and
    they change no value; those of a failed element are 0. Computed in float64 whatever the dtype.
    Complex matrices are refused.

    Args:
        A: Left matrix `(*batch, n, n)`.
        B: Right matrix `(*batch, m, m)`.
        C: Right-hand side `(*batch, n, m)`.
        rtol: Largest relative residual of an element that is called `OK`.

    Returns:
        A `MatrixSolution`; no value raises. Up to `n m = 64` by one factorization of the Kronecker matrix, beyond by
        doubling where `A` and `B` are stable; what these leave, and small batches, by Schur forms, one by one, in
        memory of `n² + m²`. Under `torch.func` and compilation larger equations that are not stable are flagged.

    Raises:
        ShapeError: The matrices do not fit each other, are complex, or are not tensors.

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
    last = "Q" if B is None else "C"
    require_tensors(where, A=A, B=B, **{last: C})
    n, m = C.shape[-2:] if C.ndim >= 2 else (0, 0)
    if B is None:
        m = n
        given = {"A": (A, n, n), last: (C, n, n)}
    else:
        given = {"A": (A, n, n), "B": (B, m, m), last: (C, n, m)}
    dtype = A.dtype
    batch, (A, *rest, C) = checked(where, given)
    equation, operator = LinearEquation(A, rest[0] if rest else A.mT, C, discrete), None
    if branchless(A) or A.device.type != "cpu" or len(A) > _FEW:
        verdict, operator = _find(equation, batch, dtype, rtol)
    else:
        verdict = _find_few(equation, batch, dtype, rtol)
    exact, X, status, residual, error = verdict
    if tracked(A, equation.B, C):
        # Newton steps with a constant derivative: each adds an order to the derivatives that come out right.
        solved = status.reshape(-1) == int(Status.OK)
        equation, unit = harmless(solved, equation).scaled()
        operator = operator or sylvester_operator(equation.A, equation.B, discrete=discrete)
        solved = solved[..., None, None]
        Y = torch.where(solved, exact.reshape(-1, n, m) / unit, 0.0)
        for _ in range(2):
            Y = Y + operator.solve(equation.residual(Y))
        X = follow(X, torch.where(solved, Y * unit, 0.0).to(dtype).reshape(X.shape))
    return MatrixSolution(X, status, residual, error)


def _find_few(given: LinearEquation, batch: torch.Size, dtype: torch.dtype, rtol: float) -> LinearVerdict:
    """The verdict on each equation by itself, in NumPy."""
    singles = [solve_single(given.array(k), dtype, rtol) for k in range(len(given.A))]
    arrays = (np.array(values) for values in zip(*singles, strict=True))
    tensors = (torch.from_numpy(a.reshape((*batch, *a.shape[1:]))) for a in arrays)
    exact, X, status, residual, error = tensors
    if dtype != torch.float64:
        X, residual, error = (t.to(dtype) for t in (X, residual, error))
    return LinearVerdict(exact, X, status, residual, error)


@torch.no_grad()
def _find(
    given: LinearEquation, batch: torch.Size, dtype: torch.dtype, rtol: float
) -> tuple[LinearVerdict, SylvesterOperator]:
    """The verdict on a batch, and the operator that solved it."""
    given = LinearEquation(given.A.detach(), given.B.detach(), given.C.detach(), given.discrete)
    finite = all_finite(given.A, given.B, given.C)
    usable = harmless(finite, given)
    equation, unit = usable.scaled()
    operator = sylvester_operator(equation.A, equation.B, discrete=given.discrete)
    found = _search(equation, operator, rtol)
    exact, X, status, residual, error = judge(usable, found, unit, finite, dtype, rtol)
    X, exact = (t.reshape((*batch, *t.shape[1:])) for t in (X.to(dtype), exact))
    residual, error = (t.to(dtype).reshape(batch) for t in (residual, error))
    return LinearVerdict(exact, X, status.to(torch.int8).reshape(batch), residual, error), operator


def _search(equation: LinearEquation, operator: SylvesterOperator, rtol: float) -> LinearFound:
    """Two Newton steps with exact residuals; Schur forms for what they leave, but not while tracing."""
    X = operator.solve(equation.C)
    for _ in range(2):
        X = X + operator.solve(equation.exact_residual(X))
    found = audit(equation, X, operator.solve, equation.exact_residual)
    if branchless(equation.A):
        return found
    bad = ~((found.error <= REFINED) & (found.doubt <= TRUSTED))
    for k in bad.nonzero(as_tuple=True)[0].tolist():
        other = by_schur(equation.array(k), rtol)
        if _rank(other) < _rank(LinearFound(*(t[k] for t in found))):
            for whole, value in zip(found, other, strict=True):
                whole[k] = torch.as_tensor(value)
    return found


def _rank(found: LinearFound) -> tuple[bool, float]:
    """The smaller the better."""
    return bool(found.singular), float(found.error)
