"""Figures and animations of motions."""

from constrained_nn.plotting.motion.flights import animate_flights, plot_flights
from constrained_nn.plotting.motion.plans import plot_plans
from constrained_nn.plotting.motion.portraits import Portrait, plot_portraits
from constrained_nn.plotting.motion.trajectories import animate_trajectories, plot_trajectories

__all__ = [
    "Portrait",
    "animate_flights",
    "animate_trajectories",
    "plot_flights",
    "plot_plans",
    "plot_portraits",
    "plot_trajectories",
]
