"""`constrained-nn compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from constrained_nn.options import Threads, prepare_torch


def command(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs of one task.")],
    figure: Annotated[Path | None, typer.Option(help="Write a figure of all trajectories.")] = None,
    gif: Annotated[Path | None, typer.Option(help="Write an animation of all methods.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Write the table as LaTeX.")] = None,
    threads: Threads = 1,
) -> None:
    """Compare runs of one task on the same start states: a table, and figures if asked."""
    prepare_torch("cpu", threads)
    from constrained_nn.cli.shell import constraints_table, fail, metrics_cells, metrics_table
    from constrained_nn.files import write_atomically
    from constrained_nn.printing import latex_table
    from constrained_nn.training import (
        TEST_STARTS,
        describe_test_starts,
        draw_starts,
        evaluate,
        load_run,
    )

    loaded = {str(path): load_run(path) for path in runs}
    tasks = {run.task.name for run in loaded.values()}
    if len(tasks) > 1:
        fail(f"compare: expected runs of one task, got {', '.join(sorted(tasks))}.")
    found = {}
    for path, run in loaded.items():
        label = run.method.name if _unique(loaded, run.method.name) else Path(path).name
        starts = draw_starts(run.task, "test", TEST_STARTS)
        policy = run.controller.double()
        found[label] = evaluate(run.task, policy, starts, condition=run.safety.condition)
    results = {label: evaluation.metrics for label, evaluation in found.items()}
    task = next(iter(loaded.values())).task
    metrics_table(results, title=f"{task.name}: {describe_test_starts(task)}")
    constraints_table(task, found)
    if latex is not None:
        heads, rows = metrics_cells(results)
        lines = latex_table([head.replace("\n", " ") for head in heads], rows)
        text = "% Needs \\usepackage{booktabs}.\n" + "\n".join(lines) + "\n"
        typer.echo(f"wrote {write_atomically(latex, text)}")
    if figure is not None or gif is not None:
        from constrained_nn.plotting import animate_trajectories, plot_trajectories

        shown = {label: evaluation.trajectory for label, evaluation in found.items()}
        if figure is not None:
            typer.echo(f"wrote {plot_trajectories(figure, task, shown)}")
        if gif is not None:
            typer.echo(f"wrote {animate_trajectories(gif, task, shown)}")


def _unique(loaded: dict, method: str) -> bool:
    return sum(run.method.name == method for run in loaded.values()) == 1
