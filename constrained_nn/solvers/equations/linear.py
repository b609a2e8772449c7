"""Sylvester-type equations: what is said of a solution, and the solution of single equations by Schur forms.

Two estimates make the verdict: the Newton step from `X` measures its error, and a matrix `Z` without structure, which
the inverse has to bring back, measures the inverse itself.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from constrained_nn.solvers.equations.exact_products import sum_of_products, two_sum
from constrained_nn.solvers.equations.matrices import (
    Array,
    all_finite,
    identity,
    largest,
    namespace,
    norm,
    relative_residual,
    rounded,
    tolerance,
)
from constrained_nn.solvers.equations.schur import SchurPair, blas
from constrained_nn.solvers.solution import Status

# An estimated error below this is that of rounding: no further step. Newton steps that may lead there.
REFINED, _POLISH = 1e-13, 12
# An error that plain residuals estimate is believed below this, and where it is below 10 rtol: the bar is 1000 rtol.
_EASY = 1e-9
# Below this an error is no longer worth an exact residual.
_SETTLED = 1e-11
# How far an inverse may be off: without a look at the eigenvalues, and with it.
TRUSTED, _USABLE = 0.01, 0.3
# Eigenvalues of A and −B (or of A and the inverse of B) this near to each other: no unique solution.
_DISTINCT, _APART = 1e-14, 1e-8
_OK = np.int8(Status.OK)
# Entries whose products and sums of squares are far from overflow and underflow.
_SMALLEST, _LARGEST = 1e-60, 1e60


class LinearEquation(NamedTuple):
    """`A X + X B + C = 0`, or `X = A X B + C`, in float64; tensors or NumPy arrays."""

    A: Array
    B: Array
    C: Array
    discrete: bool

    def array(self, k: int) -> LinearEquation:
        """Element `k` in NumPy, without derivatives."""
        A, B, C = (M.detach().cpu().numpy()[k] for M in (self.A, self.B, self.C))
        return LinearEquation(A, B, C, self.discrete)

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

    def scaled(self) -> tuple[LinearEquation, Array]:
        """The equation with entries of size one, and the unit of its solution `(*batch, 1, 1)`; powers of two."""
        A, B, C = (M.detach() if isinstance(M, Tensor) else M for M in (self.A, self.B, self.C))
        right = _power_of_two(largest(C))
        if self.discrete:
            return LinearEquation(self.A, self.B, self.C / right, True), right
        left = _power_of_two(namespace(A).maximum(largest(A), largest(B)))
        return LinearEquation(self.A / left, self.B / left, self.C / right, False), right / left


def _power_of_two(size: Array) -> Array:
    xp = namespace(size)
    return xp.exp2(xp.round(xp.log2(xp.where(size > 0, size, 1.0))))[..., None, None]


def harmless(good: Array, equation: LinearEquation) -> LinearEquation:
    """The equation with one that is solvable in bad elements, in value and in derivative."""
    xp = namespace(equation.A)
    A, B, C, good = equation.A, equation.B, equation.C, good[..., None, None]
    one, other = identity(A.shape[-1], A), identity(B.shape[-1], B)
    A, B = xp.where(good, A, -0.5 * one), xp.where(good, B, -0.5 * other)
    return LinearEquation(A, B, xp.where(good, C, 0.0), equation.discrete)


class LinearFound(NamedTuple):
    """A solution; what another Newton step would change, relative to it; what the inverse is off by; and whether the
    equation has no unique solution, or more than one."""

    X: Array
    error: Array
    doubt: Array
    singular: Array


class LinearVerdict(NamedTuple):
    """What is returned for each element, and what is said of it; `exact` is `X` before it was rounded to its dtype."""

    exact: Array
    X: Array
    status: Array
    residual: Array
    error: Array


def audit(
    equation: LinearEquation, X: Array, solve: Callable[[Array], Array], residual: Callable[[Array], Array]
) -> LinearFound:
    """The Newton step from `X`, and whether `solve` is an inverse at all: it has to bring back a matrix `Z`."""
    xp = namespace(X)
    if isinstance(X, Tensor):  # tracers do not see through a cache
        Z = torch.from_numpy(probe.__wrapped__(*X.shape[-2:])).to(X.device)
    else:
        Z = probe(*X.shape[-2:])
    zero = equation._replace(C=xp.zeros_like(X))
    step = solve(residual(X))
    back = solve(-zero.residual(Z + zero.C)) - Z
    doubt = norm(back) / norm(Z) * (X.shape[-1] * X.shape[-2]) ** 0.5
    lost = ~all_finite(X, step)
    X = xp.where(lost[..., None, None], 0.0, X)
    size, there = norm(X), norm(xp.where(lost[..., None, None], 0.0, step))
    error = xp.where(lost, np.inf, there / xp.where(size > 0, size, 1.0))
    doubt = xp.where(xp.isfinite(doubt), doubt, np.inf)
    return LinearFound(X, error, doubt, ~(doubt <= TRUSTED))


@functools.cache
def probe(n: int, m: int) -> np.ndarray:
    """A matrix without structure, with entries of modulus 0.5 to 1.5."""
    k = np.arange(n * m)
    sign = np.where((k * 0.4142135623730951) % 1.0 < 0.5, 1.0, -1.0)
    return ((0.5 + (k * 0.6180339887498949) % 1.0) * sign).reshape(n, m)


def judge(
    given: LinearEquation, found: LinearFound, unit: Array, finite: Array, dtype: torch.dtype, rtol: float
) -> LinearVerdict:
    """Status, residual and error of the `X` that is returned, rounded to its dtype; 0 where it is of no use."""
    xp = namespace(found.X)
    exact = found.X * unit
    X = rounded(exact, dtype)
    fits = all_finite(X)
    X = xp.where(fits[..., None, None], X, 0.0)
    size = largest(exact)
    small = 1.0 / xp.where((size > 0) & (size < np.inf), size, 1.0)[..., None, None]
    whole = norm(exact * small)
    error = found.error + norm((X - exact) * small) / xp.where(whole > 0, whole, 1.0)
    residual = relative_residual(*given.terms(X))
    precise = (residual <= tolerance(rtol, dtype)) & (error <= tolerance(1e3 * rtol, dtype))
    status = xp.where(precise, int(Status.OK), int(Status.MAX_STEPS))
    status = xp.where(fits, status, int(Status.MISSED))
    status = xp.where(found.singular, int(Status.SINGULAR), status)
    status = xp.where(finite, status, int(Status.NONFINITE_INPUT))
    solved = status == int(Status.OK)
    kept = finite & (solved | (status == int(Status.MAX_STEPS)))
    residual, error = xp.where(kept, residual, np.inf), xp.where(kept, error, np.inf)
    return LinearVerdict(exact, xp.where(kept[..., None, None], X, 0.0), status, residual, error)


def solve_single(given: LinearEquation, dtype: torch.dtype, rtol: float) -> LinearVerdict:
    """The verdict on one equation in NumPy, `A` `(n, n)`."""
    verdict = _at_once(given, rtol) if dtype == torch.float64 else None
    if verdict is not None:
        return verdict
    with np.errstate(all="ignore"):
        finite = all_finite(given.A, given.B, given.C)
        usable = harmless(finite, given)
        equation, unit = usable.scaled()
        verdict = judge(usable, by_schur(equation, rtol), unit, finite, dtype, rtol)
        return verdict._replace(status=verdict.status.astype(np.int8))


def _at_once(given: LinearEquation, rtol: float) -> LinearVerdict | None:
    """The verdict on an equation of usual size, with at most two exact residuals; `None` where that is not enough."""
    A, B, C = given.A, given.B, given.C
    size, other, right = _length(A), _length(B), _length(C)
    if not (right > _SMALLEST and size + other + right < _LARGEST):  # NaN is neither
        return None
    try:
        pair = _pair(given, bilinear=given.discrete)
    except np.linalg.LinAlgError:
        return None
    X, Z = pair.solve(C), probe(*C.shape)
    size = _length(X)
    if not 0.0 < size < _LARGEST:
        return None
    Z = Z * (size / _length(Z))
    if given.discrete:
        last, first, image = -X, A.dot(X).dot(B), Z - A.dot(Z).dot(B)
    else:
        first, last, image = A.dot(X), X.dot(B), -A.dot(Z) - Z.dot(B)
    rest = first + last + C
    # the Newton step from X, and what the inverse does not bring back of Z
    error = doubt = _length(pair.solve(rest + image) - Z) / size * Z.size**0.5
    residual = _length(rest) / (_length(first) + _length(last) + right)
    bound = min(_EASY, 10.0 * rtol)
    if not error <= bound:
        if not doubt <= TRUSTED:
            return None
        for _ in range(2):
            step = pair.solve(given.exact_residual(X))
            X = X + step
            error = doubt * _length(step) / size + 2.0**-52
            if error <= _SETTLED:
                break
        first, second, third = given.terms(X)
        residual = _length(first + second + third) / (_length(first) + _length(second) + _length(third))
    if not (error <= bound and residual <= rtol):
        return None
    return LinearVerdict(X, X, _OK, residual, error)


def _length(M: np.ndarray) -> float:
    """Frobenius norm of one matrix; without warnings."""
    return blas().dnrm2(M.ravel(order="K"))


def _pair(equation: LinearEquation, *, bilinear: bool) -> SchurPair:
    if bilinear:
        return SchurPair.bilinear(equation.A, equation.B)
    return SchurPair.factor(equation.A, equation.B, discrete=equation.discrete)


@np.errstate(all="ignore")
def by_schur(equation: LinearEquation, rtol: float) -> LinearFound:
    """One equation in NumPy; with exact residuals where plain ones do not show that it is solved."""
    if equation.discrete:
        with contextlib.suppress(np.linalg.LinAlgError):
            found = _refine(equation, _pair(equation, bilinear=True), rtol)
            if found.doubt <= TRUSTED and found.error <= _EASY:
                return found
    pair = _pair(equation, bilinear=False)
    found = _refine(equation, pair, rtol)
    usable, gap = found.doubt <= _USABLE, pair.gap()
    error = found.error if usable else np.inf
    return found._replace(error=error, singular=gap < (_DISTINCT if usable else _APART))


def _refine(equation: LinearEquation, pair: SchurPair, rtol: float) -> LinearFound:
    """The solution by one pair of Schur forms, with Newton steps as long as they become smaller."""
    found = audit(equation, pair.solve(equation.C), pair.solve, equation.residual)
    if found.error + found.doubt <= min(_EASY, 10.0 * rtol):
        return found._replace(error=found.error + found.doubt)
    X, doubt = found.X, found.doubt
    if not doubt <= TRUSTED:
        doubt = _contraction(equation, pair)
        found = found._replace(doubt=doubt, singular=not doubt <= TRUSTED)
    if not doubt <= _USABLE:
        return found
    step, error = _exact_step(equation, pair, X)
    for _ in range(_POLISH):
        if not error > REFINED:
            break
        after = doubt * error + 2.0**-52  # `doubt` is a bound of what is left of an error
        if after <= REFINED:
            X, error = X + step, after
            break
        new_step, new_error = _exact_step(equation, pair, X + step)
        if not new_error < 0.5 * error:
            break
        X, step, error = X + step, new_step, new_error
    return found._replace(X=X, error=error)


def _contraction(equation: LinearEquation, pair: SchurPair) -> float:
    """The factor by which Newton steps make an error smaller, by power iteration, and a factor to spare.

    What the inverse is off by may be large in the first step, for most matrices, and small from then on.
    """
    zero = equation._replace(C=np.zeros_like(equation.C))
    Z = probe(*equation.C.shape)
    sizes = []
    for _ in range(4):
        Z = pair.solve(-zero.residual(Z)) - Z
        sizes.append(norm(Z))
    factor = max(new / old if old > 0 else 0.0 for old, new in itertools.pairwise(sizes))
    return 4.0 * factor if np.isfinite(factor) else np.inf


def _exact_step(equation: LinearEquation, pair: SchurPair, X: np.ndarray) -> tuple[np.ndarray, float]:
    """Newton step with the exact residual, and its size relative to `X`."""
    step, whole = pair.solve(equation.exact_residual(X)), norm(X)
    error = norm(step) / (whole if whole > 0 else 1.0)
    return step, error if np.isfinite(error) else np.inf
