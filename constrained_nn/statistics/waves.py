"""The leading wave of a field whose law is the same everywhere: its principal components without sampling noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float


@dataclass(frozen=True, eq=False)
class LeadingWave:
    """First pair of principal components of the translates of a field along its first direction.

    If translates of a trajectory are trajectories too, the covariance of all of them commutes with translations:
    wavenumbers do not mix, and principal components come in pairs, a wave and the same a quarter turned. A finite
    sample has another plane each time, in which the radius varies by a tenth; the plane of the pair is the limit.

    Args:
        wavenumber: Periods along the first direction, 1 or more.
        profile: Unit vector over the other directions.

    Example:
        >>> import numpy as np
        >>> x = np.arange(16)
        >>> fields = np.stack([3.0 * np.cos(2 * np.pi * (2 * x - s) / 16) for s in range(5)])
        >>> wave = LeadingWave.of(fields)
        >>> wave.wavenumber, float(round(wave.radius(fields) / np.sqrt(8), 9))
        (2, 3.0)
    """

    wavenumber: int
    profile: np.ndarray

    @classmethod
    def of(cls, states: Float[np.ndarray, "N first *rest"]) -> LeadingWave:
        """The pair with the largest variance in states `(N, first, *rest)`."""
        best, found = -np.inf, cls(1, np.ones(1))
        for wavenumber in range(1, (states.shape[1] - 1) // 2 + 1):
            modes = _modes(states, wavenumber)
            variances, profiles = np.linalg.eigh(modes.T @ modes.conj() / len(modes))
            if variances[-1] > best:
                best, found = variances[-1], cls(wavenumber, profiles[:, -1])
        return found

    def amplitudes(self, states: Float[np.ndarray, "N first *rest"]) -> Float[np.ndarray, " N"]:
        """Distance of each state from the mean in the plane of the pair, in the norm of states; infinite for NaN."""
        size = np.abs(_modes(states, self.wavenumber) @ self.profile.conj())
        return np.where(np.isnan(size), np.inf, size)

    def radius(self, states: Float[np.ndarray, "N first *rest"]) -> float:
        """Median of `amplitudes`."""
        return float(np.median(self.amplitudes(states)))


def _modes(states: np.ndarray, wavenumber: int) -> Complex[np.ndarray, "N rest"]:
    """`√(2/n) ŵ(k, ·)`: with its conjugate, the share of wavenumber `k` in the norm."""
    n = states.shape[1]
    wave = np.sqrt(2.0 / n) * np.exp(-2j * np.pi * wavenumber * np.arange(n) / n)
    return np.einsum("x,nxr->nr", wave, states.reshape(len(states), n, -1), optimize=True)
