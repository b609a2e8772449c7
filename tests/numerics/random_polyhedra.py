"""Seeded random polyhedra of every unpleasant kind, and a KKT check that shares no code with the solver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from constrained_nn.solvers import Status, project_polyhedron


@dataclass
class RandomSets:
    """One batch of sets of the same size.

    Args:
        A: Rows `(batch, m, n)`, or `(m, n)` shared.
        box: Bounds on the point itself `(batch, n)`, or `None`.
        gap: Relative amount by which a set is empty by construction; 0 for sets with a known point `(batch,)`.
    """

    y: np.ndarray
    A: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    box: tuple[np.ndarray, np.ndarray] | None
    gap: np.ndarray

    def solve(self):
        """Solution by the solver under test."""
        box = None if self.box is None else tuple(torch.tensor(side) for side in self.box)
        data = (torch.tensor(a) for a in (self.y, self.A, self.lower, self.upper))
        return project_polyhedron(*data, box=box)

    def residual(self, b: int, x: np.ndarray, multiplier: np.ndarray) -> float:
        """`kkt_residual` of element `b`; the multipliers of the box are what the rows leave of `y − x`."""
        A = self.A if self.A.ndim == 2 else self.A[b]
        lower, upper = self.lower[b], self.upper[b]
        if self.box is not None:
            rest = self.y[b] - x - A.T @ multiplier
            size = np.linalg.norm(self.y[b]) + np.linalg.norm(x) + 1e-6 * (np.abs(A.T) @ np.abs(multiplier))
            rest = np.where(np.abs(rest) > 1e-9 * size, rest, 0.0)  # rounding is not a multiplier
            A = np.concatenate([A, np.eye(len(x))])
            lower, upper = np.concatenate([lower, self.box[0][b]]), np.concatenate([upper, self.box[1][b]])
            multiplier = np.concatenate([multiplier, rest])
        return kkt_residual(self.y[b], A, lower, upper, x, multiplier)


def random_sets(
    rng: np.random.Generator, batch: int, n: int, m: int, *, shared: bool = False, boxed: bool = False
) -> RandomSets:
    """Sets with a known inner point, then spoiled: repeated, opposite, dependent, tight and zero rows, scales.

    A fifth of them is then made empty, by 1e-12 to 1 relative.
    """
    matrices = 1 if shared else batch
    A = rng.standard_normal((matrices, m, n))
    inner = rng.standard_normal((batch, n)) * (rng.random((batch, 1)) < 0.8)
    for rows in A:
        _spoil(rng, rows)
    contradictions = [_combine(rng, rows) for rows in A]
    value = np.einsum("bmn,bn->bm", np.broadcast_to(A, (batch, m, n)), inner)
    # 0: tight at the inner point
    room, other = (np.abs(rng.standard_normal((batch, m))) * (rng.random((batch, m)) < 0.7) for _ in range(2))
    upper = np.where(rng.random((batch, m)) < 0.7, value + room, np.inf)
    lower = np.where(rng.random((batch, m)) < 0.4, value - other, -np.inf)
    # for a shared matrix often the same rows in all elements: those are eliminated
    equality = rng.random((batch, m)) < 0.1 * rng.random((batch, 1))
    if shared and rng.random() < 0.5:
        equality = np.broadcast_to(equality[:1], (batch, m))
    lower, upper = np.where(equality, value, lower), np.where(equality, value, upper)
    y = inner + rng.standard_normal((batch, n)) * 10.0 ** rng.integers(-2, 3, (batch, 1))

    gap = np.zeros(batch)
    for b in np.flatnonzero(rng.random(batch) < 0.2):
        found = contradictions[0 if shared else b]
        if found is None:
            continue
        rows, last, weight = found
        upper[b, rows] = value[b, rows] + 0.1
        lower[b, rows] = np.minimum(lower[b, rows], upper[b, rows])
        total = weight @ upper[b, rows]
        gap[b] = 10.0 ** rng.uniform(-12, 0)
        norm = np.linalg.norm(A[0 if shared else b, last])
        size = np.abs(total) + weight @ np.abs(upper[b, rows]) + norm
        lower[b, last], upper[b, last] = total + gap[b] * size, np.inf
    box = None
    scale = 10.0 ** rng.uniform(-6, 6, (batch, 1))
    if boxed:
        below, above = (np.abs(rng.standard_normal((batch, n))) for _ in range(2))
        free = rng.random((2, batch, n)) < 0.3
        low = np.where(free[0], -np.inf, inner - below) * scale
        box = (low, np.where(free[1], np.inf, inner + above) * scale)
    row_scale = 10.0 ** rng.uniform(-6, 6, (matrices, m))
    A = A * row_scale[..., None]
    lower, upper = lower * row_scale * scale, upper * row_scale * scale
    return RandomSets(y * scale, A[0] if shared else A, lower, upper, box, gap)


def _spoil(rng: np.random.Generator, rows: np.ndarray) -> None:
    for i in range(len(rows)):
        kind = rng.integers(8)
        if i > 0 and kind == 0:  # duplicate
            rows[i] = rows[rng.integers(i)]
        elif i > 0 and kind == 1:  # opposite
            rows[i] = -rows[rng.integers(i)]
        elif i > 1 and kind == 2:  # dependent
            rows[i] = rng.standard_normal(2) @ rows[rng.integers(i, size=2)]
        elif kind == 3 and rng.random() < 0.3:  # zero
            rows[i] = 0.0
        elif kind == 4:  # an axis
            rows[i] = 0.0
            rows[i, rng.integers(rows.shape[1])] = 1.0


def _combine(rng: np.random.Generator, A: np.ndarray) -> tuple[np.ndarray, int, np.ndarray] | None:
    """Makes one row a combination of others with positive weights, to be contradicted by their bounds."""
    if len(A) < 2:
        return None
    k = int(rng.integers(1, min(len(A), 4)))
    rows = rng.choice(len(A), size=k + 1, replace=False)
    weight = 0.2 + rng.random(k)
    combination = weight @ A[rows[:k]]
    if np.linalg.norm(combination) < 1e-3:
        return None
    A[rows[k]] = combination
    return rows[:k], int(rows[k]), weight


def check_random(seed: int, batches: int, full_batch: int) -> dict[str, float]:
    """Counts of random sets by outcome, and the largest KKT residual of an `OK`; `bad` lists contradictions.

    One batch in twelve has up to 60 variables and 200 rows and a fifth of the elements. `OK` must have a KKT residual
    of at most 1e-8, and sets empty by 1e-6 must be flagged.
    """
    rng = np.random.default_rng(seed)
    counts: dict[str, float] = {"sets": 0, "worst": 0.0}
    bad: list[tuple] = []
    for i in range(batches):
        small = i % 12 != 0
        batch = full_batch if small else max(1, full_batch // 5)
        n, m = int(rng.integers(1, 8 if small else 61)), int(rng.integers(0, 30 if small else 201))
        kind = int(rng.integers(3))
        sets = random_sets(rng, batch, n, m, shared=kind == 1, boxed=kind == 2)
        solution = sets.solve()
        for b in range(batch):
            status = Status(int(solution.status[b]))
            what = "empty" if sets.gap[b] >= 1e-6 else "thin" if sets.gap[b] > 0 else "feasible"
            counts[f"{what} {status.name}"] = counts.get(f"{what} {status.name}", 0) + 1
            if status == Status.OK:
                residual = sets.residual(b, solution.value[b].numpy(), solution.duals[b].numpy())
                counts["worst"] = max(counts["worst"], residual)
                if not residual <= 1e-8 or what == "empty":
                    bad.append((i, b, what, status.name, residual))
            elif what == "empty" and status != Status.INFEASIBLE:
                bad.append((i, b, what, status.name))
        counts["sets"] += batch
    counts["bad"] = bad  # pyright: ignore
    return counts


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
