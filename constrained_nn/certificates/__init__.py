"""Certificate functions: state -> constraint set."""

from constrained_nn.certificates._barrier import ControlBarrier

__all__ = ["ControlBarrier"]
