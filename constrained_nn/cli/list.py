"""`constrained-nn list`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from constrained_nn.cli.shell import fail

KINDS = ("tasks", "methods", "experiments", "benchmarks")


def command(
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(KINDS)}. Default: all.")] = None,
) -> None:
    """List tasks, methods, experiments and benchmarks, each with one line on what it is."""
    if kind is not None and kind not in KINDS:
        fail(f"list: expected one of {', '.join(KINDS)}, got '{kind}'.")
    for each in KINDS if kind is None else (kind,):
        typer.echo(f"{each}:")
        for name, summary in _entries(each):
            typer.echo(f"  {name:24s} {summary}".rstrip())


def _entries(kind: str) -> list[tuple[str, str]]:
    if kind == "tasks":
        from control_envs.tasks import TASKS

        return [(name, task.summary) for name, task in TASKS.items()]
    if kind == "methods":
        from constrained_nn.training import METHODS

        return [(name, method.summary) for name, method in METHODS.items()]
    if kind == "experiments":
        from constrained_nn.experiments import available, load

        return [(name, load(name).title) for name in available()]
    from constrained_nn.cli import BENCHES

    return [(name, "constrained-nn bench " + name) for name in BENCHES]
