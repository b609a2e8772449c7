"""Tensors with their metadata in files that are either whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from constrained_nn._files import write_atomically
from constrained_nn.errors import FileFormatError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """One safetensors file with its JSON metadata, whole or absent.

    Raises:
        OSError: The disk is full or the folder cannot be written; the old file is left as it was.
    """
    data = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        {"json": json.dumps(metadata)},
    )
    write_atomically(path, data)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file written by `write_tensors`.

    Raises:
        FileFormatError: The file is missing, truncated, or of another kind.
    """
    if not path.exists():
        raise FileFormatError(f"{path}: no such file. Train the run, or go on with `--resume`.")
    try:
        with safe_open(path, framework="pt") as file:  # pyright: ignore[reportArgumentType]
            metadata = json.loads((file.metadata() or {})["json"])
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise FileFormatError(f"{path}: damaged or not a checkpoint of this toolkit ({error}).") from None
