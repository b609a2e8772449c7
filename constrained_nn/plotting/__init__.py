"""Figures from results."""

from constrained_nn.plotting._certificates import draw_cover, draw_histogram, draw_paths
from constrained_nn.plotting._chaos import (
    ellipse,
    plot_attractor,
    plot_snapshots,
    plot_space_time,
    plot_spectra,
)
from constrained_nn.plotting._covers import plot_cover
from constrained_nn.plotting._curves import plot_curves
from constrained_nn.plotting._errors import plot_errors
from constrained_nn.plotting._flights import animate_flights, plot_flights
from constrained_nn.plotting._intervals import plot_intervals
from constrained_nn.plotting._plans import plot_plans
from constrained_nn.plotting._portraits import Portrait, plot_portraits
from constrained_nn.plotting._style import COLORS, new_figure
from constrained_nn.plotting._trajectories import animate_trajectories, plot_trajectories

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
