"""Sets of smooth rows."""

from constrained_nn.sets.nonlinear.intervals import NonlinearSet
from constrained_nn.sets.nonlinear.smooth import SmoothFunction, SmoothMap, StageJacobian, TrajectoryMap

__all__ = ["NonlinearSet", "SmoothFunction", "SmoothMap", "StageJacobian", "TrajectoryMap"]
