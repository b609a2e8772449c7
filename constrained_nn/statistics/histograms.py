"""Histograms on cells that the truth fixes, with a cell for all that lies outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class Histogram:
    """Equal cells over a box, and one more cell for everything outside of it, NaN and infinities included.

    `D_KL(P ‖ Q) = Σ_c P(c) log(P(c)/Q(c))`, with `P(c) = n_c/N` of the truth and `Q(c) = (m_c + ½)/(M + ½ C)` of the
    model over all `C` cells: half a count a cell keeps the sum finite, and its size falls with the number of samples
    instead of being a constant to choose.

    Args:
        edges: Edges of the cells of each coordinate, `(cells + 1,)` each.

    Example:
        >>> import numpy as np
        >>> cells = Histogram.over(np.linspace(0.0, 1.0, 1000)[:, None], cells=4)
        >>> cells.count(np.array([[0.1], [0.9], [2.0], [np.nan]]))
        array([1, 0, 0, 1, 2])
    """

    edges: Sequence[np.ndarray]

    @classmethod
    def over(cls, points: Float[np.ndarray, "N d"], *, cells: int, margin: float = 0.0) -> Histogram:
        """Cells over the range of points `(N, d)`, widened on both sides by `margin` times its width."""
        low, high = points.min(0).astype(float), points.max(0).astype(float)
        reach = margin * (high - low)
        return cls([np.linspace(a, b, cells + 1) for a, b in zip(low - reach, high + reach, strict=True)])

    def count(self, points: Float[np.ndarray, "N d"]) -> Int[np.ndarray, " c"]:
        """Points `(N, d)` by cell, `(cells^d + 1,)`; the last entry counts those outside."""
        inside = np.isfinite(points).all(-1)
        if len(self.edges) == 1:
            counts = np.histogram(points[inside, 0], self.edges[0])[0]
        else:
            counts = np.histogramdd(points[inside], self.edges)[0].astype(int).ravel()
        return np.append(counts, len(points) - counts.sum())

    def divergence(self, truth: Int[np.ndarray, " c"], model: Int[np.ndarray, " c"]) -> float:
        """`D_KL` [nat] from counts of the truth to counts of the model."""
        q = (model + 0.5) / (model + 0.5).sum()
        return kl_divergence(truth / truth.sum(), q)


def kl_divergence(p: Float[np.ndarray, "*cells"], q: Float[np.ndarray, "*cells"]) -> float:
    """`Σ p log(p/q)` [nat] of two distributions on the same cells; infinite where `p` has mass and `q` none."""
    p, q = np.ravel(p), np.ravel(q)
    some = p > 0
    if (q[some] <= 0).any():
        return float("inf")
    return float((p[some] * np.log(p[some] / q[some])).sum())


def leading_plane(states: Float[np.ndarray, "N n"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean `(n,)` and first two principal directions `(2, n)` of samples `(N, n)`; their largest entry is positive."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    mean = states.mean(0, dtype=float)
    centered = (states - mean) / np.sqrt(len(states))
    n = len(mean)
    if n <= 64:
        directions = np.linalg.eigh(centered.T @ centered)[1][:, :-3:-1].T
    else:
        start = np.random.default_rng(0).standard_normal(n)  # the same plane in every run
        covariance = LinearOperator((n, n), matvec=lambda v: centered.T @ (centered @ v), dtype=float)  # pyright: ignore[reportCallIssue]
        values, vectors = eigsh(covariance, k=2, v0=start)
        directions = vectors[:, np.argsort(-values)].T
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    return mean, directions * np.sign(largest)
