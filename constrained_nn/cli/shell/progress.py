"""Progress of long work: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import typer

Update = Callable[[str, int, dict[str, float]], None]


@contextmanager
def training_progress(steps: Mapping[str, int], *, quiet: bool) -> Iterator[Update]:
    """A function `(name, step, record)` that shows where each of the named runs stands.

    Args:
        steps: Number of steps of every run.
        quiet: Show nothing.
    """
    if quiet:
        yield lambda name, step, record: None
    elif not sys.stderr.isatty():

        def line(name: str, step: int, record: dict[str, float]) -> None:
            if record:
                typer.echo(f"{_label(name, record)} (step {step} of {steps[name]})", err=True)

        yield line
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bars:
            tasks = {name: bars.add_task(name, total=total) for name, total in steps.items()}

            def update(name: str, step: int, record: dict[str, float]) -> None:
                if record:
                    bars.update(tasks[name], completed=step, description=_label(name, record))
                else:
                    bars.update(tasks[name], completed=step)

            yield update


@contextmanager
def cover_progress() -> Iterator[Callable[[float, int, int], None]]:
    """A function `(share, boxes, open)` that shows how much is settled, if there is a terminal."""
    if not sys.stderr.isatty():
        yield lambda share, boxes, open: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("boxes", total=1.0)
        yield lambda share, boxes, open: bars.update(
            task, completed=share, description=f"{boxes} boxes, {open} open"
        )


def _label(name: str, record: dict[str, float]) -> str:
    cost = record.get("validation_cost", float("nan"))
    collisions = record.get("validation_collisions", float("nan"))
    return f"{name}: validation cost {cost:.1f}, {collisions:.0f} collisions"
