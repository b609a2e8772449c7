"""LMI-Net: projection onto linear matrix inequalities."""

from constrained_nn.layers.lmi.adjoints import KKT, FixedPoint, LMIAdjoint, Unrolled
from constrained_nn.layers.lmi.net import LMINet

__all__ = ["KKT", "FixedPoint", "LMIAdjoint", "LMINet", "Unrolled"]
