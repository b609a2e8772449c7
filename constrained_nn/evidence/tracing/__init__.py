"""Straight-line programs: plants, integrators, networks and layers as the checker reads them."""

from constrained_nn.evidence.tracing.builder import Builder, Number, program_of
from constrained_nn.evidence.tracing.execution import POINTWISE, evaluate
from constrained_nn.evidence.tracing.networks import (
    emit_module,
    trace_closed_loop,
    trace_module,
    trace_quadratic,
)
from constrained_nn.evidence.tracing.plants import trace, trace_derivative, trace_step

__all__ = [
    "POINTWISE",
    "Builder",
    "Number",
    "emit_module",
    "evaluate",
    "program_of",
    "trace",
    "trace_closed_loop",
    "trace_derivative",
    "trace_module",
    "trace_quadratic",
    "trace_step",
]
