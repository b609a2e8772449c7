"""The checker: stands alone, and derives everything from the file."""

from constrained_nn.verify._check import Finding, Outcome, check, check_claims, conclusion
from constrained_nn.verify._format import (
    MAX_BYTES,
    SCHEMA,
    VERSION,
    decode,
    decode_one,
    digest,
    encode,
    read,
)
from constrained_nn.verify._sampled import clopper_pearson

__all__ = [
    "MAX_BYTES",
    "SCHEMA",
    "VERSION",
    "Finding",
    "Outcome",
    "check",
    "check_claims",
    "clopper_pearson",
    "conclusion",
    "decode",
    "decode_one",
    "digest",
    "encode",
    "read",
]
