"""What produces a claim: recorded runs, fresh samples, and the file that `verify` checks."""

from constrained_nn.evidence._certify import certify, write
from constrained_nn.evidence._energy import certify_evolution, save_evolution
from constrained_nn.evidence._lmi import certify_decisions, load_decisions, save_decisions
from constrained_nn.evidence._record import record
from constrained_nn.evidence._replay import replay
from constrained_nn.evidence._sample import Sample, fresh_starts, sample
from constrained_nn.evidence._subject import Subject
from constrained_nn.evidence._true_system import TrueSystem, bound_true_system, sample_true_system

__all__ = [
    "Sample",
    "Subject",
    "TrueSystem",
    "bound_true_system",
    "certify",
    "certify_decisions",
    "certify_evolution",
    "fresh_starts",
    "load_decisions",
    "record",
    "replay",
    "sample",
    "sample_true_system",
    "save_decisions",
    "save_evolution",
    "write",
]
