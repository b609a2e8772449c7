"""Files that are whole or absent and know their digest; and where numbers come from."""

from typing import TYPE_CHECKING, Any

from constrained_nn.files.provenance import commit, machine, versions
from constrained_nn.files.writing import (
    ordinary,
    read_text,
    read_values,
    write_atomically,
    write_json,
    write_values,
)

if TYPE_CHECKING:
    from constrained_nn.files.tensors import read_tensors, write_tensors

__all__ = [
    "commit",
    "machine",
    "ordinary",
    "read_tensors",
    "read_text",
    "read_values",
    "versions",
    "write_atomically",
    "write_json",
    "write_tensors",
    "write_values",
]


def __getattr__(name: str) -> Any:
    """Load torch only for those who write tensors (PEP 562)."""
    if name in ("read_tensors", "write_tensors"):
        from constrained_nn.files import tensors

        return getattr(tensors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
