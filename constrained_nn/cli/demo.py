"""`constrained-nn demo`: the main job, start to finish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from constrained_nn.cli.shell import fail
from constrained_nn.options import Quiet, Seed
from constrained_nn.settings import MOST_WORKERS

LEARNED = {"hardnet": 400, "none": 300, "soft": 300, "dc3": 200}  # method -> gradient steps
# without it the soft penalty ends in a poor local optimum, and the comparison would be unfair
OPTIONS = {"soft": {"warmup": 100}}
FIXED = ("nominal", "cbf-qp")


def command(
    out: Annotated[Path, typer.Option(help="Folder for everything that it makes.")] = Path("runs/demo"),
    seed: Seed = 1,
    processes: Annotated[
        int, typer.Option(min=1, max=MOST_WORKERS, help="Runs trained at once, one thread each.")
    ] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Keep what an earlier demo finished.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="A tenth of the steps, to see that it runs.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train HardNet-Aff and its rivals on the unicycle among obstacles, and compare them.

    A few minutes on two cores. Ends with a table; writes checkpoints, logs, a figure of all
    trajectories and an animation. It deletes nothing: a folder that holds anything is refused, that
    of an earlier demo needs --resume.
    """
    from constrained_nn.cli.shell import metrics_table
    from constrained_nn.files import write_values
    from constrained_nn.plotting import animate_trajectories, plot_trajectories

    _refuse_other_files(out, resume)
    steps = _train(out, seed, processes, resume, fast, quiet)
    task, results, runs = _evaluate(out)
    costs = {name: f"cost {metrics['cost']:.1f}, " for name, metrics in results.items()}
    figure = plot_trajectories(out / "trajectories.png", task, runs, subtitles=costs, panels=["paths"])
    shown = {name: runs[name] for name in ("none", "soft", "hardnet")}
    animation = animate_trajectories(out / "trajectories.gif", task, shown)
    write_values(out / "result.json", {"results": results, "seed": seed, "steps": steps})
    metrics_table(results, title="unicycle among obstacles: 84 held-out start states")
    if fast:
        typer.echo(
            "--fast trains a tenth of the steps: it shows that all runs, not how good the methods are."
        )
    typer.echo(f"figure: {figure}\nanimation: {animation}\nnumbers: {out / 'result.json'}")


def _train(out: Path, seed: int, processes: int, resume: bool, fast: bool, quiet: bool) -> dict[str, int]:
    """Train what learns, make the rest; gradient steps by method."""
    from constrained_nn.cli.shell import training_progress
    from constrained_nn.training import TrainConfig, make_method, train_many
    from control_envs.tasks import UnicycleObstacles

    configs = {
        method: TrainConfig(
            task=UnicycleObstacles(),
            method=make_method(method, OPTIONS.get(method)),
            steps=max(1, steps // 10) if fast else steps,
            learning_rate=1e-3,
            final_learning_rate=1e-5,
            max_gradient_norm=200.0,
            max_adjoint_norm=1000.0 if method == "hardnet" else None,
            seed=seed,
            eval_every=50,
        )
        for method, steps in [*LEARNED.items(), *((name, 0) for name in FIXED)]
    }
    steps = {name: config.steps for name, config in configs.items() if config.steps}
    with training_progress(steps, quiet=quiet) as progress:
        train_many(
            configs,
            out,
            processes=processes,
            resume=resume,
            command=f"constrained-nn demo --seed {seed}",
            progress=progress,
        )
    return steps


def _evaluate(out: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The task, and metrics and trajectories from its test states by method."""
    import torch

    from constrained_nn.training import evaluate, load_run

    torch.set_num_threads(1)
    task, results, runs = None, {}, {}
    for name in ("nominal", "none", "soft", "dc3", "cbf-qp", "hardnet"):
        run = load_run(out / name)
        task = run.task
        evaluation = evaluate(task, run.controller, task.published_starts()["test"])  # pyright: ignore
        results[name] = evaluation.metrics
        runs[name] = evaluation.trajectory
    return task, results, runs


def _refuse_other_files(out: Path, resume: bool) -> None:
    """Refuse a folder with anything in it but a demo to be resumed: the user's files are not ours."""
    if not out.exists():
        return
    if not out.is_dir():
        fail(f"--out: expected a folder, got the file {out}. Choose another.")
    if not any(out.iterdir()):
        return
    earlier = any((out / name / "config.json").exists() for name in (*LEARNED, *FIXED))
    if not earlier:
        fail(
            f"--out: expected an empty folder or an earlier demo, found other files in {out}. "
            f"Choose another --out."
        )
    if not resume:
        fail(
            f"--out: expected an empty folder, found an earlier demo in {out}. Pass --resume to "
            f"finish or show it, "
            f"or choose another --out."
        )
