"""Controllers."""

from constrained_nn.control._base import Controller, FunctionController, ResidualController
from constrained_nn.control._safety_filter import SafetyFilter

__all__ = ["Controller", "FunctionController", "ResidualController", "SafetyFilter"]
