"""The measures of the ECO paper as its code defines them, for comparison with its table.

Each has a flaw that the measures of this room do not have; it is named in its docstring.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from constrained_nn.statistics.histograms import kl_divergence, leading_plane


def published_physical_kl(truth: Float[np.ndarray, "T ..."], model: Float[np.ndarray, "M ..."]) -> float:
    """`D_KL(truth ‖ model)` of all values, in 50 bins over the joint range, probabilities clipped at 1e-10.

    The flaw: a model that blows up stretches the range until everything shares one bin, and scores well.
    Values that are not finite are left out; a model that has no others is infinitely far.
    """
    truth, model = (np.ravel(x).astype(float) for x in (truth, model))
    model = model[np.isfinite(model)]
    if not len(model):
        return float("inf")
    edges = np.linspace(min(truth.min(), model.min()), max(truth.max(), model.max()), 51)
    p, q = (np.clip(np.histogram(x, edges)[0] / len(x), 1e-10, None) for x in (truth, model))
    return kl_divergence(p, q)


def published_pca_kl(
    truth: Float[np.ndarray, "T n"], model: Float[np.ndarray, "M n"], *, half_width: float
) -> float:
    """`D_KL` on the truth's first two principal components: 50 × 50 bins on `[−half_width, half_width]²`, 1e-9 added.

    The flaws: points outside of the box are left out; 2,000 points on 2,500 bins give 0.9 to 2.6 between two
    trajectories of the truth itself.

    Args:
        truth, model: States `(T, n)`.
        half_width: 50 for the Kuramoto-Sivashinsky equation, 200 for the flow at Reynolds number 40.
    """
    mean, plane = leading_plane(truth)
    edges = np.linspace(-half_width, half_width, 51)
    p, q = (_shares((x[np.isfinite(x).all(1)] - mean) @ plane.T, edges) + 1e-9 for x in (truth, model))
    return kl_divergence(p, q)


def _shares(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts = np.histogram2d(points[:, 0], points[:, 1], [edges, edges])[0]
    return counts / max(counts.sum(), 1.0)


def published_log_spectral_distance(
    truth: Float[np.ndarray, "T ..."], model: Float[np.ndarray, "M ..."]
) -> float:
    """Mean of `(log₁₀ P_truth − log₁₀ P_model)²` over all entries of the spectrum.

    For states `(T, n)` the transform runs along time, and the power is averaged over space; for states `(T, n, n)`
    it runs over space, and the power is averaged over time and over shells of integer wavenumber below `n/2`.
    The flaw: entries that hold nothing but rounding count as much as all others. `1e-20` is added to the power.
    """
    p, q = (_spectrum(np.asarray(x, dtype=float)) for x in (truth, model))
    if not np.isfinite(q).all():
        return float("inf")
    return float(((np.log10(p + 1e-20) - np.log10(q + 1e-20)) ** 2).mean())


def _spectrum(states: np.ndarray) -> np.ndarray:
    if states.ndim == 2:
        return (np.abs(np.fft.rfft(states, axis=0)) ** 2).mean(1)
    n = states.shape[-1]
    power = (np.abs(np.fft.fft2(states)) ** 2).mean(0)
    k = np.fft.fftfreq(n, 1.0 / n)
    shell = np.sqrt(k[:, None] ** 2 + k**2).astype(int)
    return (np.bincount(shell.ravel(), power.ravel()) / np.bincount(shell.ravel()))[: n // 2]
