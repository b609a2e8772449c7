"""`constrained-nn simulate`: run a trained controller in closed loop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from constrained_nn.cli.shell import fail, refuse_options
from constrained_nn.options import Device, RunFolder, Seed, Threads, prepare_torch


def command(
    context: typer.Context,
    run: RunFolder,
    starts: Annotated[
        str, typer.Option(help="test: those of `train` (published where there are some); fresh: new ones.")
    ] = "test",
    start: Annotated[
        str | None,
        typer.Option(
            help="One start state (for a barrier also a proposal): decimals or hexadecimal floats, "
            "with spaces between them."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of fresh start states.")] = 100,
    seed: Seed = 0,
    figure: Annotated[
        Path | None, typer.Option(help="Write a figure of the trajectories (.png, .pdf).")
    ] = None,
    gif: Annotated[Path | None, typer.Option(help="Write an animation (.gif).")] = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Simulate a run's controller in float64 and print what it cost and whether it was safe.

    In a folder with a `loop.json`, `barrier.json` or `network.json` it repeats the counterexample
    of `certify`.
    """
    record = _record_to_repeat(run)
    if record is not None:
        unused = ("starts", "count", "seed", "figure", "gif", "device")
        refuse_options(context, unused, f"has no effect on {record.name}")
        prepare_torch("cpu", threads)
        _repeat(record, start)
        return
    if starts not in ("test", "fresh"):
        fail(f"--starts: expected test or fresh, got '{starts}'.")
    if start is not None:
        refuse_options(context, ("starts", "count", "seed"), "has no effect beside --start")
    elif starts == "test":
        refuse_options(context, ("count", "seed"), "has no effect with --starts test")
    prepare_torch(device, threads)
    import numpy as np
    import torch

    from constrained_nn.cli.shell import constraints_table, metrics_table
    from constrained_nn.training import TEST_STARTS, draw_starts, evaluate, load_run

    loaded = load_run(run, device=device)
    if start is not None:
        x0, starts = np.array([_state(start, loaded.task)]), "given"
    elif starts == "test":
        x0 = draw_starts(loaded.task, "test", TEST_STARTS)
    else:
        x0 = draw_starts(loaded.task, "fresh", count, seed=seed)
    x0 = torch.as_tensor(x0, device=device)
    evaluation = evaluate(loaded.task, loaded.controller.double(), x0, condition=loaded.safety.condition)
    title = f"{len(x0)} {starts} start states"
    metrics_table({loaded.method.name: evaluation.metrics}, title=title)
    constraints_table(loaded.task, {loaded.method.name: evaluation})
    runs = {loaded.method.name: evaluation.trajectory}
    if figure is not None or gif is not None:
        from constrained_nn.plotting import animate_trajectories, plot_trajectories

        if figure is not None:
            typer.echo(f"wrote {plot_trajectories(figure, loaded.task, runs)}")
        if gif is not None:
            typer.echo(f"wrote {animate_trajectories(gif, loaded.task, runs)}")
    margin = evaluation.metrics["margin"]
    if start is not None and not margin >= 0:
        names = ", ".join(c.name for c in loaded.task.constraints)
        typer.echo(f"counterexample: g > 0 for one of {names}; smallest -g = {margin:.6g}")


def _record_to_repeat(folder: Path) -> Path | None:
    """The record in a folder, if a counterexample to its claims can be repeated."""
    from constrained_nn.evidence.claims import REPEATS, record_in

    record = record_in(folder)
    return record if record is not None and record.name in REPEATS else None


def _repeat(record: Path, start: str | None) -> None:
    """Print how a counterexample turns out."""
    from constrained_nn.evidence.claims import REPEATS

    if start is None:
        fail(f"--start: expected the numbers that `certify` printed, to repeat with {record.name}.")
    for line in REPEATS[record.name](record, _numbers(start)):
        typer.echo(line)


def _numbers(text: str) -> list[float]:
    try:
        words = text.replace(",", " ").lower().split()
        values = [float.fromhex(v) if "0x" in v else float(v) for v in words]
    except ValueError:
        fail(f"--start: expected numbers, got '{text}'.")
    if not all(map(math.isfinite, values)):  # a record would answer only "not in the box"
        fail(f"--start: expected finite numbers, got '{text}'.")
    return values


def _state(text: str, task: Any) -> list[float]:
    """The numbers of `--start`, one for each state."""
    values = _numbers(text)
    names = [q.name for q in task.plant.state]
    if len(values) != len(names):
        fail(f"--start: expected {len(names)} numbers ({', '.join(names)}), got {len(values)}.")
    return values
