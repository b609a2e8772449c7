"""Linear matrix inequalities."""

from constrained_nn.sets.lmi.inequality import LMI, LMIBlock

__all__ = ["LMI", "LMIBlock"]
