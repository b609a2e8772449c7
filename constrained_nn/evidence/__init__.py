"""What produces a claim: recorded runs, fresh samples, and the file that `verify` checks."""

from constrained_nn.evidence._certify import certify, replay, write
from constrained_nn.evidence._record import record
from constrained_nn.evidence._sample import Sample, fresh_starts, sample
from constrained_nn.evidence._subject import Subject

__all__ = ["Sample", "Subject", "certify", "fresh_starts", "record", "replay", "sample", "write"]
