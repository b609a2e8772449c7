"""Second moments in space and in time."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def covariance_error(truth: Float[np.ndarray, "N n"], model: Float[np.ndarray, "M n"]) -> float:
    """`‖C_model − C_truth‖_F / ‖C_truth‖_F`, `C` the covariances of samples `(N, n)` and `(M, n)`.

    Through the smaller of covariances and Gram matrices: `tr(C₁ C₂) = ‖X₁ X₂ᵀ‖²_F/(N M)`.
    """
    if not np.isfinite(model).all():
        return float("inf")
    parts = [(x - x.mean(0, dtype=float)) / np.sqrt(len(x)) for x in (truth, model)]
    if truth.shape[1] <= max(len(truth), len(model)):
        a, b = (x.T @ x for x in parts)
        return float(np.linalg.norm(b - a) / np.linalg.norm(a))
    aa, ab, bb = (np.square(x @ y.T).sum() for x, y in ((parts[0],) * 2, parts, (parts[1],) * 2))
    return float(np.sqrt(max(aa - 2.0 * ab + bb, 0.0) / aa))


def autocorrelation_time(states: Float[np.ndarray, "runs T *grid"], interval: float) -> float:
    """Integral time `interval (½ + Σ_{l >= 1} ρ(l))` [s] of states `(runs, T, *grid)`, up to the first `ρ(l) <= 0`.

    `ρ` is the autocorrelation of fluctuations around the mean over time of each run and point, averaged over both with
    the weight of their variance; each lag is divided by the number of its pairs.
    """
    if not np.isfinite(states).all():
        return float("nan")
    runs, length = states.shape[:2]
    sums = np.zeros(length)
    for run in states.reshape(runs, length, -1):
        spectrum = np.fft.rfft(run - run.mean(0, dtype=float), 2 * length, axis=0)
        sums += np.fft.irfft((np.abs(spectrum) ** 2).sum(1))[:length]
    correlation = sums / np.arange(length, 0, -1)
    if correlation[0] <= 0.0:
        return float("inf")  # nothing moves
    correlation /= correlation[0]
    negative = np.flatnonzero(correlation <= 0.0)
    last = negative[0] if len(negative) else length
    return float(interval * (0.5 + correlation[1:last].sum()))
