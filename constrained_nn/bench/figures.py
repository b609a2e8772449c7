"""What every benchmark keeps of its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Out = Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")]
Repeats = Annotated[int, typer.Option(min=1, help="Repetitions; the least time counts.")]


def with_origin(benchmark: str, **figures: Any) -> dict[str, Any]:
    """Figures with commit, versions and machine."""
    from constrained_nn.files import commit, machine, versions

    origin = {"commit": commit(), "versions": versions(), "machine": machine()}
    return {"benchmark": benchmark, **figures, **origin}


def write_figures(out: Path | None, record: dict[str, Any]) -> None:
    """Write a record, where a file was asked for."""
    from constrained_nn.files import write_json

    if out is not None:
        typer.echo(f"wrote {write_json(out, record)}")
