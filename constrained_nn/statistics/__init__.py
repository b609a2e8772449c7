"""Long-run statistics of trajectories, and how far those of a model lie from the truth's."""

from constrained_nn.statistics.correlation import autocorrelation_time, covariance_error
from constrained_nn.statistics.divergence import blow_up_times, largest_lyapunov_exponent
from constrained_nn.statistics.histograms import Histogram, kl_divergence, leading_plane
from constrained_nn.statistics.published import (
    published_log_spectral_distance,
    published_pca_kl,
    published_physical_kl,
)
from constrained_nn.statistics.reference import Reference
from constrained_nn.statistics.spectra import log_spectral_distance, spatial_spectrum, temporal_spectrum
from constrained_nn.statistics.waves import LeadingWave

__all__ = [
    "Histogram",
    "LeadingWave",
    "Reference",
    "autocorrelation_time",
    "blow_up_times",
    "covariance_error",
    "kl_divergence",
    "largest_lyapunov_exponent",
    "leading_plane",
    "log_spectral_distance",
    "published_log_spectral_distance",
    "published_pca_kl",
    "published_physical_kl",
    "spatial_spectrum",
    "temporal_spectrum",
]
