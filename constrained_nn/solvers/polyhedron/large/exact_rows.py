"""One projection onto rows and bounds at a time: an interior-point guess, polished to the exact active set.

A component at a bound is eliminated, so that the cost of an exact solve does not depend on how many there are;
what is left is one system in the active rows. For sets that are too large for the batched search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from constrained_nn.solvers.polyhedron.large.interior_rows import Iterate, central_path
from constrained_nn.solvers.polyhedron.large.row_matrix import Array, RowMatrix, cholesky

# A row or bound holds, relative to |A||x| + |bound| and to |y|; a multiplier is zero, relative to |x| + |y|.
_RTOL, _ROUNDING, _DUST = 1e-11, 4e-15, 1e-13
# The path is polished where its complementarity, relative to the squared distance, falls below these.
_POLISH_AT = (1e-7, 1e-9, 1e-11, 1e-13, 1e-15, 1e-17, 1e-19)
# Exact solves of one polish, and refinements of one solve.
_ROUNDS, _REFINEMENTS = 6, 4
# The path is asked for a proof that the set is empty in every so many steps.
_DOUBT_EVERY = 4
# Rounding of the proposal in a squared distance.
_TINY = 1e-24
# Farkas: the proof covers every point up to this multiple of the size of the data.
_RADIUS = 1e4
# Weight of the distance against the squared violation, rounds of it, and Newton steps of a round.
_ANCHOR, _PROXIMAL_ROUNDS, _NEWTON_STEPS = 1e-6, 4, 50


@dataclass
class ExactPoint:
    """A projection with the rows that hold it, or the best guess of it.

    Args:
        x: The point `(n,)`.
        weight: Multipliers of the bounds, then of the unit rows `(n + m,)`.
        side: +1 at the upper bound, −1 at the lower bound, 0 not active `(n + m,)`.
        exact: Whether the optimality conditions hold.
        steps: Systems solved.
        empty: Whether `weight` proves that there is no point.
    """

    x: Array
    weight: Array
    side: Array
    exact: bool = False
    steps: int = 0
    empty: bool = False


def exact_point(
    y: Array, rows: RowMatrix, lower: Array, upper: Array, max_steps: int, hint: Array | None = None
) -> ExactPoint:
    """Projection of `y (n,)` onto `{lower <= (x, A x) <= upper}` for unit rows; no bounds are crossed.

    Args:
        hint: Multipliers of the rows to try first `(m,)`, or `None`.
        max_steps: Steps of the interior-point path.
    """
    n = y.size
    value = np.concatenate([y, rows.A @ y])
    zeros = np.zeros(value.size)
    if ((lower <= value) & (value <= upper)).all():
        return ExactPoint(y, zeros, zeros, exact=True)
    steps = level = 0
    guess = ExactPoint(y, zeros, zeros)
    if hint is not None:
        guess = _polish(y, rows, lower, upper, _from_weights(y, rows, lower, upper, hint))
        steps = guess.steps
        if guess.exact:
            return guess
    for iterate in central_path(y, rows, lower, upper, max_steps=max_steps):
        steps += 1
        if steps % _DOUBT_EVERY == 0:
            size = float(np.linalg.norm(y) + np.linalg.norm(iterate.v[:n]))
            ray = farkas_ray(iterate.weight, rows, lower, upper, size)
            if ray is not None:
                return ExactPoint(iterate.v[:n], ray, np.sign(ray), steps=steps, empty=True)
        square = iterate.distance**2 + _TINY * float(y @ y)
        if level == len(_POLISH_AT) or iterate.complementarity > _POLISH_AT[level] * square:
            continue
        while level < len(_POLISH_AT) and iterate.complementarity <= _POLISH_AT[level] * square:
            level += 1
        guess = _polish(y, rows, lower, upper, _from_path(iterate, lower, upper))
        steps += guess.steps
        if guess.exact:
            break
    guess.steps = steps
    return guess


def _polish(y: Array, rows: RowMatrix, lower: Array, upper: Array, guess: ExactPoint) -> ExactPoint:
    """Exact solves on active sets, each corrected by the last, as long as the corrections become fewer."""
    before = guess.side.size
    for step in range(1, _ROUNDS + 1):
        guess, following = solve_on(y, rows, lower, upper, guess)
        guess.steps = step
        changes = int((following != guess.side).sum())
        if guess.exact or changes >= max(before, 5) or before == changes == 0:
            break
        before, guess.side = changes, following
    return guess


def _from_weights(y: Array, rows: RowMatrix, lower: Array, upper: Array, weight: Array) -> ExactPoint:
    """Active set of the rows' multipliers: components that they push out are at their bounds."""
    n = y.size
    pushed = y - rows.At @ weight
    side = np.concatenate([np.sign(pushed - np.clip(pushed, lower[:n], upper[:n])), np.sign(weight)])
    side[~np.isfinite(np.where(side > 0, upper, lower))] = 0.0
    side[lower == upper] = 1.0
    return ExactPoint(y, np.concatenate([np.zeros(n), weight]), side)


def _from_path(iterate: Iterate, lower: Array, upper: Array) -> ExactPoint:
    """Bounds with a multiplier larger than their gap; equalities are always active."""
    n = iterate.n
    at = iterate.z > iterate.gap
    side = -iterate.pairs.sum(iterate.pairs.sign * at)
    side[lower == upper] = 1.0
    weight = np.concatenate([np.zeros(n), iterate.weight])
    return ExactPoint(iterate.v[:n], weight, side)


def solve_on(
    y: Array, rows: RowMatrix, lower: Array, upper: Array, guess: ExactPoint
) -> tuple[ExactPoint, Array]:
    """Exact point on the active set of the guess, whether it is the projection, and the set to try next.

    The multipliers of the guess are corrected by those of least norm, which keeps the signs of a guess from the
    interior where rows depend on each other.
    """
    n = y.size
    side, weight = guess.side, np.zeros_like(guess.weight)
    at = np.where(side > 0, upper, lower)
    free = side[:n] == 0
    held = np.flatnonzero(side[n:])
    some = rows.take(held)
    solve = some.factor(free.astype(float))
    w, target = guess.weight[n:][held], at[n:][held]
    x = np.where(free, y - some.At @ w, at[:n])
    size = np.linalg.norm(y)
    for _ in range(_REFINEMENTS):
        missing = some.A @ x - target
        allowed = _RTOL * (np.abs(target) + some.magnitude @ np.abs(x)) + _ROUNDING * size
        if solve is None or (np.abs(missing) <= 0.1 * allowed).all():
            break
        d = solve(missing)
        w = w + d
        x = np.where(free, x - some.At @ d, x)
    rest = y - x - some.At @ w
    weight[n + held], weight[:n] = w, np.where(free, 0.0, rest)

    value = np.concatenate([x, rows.A @ x])
    inside = np.clip(value, lower, upper)
    outside = value - inside
    length = np.linalg.norm(x)
    reach = np.concatenate([np.abs(x), rows.magnitude @ np.abs(x)])
    late = np.abs(outside) > _RTOL * (reach + np.abs(inside)) + _ROUNDING * size
    wrong = (weight * side < -_DUST * (length + size)) & (lower < upper)
    drift = np.abs(rest[free]).max(initial=0.0)
    exact = not (late.any() or wrong.any()) and drift <= 1e-11 * (length + size)
    following = np.where(wrong, 0.0, side)
    following = np.where(late & (side == 0), np.sign(outside), following)
    weight = np.where((weight * side < 0) & (lower < upper), 0.0, weight)
    return ExactPoint(x, weight, side, bool(exact)), following


def farkas_ray(weight: Array, rows: RowMatrix, lower: Array, upper: Array, size: float) -> Array | None:
    """Weights `(n + m,)` of bounds and rows with `μ + Aᵀλ = 0` and negative support value, or `None`.

    Every point of the set has `0 = (μ + Aᵀλ)·x <= Σ max(w, 0) upper + min(w, 0) lower`, `w = (μ, λ)`. Where a
    component has no bound on its side, `μ` is missing, and the proof covers all points up to `1e4 size`.
    """
    n = rows.shape[1]
    weight = np.where(np.isfinite(np.where(weight > 0, upper[n:], lower[n:])), weight, 0.0)
    total = np.abs(weight).sum()
    if not total > 0:
        return None
    weight = weight / total
    slope = -(rows.At @ weight)
    w = np.concatenate([slope, weight])
    bound = np.where(w > 0, upper, lower)
    there = np.isfinite(bound)
    w[:n][~there[:n]] = 0.0
    terms = w * np.where(there, bound, 0.0)
    support, left = terms.sum(), np.linalg.norm(slope[~there[:n]])
    proved = support < -1e-12 * np.abs(terms).sum() and -support > left * _RADIUS * size
    return w * total if proved else None


def least_violation_point(y: Array, rows: RowMatrix, lower: Array, upper: Array) -> Array:
    """Point that minimizes the sum of squared violations of unit rows and bounds, near `y`.

    Proximal-point steps, each one minimized by Newton's method: the cost is a piecewise quadratic.
    """
    n = y.size
    crossed = lower > upper  # least violated in the middle
    middle = 0.5 * (np.where(crossed, lower, 0.0) + np.where(crossed, upper, 0.0))
    low, up = np.where(crossed, middle, lower), np.where(crossed, middle, upper)

    def outside(x: Array) -> Array:
        value = np.concatenate([x, rows.A @ x])
        return value - np.clip(value, low, up)

    x = y
    for _ in range(_PROXIMAL_ROUNDS):
        anchor = x
        for _ in range(_NEWTON_STEPS):
            out = outside(x)
            violated = (out != 0).astype(float)
            gradient = out[:n] + rows.At @ out[n:] + _ANCHOR * (x - anchor)
            solve = cholesky(rows.column_gram(violated[n:]), violated[:n] + _ANCHOR)
            if solve is None:
                return x
            step, length, slope = -solve(gradient), 1.0, float(gradient @ gradient)
            cost = float(out @ out) + _ANCHOR * float((x - anchor) @ (x - anchor))
            while length > 1e-3:
                trial, out = x + length * step, outside(x + length * step)
                if float(out @ out) + _ANCHOR * float((trial - anchor) @ (trial - anchor)) < cost:
                    break
                length *= 0.5
            else:
                break
            x = trial
            if slope <= 1e-26 * float(out @ out):
                break
    return x
