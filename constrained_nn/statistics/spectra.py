"""Power in space and in time."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def spatial_spectrum(states: Float[np.ndarray, "runs T *grid"]) -> Float[np.ndarray, " bins"]:
    """Mean power by wavenumber `j = 0, 1, ..., points // 2` of states `(runs, T, *grid)`, grids of equal sides.

    `P(j) = Σ_{j − ½ <= |k| < j + ½} mean |ŵ(k)|²`, `ŵ` the Fourier coefficients (so that the sum over all wavenumbers
    is the mean square of `w`), `|k|` the Euclidean norm of the integer wavenumbers. In two dimensions the corners
    beyond `points // 2` are left out.
    """
    grid = states.shape[2:]
    axes = tuple(range(1, 1 + len(grid)))
    half = grid[-1] // 2 + 1
    k = np.meshgrid(*(np.fft.fftfreq(n, 1.0 / n) for n in grid[:-1]), np.arange(half), indexing="ij")
    shell = np.floor(np.sqrt(sum(np.square(component) for component in k)) + 0.5).astype(int)
    weight = np.where((k[-1] == 0) | (2 * k[-1] == grid[-1]), 1.0, 2.0)  # the other half of a real spectrum
    power = np.zeros(shell.shape)
    for run in states:
        power += (np.abs(np.fft.rfftn(run, axes=axes)) ** 2).mean(0, dtype=float)
    power *= weight / (len(states) * float(np.prod(grid)) ** 2)
    return np.bincount(shell.ravel(), power.ravel())[: grid[0] // 2 + 1]


def temporal_spectrum(
    states: Float[np.ndarray, "runs T *grid"], *, segment: int = 256
) -> Float[np.ndarray, " bins"]:
    """Mean power by frequency `1/segment, 2/segment, ..., ½` (cycles a sample) of states `(runs, T, *grid)`.

    Welch's estimate: segments that overlap by half, each without its mean and under a Hann window, averaged over
    segments, runs and points of the grid. A run shorter than `segment` is one segment of its own length.
    """
    runs, length = states.shape[:2]
    segment = min(segment, length)
    window = np.hanning(segment + 1)[:-1, None]
    power, count = np.zeros(segment // 2), 0
    for run in states.reshape(runs, length, -1):
        for first in range(0, length - segment + 1, max(segment // 2, 1)):
            part = run[first : first + segment]
            part = (part - part.mean(0)) * window
            power += (np.abs(np.fft.rfft(part, axis=0)[1 : segment // 2 + 1]) ** 2).mean(1, dtype=float)
            count += 1
    return power / (count * (window**2).sum())


def log_spectral_distance(
    truth: Float[np.ndarray, " bins"], model: Float[np.ndarray, " bins"], *, floor: float = 1e-8
) -> float:
    """Mean of `(log₁₀ P_truth − log₁₀ P_model)²` over the entries where the truth has `floor` of its largest power.

    Below the floor a spectrum is rounding, dealiasing or the precision in which states were stored. Power of the model
    counts as no less than `1e-20` of the truth's largest; a model that is not finite is infinitely far.
    """
    if not np.isfinite(model).all():
        return float("inf")
    used = truth >= floor * truth.max()
    ratio = np.log10(truth[used]) - np.log10(np.maximum(model[used], 1e-20 * truth.max()))
    return float((ratio**2).mean())
