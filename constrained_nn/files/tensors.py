"""Tensors with their metadata in files that are either whole or absent, and that say when they were changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from constrained_nn.errors import FileFormatError
from constrained_nn.files.writing import read_bytes, warn_without_digest, write_atomically

_ABOUT, _VALUES, _DIGEST = "__metadata__", "json", "sha256"
_LENGTH = 8  # bytes that hold the length of the header; see the safetensors format


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """One safetensors file with its JSON metadata and the digest of everything in it, whole or absent.

    Raises:
        OSError: The disk is full or the folder cannot be written; the old file is left as it was.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header, data = _split(save(plain, {_VALUES: json.dumps(metadata)}))
    header[_ABOUT][_DIGEST] = _digest(header, data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)  # the data begin at a multiple of 8 bytes
    write_atomically(path, len(text).to_bytes(_LENGTH, "little") + text + data)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file written by `write_tensors`.

    A file from before there were digests is read with a warning, because nothing in it can be verified.

    Raises:
        FileFormatError: The file is missing, truncated, changed after it was written, or of another kind.
    """
    try:
        content = read_bytes(path)
        header, data = _split(content)
        about = header[_ABOUT]
        if not {_VALUES} <= about.keys() <= {_VALUES, _DIGEST}:
            raise KeyError(_ABOUT)
        if _DIGEST not in about:
            warn_without_digest(path)
        elif about[_DIGEST] != _digest(header, data):
            raise ValueError("its digest does not match its content")
        return load(content), json.loads(about[_VALUES])
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file. Train the run, or go on with `--resume`.") from None
    except FileFormatError:
        raise
    except (
        SafetensorError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
        OSError,
    ) as error:
        raise FileFormatError(f"{path}: damaged or not a checkpoint of this toolkit ({error}).") from None


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    if end > len(content):
        raise ValueError("it is cut short")
    return json.loads(content[_LENGTH:end]), content[end:]


def _digest(header: Mapping[str, Any], data: bytes) -> str:
    """SHA-256 of the data and of a header without the digest."""
    about = {key: value for key, value in header[_ABOUT].items() if key != _DIGEST}
    body = json.dumps({**header, _ABOUT: about}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(body.encode() + data).hexdigest()
