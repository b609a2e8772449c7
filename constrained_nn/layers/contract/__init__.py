"""What every layer promises: one base class, its audit, quarantine, rounding and failure policies."""

from constrained_nn.layers.contract.audit import RTOL, Absolute, Relative, Verdict, widen
from constrained_nn.layers.contract.base import AtOnce, ProjectionLayer
from constrained_nn.layers.contract.policies import FailurePolicy, LeastViolation, Nan, Raise
from constrained_nn.layers.contract.quarantine import detached, same_dtype
from constrained_nn.layers.contract.tracers import refuse_transforms

__all__ = [
    "RTOL",
    "Absolute",
    "AtOnce",
    "FailurePolicy",
    "LeastViolation",
    "Nan",
    "ProjectionLayer",
    "Raise",
    "Relative",
    "Verdict",
    "detached",
    "refuse_transforms",
    "same_dtype",
    "widen",
]
