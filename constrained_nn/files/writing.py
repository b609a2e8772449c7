"""Files that are either whole or absent, and JSON records that say when they were changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
import warnings
from pathlib import Path
from typing import Any

from constrained_nn.errors import FileFormatError

_DIGEST, _PREFIX = "digest", "sha256:"


def write_atomically(path: str | Path, content: str | bytes) -> Path:
    """Write to a temporary name beside `path`, then rename; an interrupted write leaves the old file as it was."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write `value` as indented JSON, atomically; NaN and infinities are refused (JSON has none)."""
    return write_atomically(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_bytes(path: str | Path) -> bytes:
    """The content of an ordinary file; a pipe or a device, which might never end, is refused unread.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is not an ordinary file.
        OSError: It cannot be read.
    """
    # a pipe that nobody writes to would block until somebody does
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise FileFormatError(f"{path}: expected an ordinary file, got a folder, a pipe or a device.")
        return file.read()


def ordinary(path: str | Path) -> Path:
    """`path`, for a library that opens it itself; anything but an ordinary file or a missing one is refused.

    Raises:
        FileFormatError: It is a folder, a pipe or a device.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise FileFormatError(f"{path}: expected an ordinary file, got a folder, a pipe or a device.")
    return path


def read_text(path: str | Path) -> str:
    """The text of an ordinary file, in UTF-8; see `read_bytes`.

    Raises:
        UnicodeDecodeError: It is not text.
    """
    return read_bytes(path).decode()


def write_values(path: str | Path, values: dict[str, Any]) -> Path:
    """Write a JSON object together with the digest of its values."""
    return write_json(path, {**values, _DIGEST: digest_of(values)})


def read_values(path: str | Path) -> dict[str, Any]:
    """The values of a file that `write_values` wrote, without the digest.

    A file from before there were digests is read with a warning, because nothing in it can be verified.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is no JSON object, or was changed after it was written.
        OSError: It cannot be read.
    """
    try:
        values = json.loads(read_text(path), parse_constant=_refuse_constant)
    except FileFormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: damaged, not valid JSON ({error}).") from None
    if not isinstance(values, dict):
        raise FileFormatError(f"{path}: damaged, expected a JSON object, got {type(values).__name__}.")
    stated = values.pop(_DIGEST, None)
    if stated is None:
        if any(isinstance(v, str) and v.startswith(_PREFIX) for v in values.values()):
            raise FileFormatError(f"{path}: damaged, it holds a digest under another name.")
        warn_without_digest(path)
    elif stated != digest_of(values):
        raise FileFormatError(f"{path}: damaged or edited, its digest does not match its values.")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which JSON has not")


def digest_of(values: Any) -> str:
    """SHA-256 of JSON values, whatever their layout in a file."""
    body = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return _PREFIX + hashlib.sha256(body.encode()).hexdigest()


def warn_without_digest(path: str | Path) -> None:
    """Say that a file cannot be verified; once for each file and place, as warnings are."""
    warnings.warn(
        f"{path} has no digest (it was written before there were any): damage to it would go unnoticed.",
        stacklevel=3,
    )
