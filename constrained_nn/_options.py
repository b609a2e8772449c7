"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="Device of the computation: cpu, cuda, cuda:1, ...")]
Threads = Annotated[int, typer.Option(min=1, help="Torch threads; 1 is fastest for small batched work.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print results only.")]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a run, made by `constrained-nn train`.")]


def prepare_torch(device: str, threads: int) -> None:
    """Set the threads and check the device; a bad one ends the command."""
    import torch

    torch.set_num_threads(threads)
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"--device: expected a device of this machine, got '{device}' ({reason}). Use cpu."
        ) from None
