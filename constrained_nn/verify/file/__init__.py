"""The certificate file."""

from constrained_nn.verify.file.format import (
    MAX_BYTES,
    SCHEMA,
    VERSION,
    decode,
    decode_one,
    digest,
    encode,
    integer,
    mapping,
    named,
    read,
    sequence,
    spelled,
    text,
    title,
)

__all__ = [
    "MAX_BYTES",
    "SCHEMA",
    "VERSION",
    "decode",
    "decode_one",
    "digest",
    "encode",
    "integer",
    "mapping",
    "named",
    "read",
    "sequence",
    "spelled",
    "text",
    "title",
]
