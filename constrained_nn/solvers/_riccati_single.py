"""One Riccati equation at once: the stable subspace of its Hamiltonian matrix, at most two Newton steps, and the audit.

The audit is that of `_riccati_search`, written for one equation `(n, n)` in NumPy, where calls and not arithmetic take
the time. It answers only where all is clear; anything else is left to the search.
"""

from __future__ import annotations

import math

import numpy as np

from constrained_nn.solvers._linear_equations import probe
from constrained_nn.solvers._matrix_equations import identity, relative_residual, symmetric
from constrained_nn.solvers._riccati_equations import RiccatiEquation
from constrained_nn.solvers._riccati_search import NEAR, PERSISTS, SMALL_BOUND, SMALL_STEP, Verdict
from constrained_nn.solvers._schur import SchurPair, blas, form_eigenvalues, lapack, schur_form
from constrained_nn.solvers._solution import Status

Matrix = np.ndarray

_OK = np.int8(Status.OK)
_NEWTON_STEPS = 2
# Up to this many states a Schur form is faster than doubling; beyond so many an exact residual costs little time.
_FEW, _MANY = 20, 128
# Entries whose products and sums of squares are far from overflow and underflow.
_SMALLEST, _LARGEST = 1e-60, 1e60


def solve_at_once(given: RiccatiEquation, rtol: float) -> tuple[Verdict, int] | None:
    """The verdict on an equation without descriptor matrix, and its Newton steps; `None` where it is not clear."""
    if given.E is not None or len(given.A) > _MANY:
        return None
    with np.errstate(all="ignore"):
        try:
            P, before = _candidate(given), math.inf
            for steps in range(_NEWTON_STEPS + 1):
                audited = None if P is None else _audit(given, P)
                if audited is None:
                    return None
                step, there, verdict = audited
                settled = there <= SMALL_STEP or there > 0.1 * before
                if settled and verdict.error <= min(SMALL_BOUND, 10.0 * rtol) and verdict.residual <= rtol:
                    return verdict, steps
                P, before = P + step, there
        except np.linalg.LinAlgError:
            return None
    return None


def _candidate(given: RiccatiEquation) -> Matrix | None:
    """`P` by the stable subspace of the Hamiltonian matrix, or of its like in discrete time."""
    A, B, Q, N, n = given.A, given.B, given.Q, given.N, len(given.A)
    size = _length(A) + _length(B) + _length(Q) + (0.0 if N is None else _length(N))
    factor, info = lapack().dpotrf(given.R)
    if info or not size < _LARGEST:  # NaN is not
        return None
    if N is not None:
        tilt = lapack().dpotrs(factor, N.T)[0]
        A, Q = A - B.dot(tilt), symmetric(Q - N.dot(tilt))
    S = B.dot(lapack().dpotrs(factor, B.T)[0])
    spread, weight = _length(S), _length(Q)
    if not (_SMALLEST < spread < _LARGEST and weight > _SMALLEST):
        return None
    if n > _FEW:
        return given.map(lambda M: M[None]).doubled()[0][0]
    # P in units in which both corners of the matrix have one size
    unit = 2.0 ** round(0.5 * math.log2(weight / spread))
    S, Q = S * unit, Q / unit
    H = np.empty((2 * n, 2 * n))
    if given.discrete:  # (M + L)⁻¹ (M − L) of the pencil M − λ L, whose left half plane is the unit disc
        J, one = np.empty((2 * n, 2 * n)), identity(n, A)
        H[:n, :n], H[:n, n:], H[n:, :n], H[n:, n:] = A - one, -S, -Q, one - A.T
        J[:n, :n], J[:n, n:], J[n:, :n], J[n:, n:] = A + one, S, -Q, one + A.T
        _, _, H, info = lapack().dgesv(J, H)
        if info or not np.isfinite(H).all():
            return None
    else:
        H[:n, :n], H[:n, n:], H[n:, :n], H[n:, n:] = A, -S, -Q, -A.T
    _, U, stable = schur_form(H, stable_first=True)
    if stable != n:
        return None
    _, _, P, info = lapack().dgesv(U[:n, :n].T, U[n:, :n].T)
    return None if info else symmetric(P) * unit


def _audit(given: RiccatiEquation, P: Matrix) -> tuple[Matrix, float, Verdict] | None:
    """The Newton step from `P`, its size relative to `P`, and the verdict, whose error is infinite without a proof."""
    K = given.gain(P)
    closed, whole = given.closed_loop(K), _length(P)
    if not (0.0 < whole < _LARGEST and _length(closed) < _LARGEST):
        return None
    if given.discrete:
        pair = SchurPair.bilinear(closed.T, closed)
        poles = 1.0 + 2.0 / (form_eigenvalues(pair.S) - 1.0)
        margin = 1.0 - abs(poles).max()
    else:
        pair = SchurPair.factor(closed.T, closed, discrete=False)
        margin = -pair.S.diagonal().max()
    one = identity(len(P), P)
    residual, _ = given.plain_residual(P, K, closed)
    change = 2.0**-52 * given.sensitivity(P, K)
    noise = _rounding(given, P, K) * probe(*P.shape)
    step, X, shift, spread = (symmetric(pair.solve(C)) for C in (residual, one, change, noise))
    there, moved = _length(step), _length(shift)
    after, turn = (_length(pair.solve(given.second_order(P, closed, D))) for D in (step, shift))
    rounding = 2.0**-51 * _length(closed) * _length(X)
    proved = after <= NEAR * there and turn <= PERSISTS * moved and rounding < 0.25
    proved = proved and _is_positive(given.decrease(X, closed) - 0.5 * one) and _is_positive(X)
    error = (there + _length(spread)) / whole if proved else math.inf
    relative = relative_residual(*given.terms(P, K))
    return step, there / whole, Verdict(P, P, K, closed, _OK, relative, error, margin)


def _rounding(given: RiccatiEquation, P: Matrix, K: Matrix) -> Matrix:
    """What rounding may add to each entry of the residual in working precision."""
    K, P = abs(K), abs(P)
    loop = abs(given.A) + abs(given.B).dot(K)
    total = abs(given.Q) + K.T.dot(abs(given.R).dot(K))
    if given.N is not None:
        cross = abs(given.N).dot(K)
        total = total + cross + cross.T
    PC = P.dot(loop)
    total = total + (P + loop.T.dot(PC) if given.discrete else PC + PC.T)
    return 2.0**-51 * total


def _is_positive(M: Matrix) -> bool:
    """Whether a Cholesky factor exists; NaN is not positive definite."""
    return lapack().dpotrf(M)[1] == 0


def _length(M: Matrix) -> float:
    """Frobenius norm of one matrix; without warnings."""
    return blas().dnrm2(M.ravel(order="K"))
