"""Figures from results."""

from constrained_nn.plotting._intervals import plot_intervals
from constrained_nn.plotting._plans import plot_plans
from constrained_nn.plotting._style import COLORS, new_figure
from constrained_nn.plotting._trajectories import animate_trajectories, plot_trajectories

__all__ = [
    "COLORS",
    "animate_trajectories",
    "new_figure",
    "plot_intervals",
    "plot_plans",
    "plot_trajectories",
]
