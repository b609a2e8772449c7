"""What produces a claim: recorded runs, fresh samples, and the file that `verify` checks."""

from constrained_nn.evidence._barrier import certify_barrier, save_barrier
from constrained_nn.evidence._certify import certify, write
from constrained_nn.evidence._energy import certify_evolution, save_evolution
from constrained_nn.evidence._falsify import (
    Worst,
    falsify,
    falsify_barrier,
    falsify_closed_loop,
    falsify_rows,
)
from constrained_nn.evidence._lmi import certify_decisions, load_decisions, save_decisions
from constrained_nn.evidence._loops import certify_loop, load_loop, save_loop
from constrained_nn.evidence._lyapunov import ClosedLoop, quadratic_value, suggest_level
from constrained_nn.evidence._model_decrease import certify_model, save_model
from constrained_nn.evidence._networks import trace_module
from constrained_nn.evidence._outputs import certify_outputs, save_network
from constrained_nn.evidence._record import record
from constrained_nn.evidence._replay import replay
from constrained_nn.evidence._sample import Sample, fresh_starts, sample
from constrained_nn.evidence._subject import Subject
from constrained_nn.evidence._trace import trace, trace_derivative, trace_step
from constrained_nn.evidence._true_system import TrueSystem, bound_true_system
from constrained_nn.evidence._true_system_sampled import sample_true_system

__all__ = [
    "ClosedLoop",
    "Sample",
    "Subject",
    "TrueSystem",
    "Worst",
    "bound_true_system",
    "certify",
    "certify_barrier",
    "certify_decisions",
    "certify_evolution",
    "certify_loop",
    "certify_model",
    "certify_outputs",
    "falsify",
    "falsify_barrier",
    "falsify_closed_loop",
    "falsify_rows",
    "fresh_starts",
    "load_decisions",
    "load_loop",
    "quadratic_value",
    "record",
    "replay",
    "sample",
    "sample_true_system",
    "save_barrier",
    "save_decisions",
    "save_evolution",
    "save_loop",
    "save_model",
    "save_network",
    "suggest_level",
    "trace",
    "trace_derivative",
    "trace_module",
    "trace_step",
    "write",
]
