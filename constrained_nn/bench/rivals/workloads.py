"""The projection workloads, their reference solutions and the accuracy figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import null_space
from scipy.optimize import nnls


@dataclass(frozen=True)
class Workload:
    """Nearest points of `{x : C x = d, G x <= h, lower <= x <= upper}` to `point`, in float64.

    Args:
        point: Points to project `(batch, n)`.
        weight: Derivative of the loss in the projected point `(batch, n)`.
        C: Equality rows `(q, n)`, shared, or `None`.
        d: Their right-hand sides `(batch, q)`, or `None`.
        G: Inequality rows `(m, n)` or `(batch, m, n)`, or `None`.
        h: Their right-hand sides `(batch, m)`, or `None`.
        box: Bounds on every component, or `None`.
    """

    point: np.ndarray
    weight: np.ndarray
    C: np.ndarray | None = None
    d: np.ndarray | None = None
    G: np.ndarray | None = None
    h: np.ndarray | None = None
    box: tuple[float, float] | None = None

    def one_sided(self) -> tuple[np.ndarray, np.ndarray]:
        """All inequalities, those of the box among them, as `rows x <= bound`."""
        batch, n = self.point.shape
        if self.box is None:
            assert self.G is not None
            assert self.h is not None
            return self.G, self.h
        eye = np.eye(n)
        bound = np.concatenate([np.full(n, self.box[1]), np.full(n, -self.box[0])])
        return np.vstack([eye, -eye]), np.tile(bound, (batch, 1))

    def violation(self, x: np.ndarray) -> float:
        """Largest violated row, in row units."""
        rows, bound = self.one_sided()
        worst = max(0.0, float((_apply(rows, x) - bound).max()))
        if self.C is not None:
            worst = max(worst, float(np.abs(x @ self.C.T - self.d).max()))
        return worst


def _apply(rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    return x @ rows.T if rows.ndim == 2 else np.einsum("bmn,bn->bm", rows, x)


def _inequalities(rng: np.random.Generator, batch: int, shared: bool) -> Workload:
    """20 variables, 40 unit rows around a random inner point: about 11 rows active."""
    n, m = 20, 40
    G = rng.standard_normal((m, n) if shared else (batch, m, n))
    G /= np.linalg.norm(G, axis=-1, keepdims=True)
    inner = 0.3 * rng.standard_normal((batch, n))
    h = _apply(G, inner) + 0.1 + 0.5 * np.abs(rng.standard_normal((batch, m)))
    point = inner + 1.5 * rng.standard_normal((batch, n))
    return Workload(point, rng.standard_normal((batch, n)), G=G, h=h)


def _equalities_and_box(rng: np.random.Generator, batch: int) -> Workload:
    """100 variables between −1 and 1, 50 shared equality rows."""
    n, q = 100, 50
    C = rng.standard_normal((q, n)) / np.sqrt(n)
    inner = rng.uniform(-0.8, 0.8, (batch, n))
    d = inner @ C.T
    point = inner + rng.standard_normal((batch, n))
    return Workload(point, rng.standard_normal((batch, n)), C=C, d=d, box=(-1.0, 1.0))


def _dc3(rng: np.random.Generator, batch: int) -> Workload:
    """The data of DC3 and Pi-net (NumPy's legacy generator, seed 17; test rows from 8976 on)."""
    n, q, m, rows, first = 100, 50, 50, 10_000, 8976
    legacy = np.random.RandomState(17)
    legacy.random_sample(2 * n)  # their objective
    C = legacy.normal(0.0, 1.0, (q, n))
    right = legacy.uniform(-1.0, 1.0, (rows, q))
    G = legacy.normal(0.0, 1.0, (m, n))
    h = np.abs(G @ np.linalg.pinv(C)).sum(1)
    d = np.concatenate([right[first:], right[:first]])
    d = np.concatenate([d] * -(-batch // rows))[:batch]
    point = rng.standard_normal((batch, n))
    return Workload(point, rng.standard_normal((batch, n)), C=C, d=d, G=G, h=np.tile(h, (batch, 1)))


def workload(name: str, batch: int) -> Workload:
    """`w1s`, `w1b`, `w2` or `dc3`."""
    rng = np.random.default_rng(0)
    if name in ("w1s", "w1b"):
        return _inequalities(rng, batch, shared=name == "w1s")
    return {"w2": _equalities_and_box, "dc3": _dc3}[name](rng, batch)


NAMES = ("w1s", "w1b", "w2", "dc3")


def reference(work: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Projections and derivatives `dL/dpoint`, one at a time, by an algorithm that is not ours.

    Least-distance programming: the equalities are eliminated by their null space, the multipliers
    are those of a non-negative least-squares problem (Lawson and Hanson, chapter 23), and a QR of
    the active rows finishes.
    """
    rows, bound = work.one_sided()
    batch, n = work.point.shape
    Z = np.eye(n) if work.C is None else null_space(work.C)
    pinv = None if work.C is None else np.linalg.pinv(work.C)
    values, slopes = np.empty((batch, n)), np.empty((batch, n))
    for i in range(batch):
        G = rows if rows.ndim == 2 else rows[i]
        x0 = work.point[i]
        if work.C is not None and pinv is not None and work.d is not None:
            x0 = x0 - pinv @ (work.C @ x0 - work.d[i])
        GZ = G @ Z
        # min |z| with −GZ z >= G x0 − bound
        E = np.vstack([-GZ.T, (G @ x0 - bound[i])[None]])
        target = np.zeros(E.shape[0])
        target[-1] = 1.0
        active = nnls(E, target, maxiter=100 * E.shape[1])[0] > 0
        M, t = G[active], bound[i][active]
        if work.C is not None and work.d is not None:
            M, t = np.vstack([work.C, M]), np.concatenate([work.d[i], t])
        Q, R = np.linalg.qr(M.T)
        values[i] = work.point[i] - Q @ np.linalg.solve(R.T, M @ work.point[i] - t)
        slopes[i] = work.weight[i] - Q @ (Q.T @ work.weight[i])
    worst = work.violation(values)
    if worst > 1e-9:
        raise ArithmeticError(f"reference: expected feasible projections, got a violation of {worst:.1e}.")
    return values, slopes
