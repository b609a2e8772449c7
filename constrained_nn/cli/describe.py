"""`constrained-nn describe`: what a task is, and what can be guaranteed about it."""

from __future__ import annotations

from typing import Annotated

import typer

from constrained_nn.options import Threads, prepare_torch


def command(
    task: Annotated[
        str, typer.Argument(help="Task: a name (see `list tasks`), my_robot.py:MyTask or module:MyTask.")
    ],
    threads: Threads = 1,
) -> None:
    """Show plant, units, limits and constraints of a task, and what enforcing them guarantees.

    Nothing is trained. Constraints that cannot be enforced are named, with the remedy.
    """
    prepare_torch("cpu", threads)
    from constrained_nn.training import describe, find_task

    typer.echo(describe(find_task(task)))
