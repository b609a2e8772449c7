"""`constrained-nn train`: train a controller and keep everything about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from constrained_nn.cli.shell import fail, refuse_options
from constrained_nn.options import Device, Quiet, Seed, Threads, prepare_torch

Task = Annotated[
    str, typer.Argument(help="Task: a name (see `list tasks`), my_robot.py:MyTask or module:MyTask.")
]
MethodName = Annotated[str, typer.Option(help="Method: hardnet, soft, none, ...; see `list methods`.")]
Out = Annotated[Path | None, typer.Option(help="Folder; default runs/TASK-METHOD-SEED.")]
Steps = Annotated[
    int | None, typer.Option(min=0, help="Gradient steps. Default, as for what follows: by task.")
]
Batch = Annotated[int | None, typer.Option(min=1, help="Start states a step.")]
Rate = Annotated[float | None, typer.Option(help="Step size of Adam.")]
FinalRate = Annotated[float | None, typer.Option(help="Its last value, along a cosine.")]
GradientNorm = Annotated[float | None, typer.Option(help="Clip the gradient of the mean cost.")]
AdjointNorm = Annotated[
    float | None, typer.Option(help="Clip the gradient of each run's cost in its own state.")
]
Option = Annotated[
    list[str] | None,
    typer.Option(help="Option of the method, such as weight=0.01; may be given again."),
]
Every = Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")]

# parameters that only a method that learns has a use for
_LEARNING = (
    "steps",
    "batch",
    "learning_rate",
    "final_learning_rate",
    "max_gradient_norm",
    "max_adjoint_norm",
    "eval_every",
    "tensorboard",
)


def command(
    context: typer.Context,
    task: Task,
    method: MethodName = "hardnet",
    out: Out = None,
    steps: Steps = None,
    batch: Batch = None,
    learning_rate: Rate = None,
    final_learning_rate: FinalRate = None,
    max_gradient_norm: GradientNorm = None,
    max_adjoint_norm: AdjointNorm = None,
    seed: Seed = 1,
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    option: Option = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the checkpoint in the folder.")
    ] = False,
    eval_every: Every = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log for TensorBoard.")] = False,
    device: Device = "cpu",
    threads: Threads = 1,
    quiet: Quiet = False,
) -> None:
    """Train a controller on a task, through its own closed loop.

    Writes settings, checkpoint, log, weights and test results to the folder. An interrupted run
    continues with --resume and ends with the same numbers.
    """
    prepare_torch(device, threads)
    from constrained_nn.training import TrainConfig, default_settings, find_task, make_method

    options = _parse_options(option or [])
    _refuse_unknown(context, task, method, options)
    found = find_task(task)
    given = {name: context.params[name] for name in (*_LEARNING[:-1], "dtype")}
    given = {name: value for name, value in given.items() if value is not None}
    settings: dict[str, Any] = default_settings(found) | {"seed": seed} | given
    config = TrainConfig(found, make_method(method, options), **settings)
    out = out or Path("runs") / f"{found.name}-{method}-{seed}"
    _train(config, out, resume, device, _writer(out) if tensorboard else None, quiet)


def _refuse_unknown(context: typer.Context, task: str, method: str, options: dict[str, Any]) -> None:
    """Refuse an unknown task, method or option, and what the method would ignore."""
    from constrained_nn.training import find_task, make_method

    find_task(task)
    if not make_method(method, options).learns:
        refuse_options(context, _LEARNING, f"has no effect on the method '{method}', which learns nothing")


def _train(config: Any, out: Path, resume: bool, device: str, writer: Any, quiet: bool) -> None:
    """Train with progress, and print the table of test results."""
    from constrained_nn.cli.shell import metrics_table, training_progress
    from constrained_nn.training import read_result, task_spec, train

    words = [f"constrained-nn train {task_spec(config.task)} --method {config.method.name}"]
    words += [f"--steps {config.steps} --seed {config.seed}"]
    with training_progress({config.method.name: config.steps}, quiet=quiet) as update:
        train(
            config,
            out,
            resume=resume,
            device=device,
            progress=lambda step, record: update(config.method.name, step, record),
            writer=writer,
            command=" ".join(words),
        )
    typer.echo(f"wrote {out}")
    metrics_table({config.method.name: read_result(out)["metrics"]})


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
