"""`constrained-nn train`: train a controller and keep everything about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from constrained_nn.cli.shell import fail
from constrained_nn.options import Device, Quiet, Seed, Threads, prepare_torch


def command(
    task: Annotated[str, typer.Argument(help="Task, such as unicycle-obstacles; see `list tasks`.")],
    method: Annotated[
        str, typer.Option(help="Method: hardnet, soft, none, ...; see `list methods`.")
    ] = "hardnet",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/TASK-METHOD-SEED.")
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="Gradient steps.")] = 600,
    batch: Annotated[int, typer.Option(min=1, help="Start states a step.")] = 100,
    learning_rate: Annotated[float, typer.Option(help="Step size of Adam.")] = 1e-3,
    final_learning_rate: Annotated[
        float | None, typer.Option(help="Its last value, along a cosine. Default: constant.")
    ] = None,
    max_gradient_norm: Annotated[
        float | None, typer.Option(help="Clip the gradient of the mean cost. Default: no clipping.")
    ] = 300.0,
    max_adjoint_norm: Annotated[
        float | None, typer.Option(help="Clip the gradient of each run's cost in its own state.")
    ] = 1000.0,
    seed: Seed = 1,
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the method, such as weight=0.01; repeatable.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the folder.")
    ] = False,
    eval_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 90,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log for TensorBoard.")] = False,
    device: Device = "cpu",
    threads: Threads = 1,
    quiet: Quiet = False,
) -> None:
    """Train a controller on a task, through its own closed loop.

    Writes settings, checkpoint, log, weights and test results to the folder. An interrupted run
    goes on with --resume and ends with the same numbers.
    """
    prepare_torch(device, threads)
    from constrained_nn.cli.shell import metrics_table
    from constrained_nn.training import TrainConfig, make_method, read_result, train
    from control_envs.tasks import make_task

    make_task(task)
    options = _parse_options(option or [])
    make_method(method, options)
    config = TrainConfig(
        task=task,
        method=method,
        options=options,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        final_learning_rate=final_learning_rate,
        max_gradient_norm=max_gradient_norm,
        max_adjoint_norm=max_adjoint_norm,
        seed=seed,
        dtype=dtype,  # pyright: ignore[reportArgumentType]
        eval_every=eval_every,
    )
    out = out or Path("runs") / f"{task}-{method}-{seed}"
    writer = _writer(out) if tensorboard else None
    from constrained_nn.cli.shell import training_progress

    with training_progress({method: steps}, quiet=quiet) as update:
        train(
            config,
            out,
            resume=resume,
            device=device,
            progress=lambda step, record: update(method, step, record),
            writer=writer,
            command=f"constrained-nn train {task} --method {method} --steps {steps} --seed {seed}",
        )
    typer.echo(f"wrote {out}")
    metrics_table({method: read_result(out)["metrics"]})


def _parse_options(pairs: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            fail(f"--option: expected NAME=VALUE such as weight=0.01, got '{pair}'.")
        if value in ("true", "false"):
            options[name] = value == "true"
            continue
        try:
            options[name] = int(value) if value.lstrip("-").isdigit() else float(value)
        except ValueError:
            fail(f"--option: expected a number or true/false for {name}, got '{value}'.")
    return options


def _writer(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        fail("--tensorboard: TensorBoard is not installed. `pip install constrained-nn[rl]` brings it.")
    return SummaryWriter(str(out / "tensorboard"))
