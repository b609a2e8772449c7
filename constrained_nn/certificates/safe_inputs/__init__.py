"""Safe inputs of any task: rows of its named constraints, and the limits of its inputs."""

from constrained_nn.certificates.safe_inputs.compromise import relax_in_order
from constrained_nn.certificates.safe_inputs.degree import DegreeError, Judgement, judge
from constrained_nn.certificates.safe_inputs.limited import limit_rows
from constrained_nn.certificates.safe_inputs.requirement import MOST_CORNERS, Requirement, SafeInputs

__all__ = [
    "MOST_CORNERS",
    "DegreeError",
    "Judgement",
    "Requirement",
    "SafeInputs",
    "judge",
    "limit_rows",
    "relax_in_order",
]
