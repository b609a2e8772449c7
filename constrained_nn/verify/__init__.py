"""The checker: stands alone, and derives everything from the file."""

from constrained_nn.verify.checker import Finding, Outcome, check, check_claims, conclusion, describe
from constrained_nn.verify.claim import ClaimModule
from constrained_nn.verify.claims import clopper_pearson
from constrained_nn.verify.cover import MOST_DEPTH, leaves, middle, replace_at
from constrained_nn.verify.file import MAX_BYTES, SCHEMA, VERSION, decode, decode_one, digest, encode, read
from constrained_nn.verify.limits import NoVerdict, limit_memory, run_limited, unlimit_memory

__all__ = [
    "MAX_BYTES",
    "MOST_DEPTH",
    "SCHEMA",
    "VERSION",
    "ClaimModule",
    "Finding",
    "NoVerdict",
    "Outcome",
    "check",
    "check_claims",
    "clopper_pearson",
    "conclusion",
    "decode",
    "decode_one",
    "describe",
    "digest",
    "encode",
    "leaves",
    "limit_memory",
    "middle",
    "read",
    "replace_at",
    "run_limited",
    "unlimit_memory",
]
