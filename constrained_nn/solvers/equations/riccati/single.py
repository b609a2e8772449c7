"""One Riccati equation at once: the stable subspace of its Hamiltonian matrix, a few Newton steps, and the audit.

The audit is that of `_riccati_search`, written for one equation `(n, n)` in NumPy, where calls and not arithmetic take
the time: with plain residuals and an estimate of their rounding, then with exact residuals. It answers only where all
is clear; anything else is left to the search.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from constrained_nn.solvers.equations.linear import probe
from constrained_nn.solvers.equations.matrices import identity, symmetric
from constrained_nn.solvers.equations.riccati.equation import RiccatiEquation, Units
from constrained_nn.solvers.equations.riccati.search import NEAR, PERSISTS, SMALL_BOUND, SMALL_STEP, Verdict
from constrained_nn.solvers.equations.schur import SchurPair, blas, lapack, schur_form, stabilizing_subspace
from constrained_nn.solvers.solution import Status

Matrix = np.ndarray

_OK = np.int8(Status.OK)
_AUDITS = 10
# A relative Newton step above this leads too far from what was found; an error below that needs no other step.
_NEARBY, _SETTLED = 0.01, 1e-11
# Up to this many states a Schur form is faster than doubling; beyond so many an exact residual costs little time.
_FEW, _MANY = 20, 128
# Entries whose products and sums of squares are far from overflow and underflow.
_SMALLEST, _LARGEST = 1e-60, 1e60


class _Audit(NamedTuple):
    """What is known of a candidate; sizes are relative to it, in the given units.

    Args:
        step: The Newton step.
        there: Its size.
        after: What it leaves: the second order, and what the inverse is off by.
        spread: What rounding adds to that.
        stable: Whether the closed loop is stable.
        proved: Whether it is, and a stabilizing solution is near.
        pair: Schur forms of the closed loop.
        X: Its Lyapunov function.
    """

    step: Matrix
    there: float
    after: float
    spread: float
    stable: bool
    proved: bool
    pair: SchurPair
    X: Matrix


def solve_at_once(given: RiccatiEquation, rtol: float) -> tuple[Verdict, int] | None:
    """The verdict on an equation without descriptor matrix, and its Newton steps; `None` where it is not clear."""
    if given.E is not None or len(given.A) > _MANY or not _is_usual(given):
        return None
    with np.errstate(all="ignore"):
        try:
            found = _search(given, min(SMALL_BOUND, 10.0 * rtol))
        except np.linalg.LinAlgError:
            found = None
        if found is None:
            return None
        P, error, margin, steps = found
        K = given.gain(P)
        terms = given.terms(P, K)
        total = sum(terms[1:], terms[0])
        residual = _length(total) / sum(map(_length, terms))  # pyright: ignore[reportArgumentType]
    if not residual <= rtol:
        return None
    return Verdict(P, P, K, given.closed_loop(K), _OK, residual, error, margin), steps


def _is_usual(given: RiccatiEquation) -> bool:
    """Whether all is finite and of usual size, and `R` positive definite (discrete: semidefinite)."""
    size = sum(_length(M) for M in (given.A, given.B, given.Q, given.R))
    size = size + (0.0 if given.N is None else _length(given.N))
    if not size < _LARGEST:  # NaN is not
        return False
    R = given.R
    if _is_positive(R) or not given.discrete:
        return _is_positive(R)
    rounding = 64 * len(R) * 2.0**-52 * (abs(R).max() or 1.0)
    return _is_positive(R + rounding * identity(len(R), R))


def _search(given: RiccatiEquation, bound: float) -> tuple[Matrix, float, float, int] | None:
    """`P` whose error is below the bound, that error, the margin of the closed loop, and the Newton steps."""
    A, B, Q, N, n = given.A, given.B, given.Q, given.N, len(given.A)
    factor, singular = lapack().dpotrf(given.R)
    if singular:
        N, one = np.zeros_like(B) if N is None else N, identity(n, A)
        P = stabilizing_subspace(A, B, Q, given.R, N, one, discrete=given.discrete)
        return None if P is None else _refine(given, 1.0, P, bound)
    if N is not None:
        tilt = lapack().dpotrs(factor, N.T)[0]
        A, Q = A - B.dot(tilt), symmetric(Q - N.dot(tilt))
    S = B.dot(lapack().dpotrs(factor, B.T)[0])
    spread, weight = _length(S), _length(Q)
    if not (_SMALLEST < spread < _LARGEST and weight > _SMALLEST):
        return None
    scale = lapack().dgebal(_hamiltonian(A, S, Q), scale=1, permute=0)[3]
    units = Units(np.exp2(np.round(0.5 * np.log2(scale[:n] / scale[n:]))), None)
    equation, outer = units.equation(given), units.outer
    if n > _FEW:
        return _refine(equation, outer, equation.map(lambda M: M[None]).doubled()[0][0], bound)
    P = _stable_part(units.loop(A), S / outer, Q * outer, discrete=given.discrete)
    found = None if P is None else _refine(equation, outer, P, bound)
    if found is None:  # with states in their own units, and both corners of the matrix of one size
        unit = 2.0 ** round(0.5 * math.log2(weight / spread))
        P = _stable_part(A, S * unit, Q / unit, discrete=given.discrete)
        found = None if P is None else _refine(equation, outer, P * (unit * outer), bound)
    return found


def _hamiltonian(A: Matrix, S: Matrix, Q: Matrix) -> Matrix:
    n = len(A)
    H = np.empty((2 * n, 2 * n))
    H[:n, :n], H[:n, n:], H[n:, :n], H[n:, n:] = A, -S, -Q, -A.T
    return H


def _stable_part(A: Matrix, S: Matrix, Q: Matrix, *, discrete: bool) -> Matrix | None:
    """`P` by the stable subspace of the Hamiltonian matrix or of its like in discrete time."""
    n, H = len(A), _hamiltonian(A, S, Q)
    if discrete:  # (M + L)⁻¹ (M − L) of the pencil M − λ L, whose left half plane is the unit disc
        J, one = np.empty((2 * n, 2 * n)), identity(n, A)
        J[:n, :n], J[:n, n:], J[n:, :n], J[n:, n:] = A + one, S, -Q, one + A.T
        H[:n, :n], H[n:, n:] = A - one, one - A.T
        _, _, H, singular = lapack().dgesv(J, H)
        if singular or not np.isfinite(H).all():
            return None
    try:
        _, U, stable = schur_form(H, stable_first=True)
    except np.linalg.LinAlgError:
        return None
    _, _, P, singular = lapack().dgesv(U[:n, :n].T, U[n:, :n].T)
    return None if singular or stable != n else symmetric(P)


def _refine(
    equation: RiccatiEquation, outer: Matrix | float, P: Matrix, bound: float
) -> tuple[Matrix, float, float, int] | None:
    """As `_search`, from a candidate."""
    before, exact = math.inf, False
    for steps in range(_AUDITS):
        audit = _audit(equation, outer, P, exact=exact)
        if audit is None or not (audit.there <= _NEARBY or (audit.stable and not exact)):
            return None
        if audit.proved and audit.there <= SMALL_STEP and audit.there + audit.spread <= bound:
            return P / outer, audit.there + audit.spread, _margin(audit.pair, equation.discrete), steps
        P = P + audit.step
        if audit.proved and audit.after <= _SETTLED and audit.after + audit.spread <= bound:
            closed = equation.closed_loop(equation.gain(P))
            if _is_positive(equation.decrease(audit.X, closed) - 0.25 * identity(len(P), P)):
                error = audit.after + audit.spread + 2.0**-52
                margin = _margin(_pair(closed, equation.discrete), equation.discrete)
                return P / outer, error, margin, steps + 1
        slow = 0.3 * before < audit.there <= _NEARBY
        if exact and slow:
            return None
        before = audit.there
        if not exact and before <= _NEARBY and (slow or not audit.spread <= bound):
            exact, before = True, math.inf
    return None


def _audit(given: RiccatiEquation, outer: Matrix | float, P: Matrix, *, exact: bool) -> _Audit | None:
    """`outer` times `P` of the given units is `P`; `None` where it overflows."""
    K = given.gain(P)
    closed, whole = given.closed_loop(K), _length(P / outer)
    if not (0.0 < whole < _LARGEST and _length(closed) < _LARGEST):
        return None
    pair, one = _pair(closed, given.discrete), identity(len(P), P)
    change = 2.0**-52 * given.sensitivity(P, K)
    if exact:
        residual, noise = given.exact_residual(P, K), given.noise(P, K) * one
    else:
        residual, _ = given.plain_residual(P, K, closed)
        noise = _rounding(given, P, K, closed) * probe(*P.shape)
    step, X, shift, spread = (symmetric(pair.solve(C)) for C in (residual, one, change, noise))
    rest, turn = (symmetric(pair.solve(given.second_order(P, closed, D))) for D in (step, shift))
    rounding = 2.0**-51 * _length(closed) * _length(X)
    stable = rounding < 0.25 and _is_positive(X) and _is_positive(given.decrease(X, closed) - 0.5 * one)
    near = _length(rest) <= NEAR * _length(step) and _length(turn) <= PERSISTS * _length(shift)
    there, after, spread = (_length(M / outer) / whole for M in (step, rest, spread))
    if there > SMALL_STEP:  # what the inverse leaves of the step
        more = symmetric(pair.solve(residual - given.decrease(step, closed)))
        step, after = step + more, after + _length(more / outer) / whole
    return _Audit(step, there, after, spread, stable, stable and near, pair, X)


def _pair(closed: Matrix, discrete: bool) -> SchurPair:
    """What solves `DF(P)[X] = −C`."""
    return (
        SchurPair.bilinear(closed.T, closed)
        if discrete
        else SchurPair.factor(closed.T, closed, discrete=False)
    )


def _margin(pair: SchurPair, discrete: bool) -> float:
    """Distance of the eigenvalues of the closed loop to the boundary of stability."""
    poles = pair.eigenvalues()
    return 1.0 - abs(poles).max() if discrete else -np.real(poles).max()


def _rounding(given: RiccatiEquation, P: Matrix, K: Matrix, closed: Matrix) -> Matrix:
    """What rounding may add to each entry of the residual in working precision, with a factor of 8 to spare."""
    PC, K, P, closed = abs(P.dot(closed)), abs(K), abs(P), abs(closed)
    loop = abs(given.A) + abs(given.B).dot(K)  # of which `closed` is known to a rounding
    total = abs(given.Q) + K.T.dot(abs(given.R).dot(K))
    if given.N is not None:
        cross = abs(given.N).dot(K)
        total = total + cross + cross.T
    once = loop.T.dot(PC if given.discrete else P)
    if given.discrete:
        total = total + P + closed.T.dot(P.dot(closed))
    return 2.0**-49 * (total + once + once.T)


def _is_positive(M: Matrix) -> bool:
    """Whether a Cholesky factor exists; NaN is not positive definite."""
    return lapack().dpotrf(M)[1] == 0


def _length(M: Matrix) -> float:
    """Frobenius norm of one matrix; without warnings."""
    return blas().dnrm2(M.ravel(order="K"))
