"""The certificate file."""

from constrained_nn.verify.file.format import (
    MAX_BYTES,
    SCHEMA,
    VERSION,
    check_names,
    decode,
    decode_one,
    digest,
    encode,
    integer,
    mapping,
    read,
    sequence,
    spell,
    text,
    title,
)

__all__ = [
    "MAX_BYTES",
    "SCHEMA",
    "VERSION",
    "check_names",
    "decode",
    "decode_one",
    "digest",
    "encode",
    "integer",
    "mapping",
    "read",
    "sequence",
    "spell",
    "text",
    "title",
]
