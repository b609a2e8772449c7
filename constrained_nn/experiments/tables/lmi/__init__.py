"""Tables of LMI-Net."""

from constrained_nn.experiments.tables.lmi import problems
from constrained_nn.experiments.tables.lmi.lmi_hover import Hover

__all__ = ["Hover", "problems"]
