"""Closed-loop runs as evidence: recorded, sampled, repeated, and written into a certificate."""

from constrained_nn.evidence.runs.certificate import certify, write
from constrained_nn.evidence.runs.recording import record
from constrained_nn.evidence.runs.repetition import replay
from constrained_nn.evidence.runs.samples import Sample, fresh_starts, sample
from constrained_nn.evidence.runs.subject import Subject, allow_least_violation, relative_excess

__all__ = [
    "Sample",
    "Subject",
    "allow_least_violation",
    "certify",
    "fresh_starts",
    "record",
    "relative_excess",
    "replay",
    "sample",
    "write",
]
