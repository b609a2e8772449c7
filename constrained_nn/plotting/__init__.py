"""Figures from results."""

from constrained_nn.plotting.certificates import draw_cover, draw_histogram, draw_paths
from constrained_nn.plotting.chaos import (
    ellipse,
    plot_attractor,
    plot_snapshots,
    plot_space_time,
    plot_spectra,
)
from constrained_nn.plotting.covers import plot_cover
from constrained_nn.plotting.curves import plot_curves
from constrained_nn.plotting.errors import plot_errors
from constrained_nn.plotting.intervals import plot_intervals
from constrained_nn.plotting.motion import (
    Portrait,
    animate_flights,
    animate_trajectories,
    plot_flights,
    plot_plans,
    plot_portraits,
    plot_trajectories,
)
from constrained_nn.plotting.style import COLORS, new_figure

__all__ = [
    "COLORS",
    "Portrait",
    "animate_flights",
    "animate_trajectories",
    "draw_cover",
    "draw_histogram",
    "draw_paths",
    "ellipse",
    "new_figure",
    "plot_attractor",
    "plot_cover",
    "plot_curves",
    "plot_errors",
    "plot_flights",
    "plot_intervals",
    "plot_plans",
    "plot_portraits",
    "plot_snapshots",
    "plot_space_time",
    "plot_spectra",
    "plot_trajectories",
]
