"""Random start states of flows."""

from __future__ import annotations

import numpy as np


def gaussian_field(
    rng: np.random.Generator,
    count: int,
    shape: tuple[int, ...],
    lengths: tuple[float, ...],
    correlation_length: float,
    standard_deviation: float,
) -> np.ndarray:
    """Periodic Gaussian random fields `(count, *shape)` of mean zero over the grid.

    Covariance `σ² exp(−π/4 (r/ℓ)²)` of a distance `r` much smaller than the period: white noise is filtered by
    the square root of its Fourier transform, `exp(−(|k| ℓ)²/(2π))`, and scaled to the variance `σ²`.

    Args:
        rng: Generator of the noise.
        count: Number of fields.
        shape: Points in each direction.
        lengths: Period in each direction.
        correlation_length: `ℓ`, the integral scale, in the unit of `lengths`.
        standard_deviation: `σ`.
    """
    axes = tuple(range(1, len(shape) + 1))
    k = np.meshgrid(
        *(2.0 * np.pi * np.fft.fftfreq(n, length / n) for n, length in zip(shape, lengths, strict=True)),
        indexing="ij",
    )
    amplitude = np.exp(-sum(component**2 for component in k) * correlation_length**2 / (2.0 * np.pi))
    amplitude.flat[0] = 0.0
    amplitude *= standard_deviation / np.sqrt((amplitude**2).mean())
    noise = rng.standard_normal((count, *shape))
    return np.fft.ifftn(amplitude * np.fft.fftn(noise, axes=axes), axes=axes).real
