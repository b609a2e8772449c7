"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from constrained_nn.settings import MOST_SEED, MOST_WORKERS

Device = Annotated[str, typer.Option(help="Device of the computation: cpu, cuda, cuda:1, ...")]
Threads = Annotated[
    int, typer.Option(min=1, max=MOST_WORKERS, help="Torch threads; 1 is fastest for small batched work.")
]
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of everything that is drawn.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print results only.")]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a run, made by `constrained-nn train`.")]


def prepare_torch(device: str, threads: int) -> None:
    """Set the threads and check the device; a bad one ends the command."""
    import torch

    torch.set_num_threads(threads)
    try:
        torch.zeros(1, device=device).item()  # a device such as meta makes tensors, but holds no numbers
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"--device: expected a device of this machine, got '{device}' ({reason}). Use cpu."
        ) from None
