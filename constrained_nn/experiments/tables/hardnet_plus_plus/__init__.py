"""Tables of HardNet++."""

from constrained_nn.experiments.tables.hardnet_plus_plus.planners import HORIZON, HardNetPlanner

__all__ = ["HORIZON", "HardNetPlanner"]
