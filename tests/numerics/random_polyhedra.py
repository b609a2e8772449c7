"""Seeded random polyhedra of every unpleasant kind, and a KKT check that shares no code with the solver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class RandomSets:
    """One batch of sets of the same size; `empty` by at least 1e-6 relative by construction."""

    y: np.ndarray
    A: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    empty: np.ndarray
    feasible: np.ndarray


def random_sets(rng: np.random.Generator, batch: int, n: int, m: int) -> RandomSets:
    """Sets with a known inner point, then spoiled: repeated, opposite, dependent, tight and zero rows, scales."""
    A = rng.standard_normal((batch, m, n))
    inner = rng.standard_normal((batch, n)) * (rng.random((batch, 1)) < 0.8)
    sign = np.ones((batch, m))
    for b in range(batch):
        for i in range(m):
            kind = rng.integers(8)
            if i > 0 and kind == 0:  # duplicate
                A[b, i] = A[b, rng.integers(i)]
            elif i > 0 and kind == 1:  # opposite
                A[b, i] = -A[b, rng.integers(i)]
            elif i > 1 and kind == 2:  # dependent
                j = rng.integers(i, size=2)
                A[b, i] = rng.standard_normal(2) @ A[b, j]
            elif kind == 3 and rng.random() < 0.3:  # zero
                A[b, i] = 0.0
            elif kind == 4:  # an axis
                A[b, i] = 0.0
                A[b, i, rng.integers(n)] = 1.0
    value = np.einsum("bmn,bn->bm", A, inner)
    gap = np.abs(rng.standard_normal((batch, m))) * (
        rng.random((batch, m)) < 0.7
    )  # 0: tight at the inner point
    other = np.abs(rng.standard_normal((batch, m))) * (rng.random((batch, m)) < 0.7)
    upper = np.where(rng.random((batch, m)) < 0.7, value + gap, np.inf)
    lower = np.where(rng.random((batch, m)) < 0.4, value - other, -np.inf)
    equality = rng.random((batch, m)) < 0.1 * rng.random((batch, 1))
    lower, upper = np.where(equality, value, lower), np.where(equality, value, upper)
    y = inner + rng.standard_normal((batch, n)) * 10.0 ** rng.integers(-2, 3, (batch, 1))

    empty = np.zeros(batch, dtype=bool)
    if m >= 2:
        for b in np.flatnonzero(rng.random(batch) < 0.2):
            # a combination of rows with positive weights, contradicted by its own negative
            k = int(rng.integers(1, min(m, 4)))
            rows = rng.choice(m, size=k + 1, replace=False)
            weight = 0.2 + rng.random(k)
            combination = weight @ A[b, rows[:k]]
            if np.linalg.norm(combination) < 1e-3:
                continue
            upper[b, rows[:k]] = value[b, rows[:k]] + 0.1
            lower[b, rows[:k]] = np.minimum(lower[b, rows[:k]], upper[b, rows[:k]])
            A[b, rows[k]] = combination
            total = weight @ upper[b, rows[:k]]
            thin = 10.0 ** rng.uniform(-5, 0)
            size = np.abs(total) + weight @ np.abs(upper[b, rows[:k]]) + np.linalg.norm(combination)
            lower[b, rows[k]], upper[b, rows[k]] = total + thin * size, np.inf
            empty[b] = True
    row_scale = 10.0 ** rng.uniform(-6, 6, (batch, m)) * sign
    scale = 10.0 ** rng.uniform(-6, 6, (batch, 1))
    return RandomSets(
        y * scale,
        A * row_scale[..., None],
        lower * row_scale * scale,
        upper * row_scale * scale,
        empty,
        ~empty,
    )


def kkt_residual(
    y: np.ndarray, A: np.ndarray, lower: np.ndarray, upper: np.ndarray, x: np.ndarray, multiplier: np.ndarray
) -> float:
    """Largest relative error of the optimality conditions of one projection, in units of its data.

    Rows are taken with unit norm. Feasibility is relative to `|a||x| + |bound| + 1e-5 |y|` (1e-8 of the
    last term is 1e-13 |y|), stationarity and complementarity to the size of `y`, `x` and the multipliers.
    """
    norm = np.linalg.norm(A, axis=1)
    unit = np.where(norm > 0, norm, 1.0)
    A, lower, upper, multiplier = A / unit[:, None], lower / unit, upper / unit, multiplier * unit
    Ax, floor = A @ x, 1e-5 * np.linalg.norm(y) + np.finfo(float).tiny
    size = np.abs(A) @ np.abs(x) + floor
    with np.errstate(invalid="ignore"):  # infinite sides
        above = np.where(np.isfinite(upper), (Ax - upper) / (size + np.abs(upper)), 0.0)
        below = np.where(np.isfinite(lower), (lower - Ax) / (size + np.abs(lower)), 0.0)
    feasibility = max(0.0, above.max(initial=0.0), below.max(initial=0.0))
    length = np.linalg.norm(y) + np.linalg.norm(x) + np.finfo(float).tiny
    stationarity = np.linalg.norm(y - x - A.T @ multiplier) / (length + np.abs(multiplier).sum() * 1e-6)
    held = multiplier != 0
    bound = np.where(multiplier > 0, upper, lower)
    if not np.isfinite(bound[held]).all():
        return np.inf  # a multiplier on a side that is not there
    off = np.abs(Ax - bound)[held] / (size + np.abs(bound))[held]
    return float(max(feasibility, stationarity, off.max(initial=0.0)))
