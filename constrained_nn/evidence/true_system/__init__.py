"""What a learned Lyapunov function proves of the plant itself."""

from constrained_nn.evidence.true_system.bound import TrueSystem, bound_true_system
from constrained_nn.evidence.true_system.sampled import sample_true_system

__all__ = ["TrueSystem", "bound_true_system", "sample_true_system"]
