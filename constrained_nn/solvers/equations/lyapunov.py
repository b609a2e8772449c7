"""Sylvester, Lyapunov and Stein equations: batched, differentiable, with a status for each element."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.linalg import branchless
from constrained_nn.solvers.equations.exact_products import sum_of_products, two_sum
from constrained_nn.solvers.equations.matrices import (
    Array,
    all_finite,
    checked,
    follow,
    identity,
    largest,
    namespace,
    norm,
    relative_residual,
    require_tensors,
    tolerance,
    tracked,
)
from constrained_nn.solvers.equations.schur import SchurPair
from constrained_nn.solvers.equations.solution import MatrixSolution
from constrained_nn.solvers.equations.sylvester import SylvesterOperator, sylvester_operator
from constrained_nn.solvers.solution import Status

# An estimated error below this is that of rounding: no further step. Newton steps that may lead there.
_REFINED, _POLISH = 1e-13, 12
# Below this an error that plain residuals estimate is believed.
_EASY = 1e-11
# Batches up to this size are solved by Schur forms at once.
_FEW = 4
# How far an inverse may be off: without a look at the eigenvalues, and with it.
_TRUSTED, _USABLE = 0.01, 0.3
# Eigenvalues of A and −B (or of A and the inverse of B) this near to each other: no unique solution.
_DISTINCT, _APART = 1e-14, 1e-8


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
    right, last = ("A transposed", "Q") if B is None else ("B", "C")
    require_tensors(where, A=A, B=B, **{last: C})
    n, m = (C.shape[-2], C.shape[-1]) if C.ndim >= 2 else (0, 0)
    if B is None:
        B = A.mT if A.ndim >= 2 else A
    dtype = A.dtype
    batch, (A, B, C) = checked(where, {"A": (A, n, n), right: (B, m, m), last: (C, n, m)})
    with torch.no_grad():
        finite = all_finite(A, B, C)
        given = _harmless(finite, _Equation(A.detach(), B.detach(), C.detach(), discrete))
        equation, unit = given.scaled()
        operator = None
        if branchless(A) or A.device.type != "cpu" or len(A) > _FEW:
            operator = sylvester_operator(equation.A, equation.B, discrete=discrete)
        found = _search(equation, operator)
        X = (found.X * unit).to(dtype)
        status, residual, error = _judge(given, found, found.X * unit, X, dtype, rtol)
        status = torch.where(finite, status, int(Status.NONFINITE_INPUT)).to(torch.int8)
        solved = status == int(Status.OK)
        kept = finite & (solved | (status == int(Status.MAX_STEPS)))
        residual, error = (torch.where(kept, t, torch.inf) for t in (residual, error))
    X = torch.where(kept[..., None, None], X, 0.0)
    if tracked(A, B, C):
        # Newton steps with a constant derivative: each adds an order to the derivatives that come out right.
        equation, _ = _harmless(solved, _Equation(A, B, C, discrete)).scaled()
        operator = operator or sylvester_operator(equation.A, equation.B, discrete=discrete)
        Y = torch.where(solved[..., None, None], found.X, 0.0)
        for _ in range(2):
            Y = Y + operator.solve(equation.residual(Y))
        X = follow(X, torch.where(solved[..., None, None], Y * unit, 0.0).to(dtype))
    return MatrixSolution(
        X.reshape(*batch, n, m),
        status.reshape(batch),
        residual.to(dtype).reshape(batch),
        error.to(dtype).reshape(batch),
    )


@dataclass(frozen=True)
class _Equation:
    """`A X + X B + C = 0`, or `X = A X B + C`, in float64; tensors or NumPy arrays."""

    A: Array
    B: Array
    C: Array
    discrete: bool

    def array(self, k: int) -> _Equation:
        """Element `k` in NumPy."""
        A, B, C = (M[k].cpu().numpy() for M in (self.A, self.B, self.C))
        return _Equation(A, B, C, self.discrete)

    def terms(self, X: Array) -> tuple[Array, ...]:
        return (-X, self.A @ X @ self.B, self.C) if self.discrete else (self.A @ X, X @ self.B, self.C)

    def residual(self, X: Array) -> Array:
        first, *rest = self.terms(X)
        return sum(rest, first)

    def exact_residual(self, X: Array) -> Array:
        """The residual of the given numbers, rounded once."""
        A, B = self.A, self.B
        if self.discrete:
            AX, low = sum_of_products([(A, X)])
            total, rest = sum_of_products([(AX, B), (low, B)])
            total, error = two_sum(total, self.C)
            total, last = two_sum(total, -X)
            rest = rest + last
        else:
            total, rest = sum_of_products([(A, X), (X, B)])
            total, error = two_sum(total, self.C)
        return total + (rest + error)

    def scaled(self) -> tuple[_Equation, Tensor]:
        """The equation with entries of size one, and the unit of its solution `(*batch, 1, 1)`; powers of two."""
        right = _power_of_two(largest(self.C.detach()))
        if self.discrete:
            return _Equation(self.A, self.B, self.C / right, True), right
        left = _power_of_two(torch.maximum(largest(self.A.detach()), largest(self.B.detach())))
        return _Equation(self.A / left, self.B / left, self.C / right, False), right / left


def _power_of_two(size: Tensor) -> Tensor:
    return torch.exp2(torch.round(torch.log2(torch.where(size > 0, size, 1.0))))[..., None, None]


def _harmless(good: Tensor, equation: _Equation) -> _Equation:
    """The equation with one that is solvable in bad elements, in value and in derivative."""
    A, B, C, good = equation.A, equation.B, equation.C, good[..., None, None]
    one, other = identity(A.shape[-1], A), identity(B.shape[-1], B)
    A, B = torch.where(good, A, -0.5 * one), torch.where(good, B, -0.5 * other)
    return _Equation(A, B, torch.where(good, C, 0.0), equation.discrete)


class _Found(NamedTuple):
    """A solution; what another Newton step would change, relative to it; what the inverse is off by; and whether the
    equation has no unique solution, or more than one."""

    X: Array
    error: Array
    doubt: Array
    singular: Array


def _search(equation: _Equation, operator: SylvesterOperator | None) -> _Found:
    """Two Newton steps with exact residuals; Schur forms for what they leave, but not while tracing.

    Schur forms for all elements where there is no operator.
    """
    if operator is None:
        singles = [_by_schur(equation.array(k)) for k in range(len(equation.A))]
        return _Found(*(torch.from_numpy(np.stack(values)) for values in zip(*singles, strict=True)))
    X = operator.solve(equation.C)
    for _ in range(2):
        X = X + operator.solve(equation.exact_residual(X))
    found = _audit(equation, X, operator.solve, equation.exact_residual)
    if branchless(equation.A):
        return found
    bad = ~((found.error <= _REFINED) & (found.doubt <= _TRUSTED))
    for k in bad.nonzero(as_tuple=True)[0].tolist():
        other = _by_schur(equation.array(k))
        if _rank(other) < _rank(_Found(*(t[k] for t in found))):
            for whole, value in zip(found, other, strict=True):
                whole[k] = torch.as_tensor(value)
    return found


def _rank(found: _Found) -> tuple[bool, float]:
    """The smaller the better."""
    return bool(found.singular), float(found.error)


@np.errstate(all="ignore")
def _by_schur(equation: _Equation) -> _Found:
    """One equation in NumPy; with exact residuals where plain ones do not show that it is solved to rounding."""
    A, B = equation.A, equation.B
    with contextlib.suppress(np.linalg.LinAlgError):
        pair = SchurPair.bilinear(A, B) if equation.discrete else SchurPair.factor(A, B, discrete=False)
        found = _audit(equation, pair.solve(equation.C), pair.solve, equation.residual)
        found = found._replace(error=found.error + found.doubt)
        if found.error <= _EASY:
            return found
    pair = SchurPair.factor(A, B, discrete=equation.discrete)
    found = _audit(equation, pair.solve(equation.C), pair.solve, equation.exact_residual)
    for _ in range(_POLISH):
        if not found.error > _REFINED:
            break
        X = found.X + pair.solve(equation.exact_residual(found.X))
        other = _audit(equation, X, pair.solve, equation.exact_residual)
        if not other.error < 0.1 * found.error:
            break
        found = other
    usable, gap = found.doubt <= _USABLE, pair.gap()
    error = found.error if usable else np.inf
    return found._replace(error=error, singular=gap < (_DISTINCT if usable else _APART))


def _audit(
    equation: _Equation, X: Array, solve: Callable[[Array], Array], residual: Callable[[Array], Array]
) -> _Found:
    """The Newton step from `X`, and whether `solve` is an inverse at all: it has to bring back a matrix `Z`."""
    xp = namespace(X)
    if isinstance(X, Tensor):  # tracers do not see through a cache
        Z = torch.from_numpy(_probe.__wrapped__(*X.shape[-2:])).to(X.device)
    else:
        Z = _probe(*X.shape[-2:])
    zero = replace(equation, C=xp.zeros_like(X))
    step = solve(residual(X))
    back = solve(-zero.residual(Z + zero.C)) - Z
    doubt = norm(back) / norm(Z) * (X.shape[-1] * X.shape[-2]) ** 0.5
    lost = ~all_finite(X, step)
    X = xp.where(lost[..., None, None], 0.0, X)
    size, there = norm(X), norm(xp.where(lost[..., None, None], 0.0, step))
    error = xp.where(lost, np.inf, there / xp.where(size > 0, size, 1.0))
    doubt = xp.where(xp.isfinite(doubt), doubt, np.inf)
    return _Found(X, error, doubt, ~(doubt <= _TRUSTED))


@functools.cache
def _probe(n: int, m: int) -> np.ndarray:
    """A matrix without structure, with entries of modulus 0.5 to 1.5."""
    k = np.arange(n * m)
    sign = np.where((k * 0.4142135623730951) % 1.0 < 0.5, 1.0, -1.0)
    return ((0.5 + (k * 0.6180339887498949) % 1.0) * sign).reshape(n, m)


def _judge(
    given: _Equation, found: _Found, exact: Tensor, X: Tensor, dtype: torch.dtype, rtol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Status, residual and error of the `X` that is returned, rounded to its dtype."""
    fits = all_finite(X)
    X = torch.where(fits[..., None, None], X.double(), 0.0)
    size = largest(exact)
    unit = 1.0 / torch.where((size > 0) & (size < torch.inf), size, 1.0)[..., None, None]
    whole = norm(exact * unit)
    error = found.error + norm((X - exact) * unit) / torch.where(whole > 0, whole, 1.0)
    residual = relative_residual(*given.terms(X))
    precise = (residual <= tolerance(rtol, dtype)) & (error <= tolerance(1e3 * rtol, dtype))
    status = torch.where(precise, int(Status.OK), int(Status.MAX_STEPS))
    status = torch.where(fits, status, int(Status.MISSED))
    return torch.where(found.singular, int(Status.SINGULAR), status), residual, error
