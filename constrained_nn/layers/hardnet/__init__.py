"""HardNet-Aff and HardNet++, and the rows that they work on."""

from constrained_nn.layers.hardnet.adjoints import Adjoint, Implicit, Retraced, Taped
from constrained_nn.layers.hardnet.affine import HardNetAffine
from constrained_nn.layers.hardnet.metrics import Euclidean, Metric, Parallel
from constrained_nn.layers.hardnet.plus_plus import HardNetPlusPlus
from constrained_nn.layers.hardnet.smooth_rows import SetRows, flat_rows, widen

__all__ = [
    "Adjoint",
    "Euclidean",
    "HardNetAffine",
    "HardNetPlusPlus",
    "Implicit",
    "Metric",
    "Parallel",
    "Retraced",
    "SetRows",
    "Taped",
    "flat_rows",
    "widen",
]
