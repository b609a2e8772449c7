"""The truth's statistics, measured once; models are held against them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from constrained_nn.errors import ShapeError
from constrained_nn.statistics.correlation import autocorrelation_time, covariance_error
from constrained_nn.statistics.divergence import blow_up_times
from constrained_nn.statistics.histograms import Histogram, leading_plane
from constrained_nn.statistics.spectra import log_spectral_distance, spatial_spectrum, temporal_spectrum


@dataclass(frozen=True, eq=False)
class Reference:
    """Cells, plane and spectra of the truth; they fix every measure, whatever the model does.

    `compare(states)` gives the same numbers for any states: for a second stretch of the truth, as long as the model's,
    they are the noise floor, what a perfect model would score.

    Args:
        states: The truth `(runs, T, *grid)`.
        interval: Time between two states [s].
        values: Cells of the values at all points: 50 over the truth's range.
        mean, plane: Mean `(n,)` and first two principal directions `(2, n)`.
        components: Cells of the first two components: 20 × 20 over the truth's range, widened by a tenth.
        bound: Norm above which a state has blown up: ten times the truth's largest.
        segment: Samples of a segment of the temporal spectrum.

    Example:
        >>> import numpy as np
        >>> t, x = np.arange(400.0)[None, :, None], np.arange(16)
        >>> truth = Reference.of(np.cos(0.3 * t - 2 * np.pi * x / 16), interval=1.0)
        >>> found = truth.compare(np.cos(0.3 * t + 1.0 - 2 * np.pi * x / 16))
        >>> found["spatial_distance"] < 1e-9, found["values_outside"], found["blow_up_time"]
        (True, 0.0, inf)
    """

    states: np.ndarray
    interval: float
    values: Histogram
    mean: np.ndarray
    plane: np.ndarray
    components: Histogram
    bound: float
    segment: int

    @classmethod
    def of(
        cls, states: Float[np.ndarray, "runs T *grid"], interval: float, *, segment: int = 256
    ) -> Reference:
        """Measure the truth `(runs, T, *grid)`."""
        flat = states.reshape(-1, int(np.prod(states.shape[2:])))
        mean, plane = leading_plane(flat)
        return cls(
            states=states,
            interval=interval,
            values=Histogram.over(states.reshape(-1, 1), cells=50),
            mean=mean,
            plane=plane,
            components=Histogram.over((flat - mean) @ plane.T, cells=20, margin=0.1),
            bound=10.0 * float(np.linalg.norm(flat, axis=1).max()),
            segment=segment,
        )

    def project(self, states: Float[np.ndarray, "runs T *grid"]) -> Float[np.ndarray, "runs T 2"]:
        """First two principal components `(runs, T, 2)`."""
        return (states.reshape(*states.shape[:2], -1) - self.mean) @ self.plane.T

    def compare(self, states: Float[np.ndarray, "runs T *grid"]) -> dict[str, float]:
        """Measures of states `(runs, T, *grid)`, by name.

        `values_kl` and `components_kl` [nat] are the divergences from the truth of the values at all points and of the
        first two components, `values_outside` and `components_outside` the shares beyond their cells;
        `spatial_distance` and `temporal_distance` are log-spectral; `covariance_error` is relative, of at most 2,000
        states at equal intervals; `autocorrelation_time` [s] is that of the states, `autocorrelation_error` relative to
        the truth's; `ring_radius` is the median distance from the mean in the plane; `blow_up_time` [s] is the
        first of all runs. States that are not finite, or exceed `1e12`, have no plane and no spectrum: those measures
        are infinite.

        Raises:
            ShapeError: The states are not trajectories of two samples or more on the truth's grid.
        """
        if (
            states.ndim < 3
            or states.shape[2:] != self.states.shape[2:]
            or not states.shape[0]
            or states.shape[1] < 2
        ):
            grid = ", ".join(map(str, self.states.shape[2:]))
            raise ShapeError(
                f"Reference.compare: expected states of shape (runs, T, {grid}), got {states.shape}. One trajectory is "
                f"states[None]; another grid has other statistics."
            )
        runaway = not float(np.abs(states).max()) <= 1e12
        counts = self.values.count(states.reshape(-1, 1))
        points = np.full((*states.shape[:2], 2), np.inf) if runaway else self.project(states)
        places = self.components.count(points.reshape(-1, 2))
        measures = {
            "values_kl": self.values.divergence(self._value_counts, counts),
            "values_outside": float(counts[-1] / counts.sum()),
            "components_kl": self.components.divergence(self._component_counts, places),
            "components_outside": float(places[-1] / places.sum()),
        }
        truth, time = self.states, np.inf
        if runaway:
            rest = ("spatial_distance", "temporal_distance", "covariance_error", "ring_radius")
            measures |= dict.fromkeys(rest, float("inf"))
        else:
            segment = min(self.segment, truth.shape[1], states.shape[1])
            temporal = (temporal_spectrum(w, segment=segment) for w in (truth, states))
            time = autocorrelation_time(states, self.interval)
            measures |= {
                "spatial_distance": log_spectral_distance(self._spatial, spatial_spectrum(states)),
                "temporal_distance": log_spectral_distance(*temporal),
                "covariance_error": covariance_error(_thinned(truth), _thinned(states)),
                "ring_radius": float(np.median(np.linalg.norm(points, axis=-1))),
            }
        return measures | {
            "autocorrelation_time": time,
            "autocorrelation_error": abs(time / self._autocorrelation - 1.0),
            "blow_up_time": float(blow_up_times(states, bound=self.bound, interval=self.interval).min()),
        }

    @cached_property
    def _value_counts(self) -> np.ndarray:
        return self.values.count(self.states.reshape(-1, 1))

    @cached_property
    def _component_counts(self) -> np.ndarray:
        return self.components.count(self.project(self.states).reshape(-1, 2))

    @cached_property
    def _spatial(self) -> np.ndarray:
        return spatial_spectrum(self.states)

    @cached_property
    def _autocorrelation(self) -> float:
        return autocorrelation_time(self.states, self.interval)


def _thinned(states: np.ndarray, limit: int = 2000) -> np.ndarray:
    """At most `limit` states `(N, n)` at equal intervals."""
    flat = states.reshape(-1, int(np.prod(states.shape[2:])))
    return flat[:: -(-len(flat) // limit)]
