"""The search for the stabilizing solution of a Riccati equation, and the audit of what it finds.

The audit is one Newton step with a residual to twice the working precision. The step measures the error of `P`; the
Lyapunov function `X` of the closed loop, `DF(P)[X] = −I`, proves that the loop is stable, and the next step, by the
second-order term of `F`, that Newton's method converges (Kantorovich), to an exact solution whose loop is stable too.
At a solution on the boundary of stability a double eigenvalue moves by the square root of the rounding, so that the
loop that belongs to the rounded matrices may be stable; there Newton's method only halves the error, and the step that
a rounding of the matrices makes is as large as the margin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from constrained_nn.solvers.equations.matrices import (
    Array,
    all_finite,
    is_positive_definite,
    is_traced,
    largest,
    namespace,
    norm,
    solve,
    symmetric,
)
from constrained_nn.solvers.equations.riccati.equation import RiccatiEquation, unit
from constrained_nn.solvers.equations.schur import SchurPair, stabilizing_subspace
from constrained_nn.solvers.equations.sylvester import closed_loop_sums

# Newton steps from a guess, and from what doubling or a Schur method found.
_FROM_GUESS, _POLISH = 40, 12
# An estimated error below this is that of rounding: no further step.
_REFINED = 1e-13
# After a plain residual no polish: a step below this, and a bound of the error, its rounding included.
SMALL_STEP, SMALL_BOUND = 1e-12, 1e-9
# What the simplified next Newton step may be of this one: 1/4 at a solution on the boundary of stability (Kantorovich's
# number h = 1/2), much less elsewhere.
NEAR = 0.1
# The same of the shift that a rounding of the given matrices gives to the solution: at 1/4 their neighbours need not
# have one.
PERSISTS = 0.25

# Given the closed loop: solves DF(P)[X] = −C for right-hand sides (*more, batch, n, n).
Method = Callable[[RiccatiEquation, Array], Callable[[Array], Array]]


class Verdict(NamedTuple):
    """What is returned for each element, and what is said of it; tensors or NumPy arrays.

    `exact` is `P` before it was rounded to the dtype.
    """

    exact: Array
    P: Array
    gain: Array
    closed_loop: Array
    status: Array
    residual: Array
    error: Array
    margin: Array


class Found(NamedTuple):
    """A candidate with its audit; every array begins with the batch.

    Args:
        P: The candidate.
        step: The Newton step from it.
        X: Lyapunov function of its closed loop.
        error: Estimated error relative to the norm of `P`, in the given units.
        stable: Elements with a stabilizing solution near `P`, whose own closed loop is stable.
        steps: Iterations.
    """

    P: Array
    step: Array
    X: Array
    error: Array
    stable: Array
    steps: Array

    def at(self, index: Any) -> Found:
        return Found(*(t[index] for t in self))

    def with_better(self, index: Array, other: Found) -> Found:
        """With the elements of `other` at `index` where they are better; steps add up."""
        xp, old = namespace(self.P), self.at(index)
        better = other.stable & (~old.stable | (other.error < old.error))
        mixed = [
            xp.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(other, old, strict=True)
        ]
        mixed[-1] = other.steps + old.steps
        for whole, part in zip(self, mixed, strict=True):
            whole[index] = part
        return self


def audit(
    equation: RiccatiEquation, outer: Array, P: Array, steps: Array, method: Method, *, exact: bool = True
) -> Found:
    """Estimated error and stability of `P`; `outer` times `P` of the given units is `P`."""
    xp = namespace(P)
    finite = all_finite(P)
    P = xp.where(finite[..., None, None], P, 0.0)
    K = equation.gain(P)
    closed = equation.closed_loop(K)
    finite = finite & all_finite(closed)
    closed = xp.where(finite[..., None, None], closed, -0.5 * unit(equation))
    inverse = method(equation, closed)
    change = 2.0**-52 * equation.sensitivity(P, K)
    if exact:
        residual, noise = equation.exact_residual(P, K), equation.noise(P, K)
    else:
        residual, noise = equation.plain_residual(P, K, closed)
    step, X, shift = inverse(xp.stack([residual, unit(equation), change]))
    finite = finite & all_finite(step, X, shift)
    step, X, shift = (xp.where(finite[..., None, None], symmetric(M), 0.0) for M in (step, X, shift))
    after, turn = inverse(xp.stack([equation.second_order(P, closed, D) for D in (step, shift)]))
    converges = norm(after) <= NEAR * norm(step)
    persists = norm(turn) <= PERSISTS * norm(shift)
    stable = finite & is_stable(equation, X, closed) & converges & persists
    units = outer * largest(1.0 / outer)[..., None, None]  # at least 1
    there, whole = norm(step / units), norm(P / units)
    spread = noise * xp.diagonal(X / units, 0, -2, -1).sum(-1)
    error = (there + abs(spread)) / xp.where(whole > 0, whole, 1.0)
    error = xp.where(finite & xp.isfinite(error), error, np.inf)
    return Found(P, step, X, error, stable, steps)


def is_stable(equation: RiccatiEquation, X: Array, closed: Array) -> Array:
    """Whether `X`, which should fall by `|x|²` along the closed loop, proves that it is stable, rounding included."""
    falls = is_positive_definite(equation.decrease(X, closed) - 0.5 * unit(equation))
    rounding = 2.0**-51 * norm(closed) * norm(X)
    return falls & is_positive_definite(X) & (rounding < 0.25)


def keeps_stable(equation: RiccatiEquation, closed: Array) -> Array:
    """Whether another closed loop, such as that of rounded numbers, is stable."""
    xp, finite = namespace(closed), all_finite(closed)
    closed = xp.where(finite[..., None, None], closed, -0.5 * unit(equation))
    X = _by_doubling(equation, closed)(unit(equation))
    finite = finite & all_finite(X)
    return finite & is_stable(equation, xp.where(finite[..., None, None], symmetric(X), 0.0), closed)


def search(equation: RiccatiEquation, outer: Array, guess: Array | None) -> Found:
    """The stabilizing solution, by the cheapest way that leads there; while tracing, by doubling alone."""
    if is_traced(equation.A):
        P, steps = equation.doubled()
        return _newton_step(equation, outer, audit(equation, outer, P, steps, _by_doubling))
    if guess is None:
        found = _from_doubling(equation, outer)
    else:
        zero = (
            np.zeros(len(guess), np.int32)
            if isinstance(guess, np.ndarray)
            else torch.zeros_like(guess[:, 0, 0]).int()
        )
        found = _refine(
            equation, outer, audit(equation, outer, guess, zero, _by_doubling), _FROM_GUESS, _by_doubling
        )
        found = _again(equation, outer, found, _from_doubling, found.error <= SMALL_BOUND)
    return _again(equation, outer, found, _from_schur, found.error <= SMALL_BOUND)


def _again(
    equation: RiccatiEquation, outer: Array, found: Found, method: Callable[..., Found], solved: Array
) -> Found:
    """With another method for the elements that are not solved."""
    (index,) = namespace(found.P).where(~(found.stable & solved))
    if len(index):
        found = found.with_better(
            index, method(equation.map(lambda M: M[index]), outer[index], found.at(index))
        )
    return found


def _by_doubling(equation: RiccatiEquation, closed: Array) -> Callable[[Array], Array]:
    E = equation.E
    if E is None:
        return closed_loop_sums(closed, discrete=equation.discrete)
    inverse = closed_loop_sums(solve(E.mT, closed.mT).mT, discrete=equation.discrete)
    left = solve(E.mT, unit(equation))  # E⁻ᵀ
    return lambda C: inverse(left @ C @ left.mT)


def _by_schur(equation: RiccatiEquation, closed: Array) -> Callable[[Array], Array]:
    """For one equation in NumPy."""
    E = equation.E
    left = None if E is None else solve(E.mT, unit(equation))
    A = closed[0] if left is None else (closed @ left.mT)[0]
    pair = SchurPair.factor(A.T, A, discrete=equation.discrete)

    def inverse(C: Array) -> Array:
        C = C if left is None else left @ C @ left.mT
        flat = C.reshape(-1, *C.shape[-2:])
        return np.stack([pair.solve(c) for c in flat]).reshape(C.shape)

    return inverse


def _newton_step(equation: RiccatiEquation, outer: Array, found: Found) -> Found:
    """One step for all elements."""
    return audit(equation, outer, found.P + found.step, found.steps + 1, _by_doubling)


def _from_doubling(equation: RiccatiEquation, outer: Array, _: Found | None = None) -> Found:
    P, steps = equation.doubled()
    found = audit(equation, outer, P, steps, _by_doubling, exact=False)
    small = norm(found.step) <= SMALL_STEP * norm(found.P)
    (index,) = namespace(P).where(~(found.stable & small & (found.error <= SMALL_BOUND)))
    if len(index):  # the exact residual overrules the plain one
        polished = _polish(equation.map(lambda M: M[index]), outer[index], found.at(index))
        for whole, part in zip(found, polished, strict=True):
            whole[index] = part
    return found


def _polish(equation: RiccatiEquation, outer: Array, found: Found) -> Found:
    found = audit(equation, outer, found.P, found.steps, _by_doubling)
    return _refine(equation, outer, found, _POLISH, _by_doubling)


def _refine(equation: RiccatiEquation, outer: Array, found: Found, count: int, method: Method) -> Found:
    """Newton steps of the elements that are not yet solved to rounding, as long as the steps become smaller."""
    xp = namespace(found.P)
    last = xp.full_like(found.error, np.inf)
    for _ in range(count):
        going = (found.error > _REFINED) & (found.error < 0.5 * last) | (found.error > 1e-2) & (
            found.error < np.inf
        )
        (index,) = xp.where(going)
        if not len(index):
            break
        part, old = equation.map(lambda M: M[index]), found.at(index)  # noqa: B023
        new = audit(part, outer[index], old.P + old.step, old.steps + 1, method)
        last[index] = old.error
        better = ~(old.stable & ~(new.stable & (new.error <= old.error)))
        last[index[~better]] = 0.0  # what is stable is only exchanged for what is better
        for whole, t in zip(found, new, strict=True):
            whole[index[better]] = t[better]
    return found


def _from_schur(equation: RiccatiEquation, outer: Array, before: Found) -> Found:
    """One element after the other: polished once more from what was found, and from the subspace of the pencil."""
    on_cpu = [np.asarray(t.cpu() if isinstance(t, torch.Tensor) else t) for t in (outer, *before)]
    results = []
    for k in range(len(before.P)):
        one = equation.map(lambda M: np.asarray(M.cpu() if isinstance(M, torch.Tensor) else M)[k : k + 1])  # noqa: B023
        units, *rest = (t[k : k + 1] for t in on_cpu)
        results.append(_single(one, units, Found(*(t.copy() for t in rest))))
    joined = [np.concatenate(parts) for parts in zip(*results, strict=True)]
    if isinstance(before.P, torch.Tensor):
        joined = [torch.from_numpy(t).to(before.P.device) for t in joined]
    return Found(*joined)


def _single(equation: RiccatiEquation, outer: Array, before: Found) -> Found:
    found = before
    if bool(before.stable[0]) or before.error[0] < 1e-3:
        found = audit(equation, outer, before.P, before.steps, _by_schur)
        found = _refine(equation, outer, found, _POLISH, _by_schur)
    if bool(found.stable[0]) and found.error[0] <= _REFINED:
        return found
    A, B, Q, R = equation.A[0], equation.B[0], equation.Q[0], equation.R[0]
    N = np.zeros_like(B) if equation.N is None else equation.N[0]
    E = np.eye(len(A)) if equation.E is None else equation.E[0]
    P = stabilizing_subspace(A, B, Q, R, N, E, discrete=equation.discrete)
    if P is None or not np.isfinite(P).all():
        return found
    other = audit(equation, outer, P[None], found.steps, _by_schur)
    other = _refine(equation, outer, other, _POLISH, _by_schur)
    return found.with_better(np.arange(1), other)
