"""Closed-loop training: the cost of a whole rollout, differentiated through plant, layer and network."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from constrained_nn.errors import FileFormatError
from constrained_nn.files import commit, machine, versions, write_tensors, write_values
from constrained_nn.layers import ProjectionLayer
from constrained_nn.solvers import Status
from constrained_nn.training import engine
from constrained_nn.training.closed_loop.config import TrainConfig
from constrained_nn.training.closed_loop.evaluation import evaluate, simulate
from constrained_nn.training.closed_loop.runs import (
    CHECKPOINT,
    CONFIG,
    FILES,
    METRICS,
    POLICY,
    Run,
    new_run,
    read_config,
    write_result,
)
from constrained_nn.training.safety import draw_starts, has_barrier, safety_of
from constrained_nn.training.schedule import LearningRate, Schedule
from control_envs.tasks import Task


def train(
    config: TrainConfig,
    directory: str | Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    progress: Callable[[int, dict[str, float]], None] | None = None,
    writer: Any = None,
    command: str = "",
) -> Run:
    """Train, log, checkpoint and evaluate on the test states.

    An interrupted run that is resumed ends with the same numbers: the order of the start states is a function
    of seed and epoch, and a checkpoint holds weights and optimizer.

    Args:
        config: The settings.
        directory: Where the files go.
        resume: Go on from the checkpoint in `directory`, if there is one.
        device: Device of the computation.
        progress: Called as `progress(step, record)` after every step; `record` is empty between evaluations.
        writer: A TensorBoard `SummaryWriter`, or None.
        command: The command line, for the record.

    Raises:
        FileFormatError: `directory` holds a run and `resume` is not set, a run or a checkpoint with other settings,
            or a file of the name of one of ours that belongs to no run.
        ConvergenceError: The loss, a gradient or a weight is not finite; the last checkpoint is kept.
        OSError: A file cannot be written; the last checkpoint is kept.
    """
    directory = Path(directory)
    config = settle_gains(config, directory if resume else None)
    run = new_run(directory, config, device=device)
    _prepare(run, resume)
    if not run.method.learns:
        return _finish(run, device, command, seconds=0.0)

    def report(step: int, record: dict[str, float]) -> None:
        if progress is not None:
            progress(step, record if "validation_cost" in record else {})

    began = time.perf_counter()
    engine.run_training(
        ClosedLoop(run, device),
        schedule_of(config),
        settings=config.to_json(),
        checkpoint=directory / CHECKPOINT,
        log=directory / METRICS,
        writer=writer,
        progress=report,
    )
    return _finish(run, device, command, seconds=time.perf_counter() - began)


def settle_gains(config: TrainConfig, directory: Path | None) -> TrainConfig:
    """The settings with the gains of the constraints: those of the run in a folder, else chosen now."""
    if config.gains is not None or has_barrier(config.task):
        return config
    if directory is not None and (directory / CONFIG).exists():
        return replace(config, gains=read_config(directory).gains)
    safety = safety_of(config.task)
    if safety.inputs is None:
        return config
    return replace(config, gains={kept.name: kept.gains for kept in safety.kept})


def schedule_of(config: TrainConfig) -> Schedule:
    """How long and how fast a run goes; the last step has the last rate."""
    rate = LearningRate(config.learning_rate, config.final_learning_rate, over=config.steps - 1)
    return Schedule(config.steps, rate, config.eval_every, config.max_gradient_norm)


# Start states where a task has no published ones.
TRAIN, VALIDATION, TEST_STARTS = 1000, 50, 100


def describe_test_starts(task: Task) -> str:
    """Which start states a result is about, in words."""
    if hasattr(task, "published_starts"):
        return f"the {len(draw_starts(task, 'test', TEST_STARTS))} published test states"
    return f"{TEST_STARTS} test states that training never draws"


class ClosedLoop(engine.Training):
    """The cost of whole rollouts, in batches of start states.

    Args:
        run: What is trained.
        device: Where.
    """

    name: ClassVar[str] = "train"

    def __init__(self, run: Run, device: str = "cpu") -> None:
        self.run, self.device = run, device
        self.module: nn.Module = run.backbone
        self.train_starts = draw_starts(run.task, "train", TRAIN, seed=run.config.seed)
        self.layers = [m for m in run.controller.modules() if isinstance(m, ProjectionLayer)]

    def batches(self, step: int) -> Iterator[engine.Measurement]:
        run = self.run
        run.controller.train()
        x0 = self.starts(step)
        penalties = run.method.penalties(run.proposer, run.condition, step)
        running = {"cost": run.task.stage_cost, **penalties}
        horizon = min(run.task.horizon, run.config.horizon or run.task.horizon)
        trajectory = simulate(run.task, self.policy(step), x0, running=running, horizon=horizon)
        loss = sum(trajectory.integrals.values()).sum()  # pyright: ignore[reportAttributeAccessIssue]
        cost = trajectory.integrals["cost"].detach().mean().item()
        yield engine.Measurement(loss, size=len(x0), record={"cost": cost})

    def starts(self, step: int) -> Tensor:
        """Start states of a step; the order within an epoch depends on seed and epoch alone."""
        config = self.run.config
        starts = self.train_starts
        per_epoch = math.ceil(len(starts) / config.batch)
        epoch, position = divmod(step - 1, per_epoch)
        order = np.random.default_rng([config.seed, epoch]).permutation(len(starts))
        chosen = order[position * config.batch : (position + 1) * config.batch]
        return torch.as_tensor(starts[chosen], dtype=config.torch_dtype, device=self.device)

    def policy(self, step: int) -> Callable[[Any, Tensor], Tensor]:
        """The policy, with the adjoint of every run clipped where it passes back through the state."""
        run, limit = self.run, self.run.config.max_adjoint_norm
        policy = run.method.controller(run.proposer, run.condition, step)
        if limit is None:
            return policy

        def clip(adjoint: Tensor) -> Tensor:
            norm = torch.linalg.vector_norm(adjoint, dim=-1, keepdim=True)
            return adjoint * (limit / norm.clamp_min(limit))

        def clipped(t: Any, x: Tensor) -> Tensor:
            if x.requires_grad:
                x.register_hook(clip)
            return policy(t, x)

        return clipped

    def validate(self, step: int) -> dict[str, float]:
        run = self.run
        starts = draw_starts(run.task, "validation", VALIDATION)
        x0 = torch.as_tensor(starts, dtype=run.config.torch_dtype, device=self.device)
        metrics = evaluate(run.task, run.controller, x0, condition=run.safety.condition).metrics
        chosen = ("cost", "max_violation", "worst_row", "collisions")
        found = {f"validation_{name}": metrics[name] for name in chosen}
        names = {int(status): status.name.lower() for status in Status}  # files may count a retired one
        for layer in self.layers:
            counts = enumerate(layer.counts.tolist())
            found |= {f"status_{names.get(code, code)}": n for code, n in counts if n}
        return found

    def counts(self) -> dict[str, Tensor]:
        return {f"counts.{i}": layer.counts for i, layer in enumerate(self.layers)}


def _prepare(run: Run, resume: bool) -> None:
    """Make or check the directory."""
    directory, settings = run.directory, run.config.to_json()
    if (directory / CONFIG).exists():
        if not resume:
            raise FileFormatError(
                f"{directory}: expected an empty folder, found a run. Go on with --resume, or choose another --out."
            )
        if read_config(directory).to_json() != settings:
            raise FileFormatError(
                f"{directory}: expected the run that is resumed to have the same settings, found others in "
                f"{CONFIG}. Use its settings, or choose another --out."
            )
        return
    foreign = [name for name in FILES if os.path.lexists(directory / name)]
    if foreign:
        raise FileFormatError(
            f"{directory}: expected no file of the name {foreign[0]} in a folder without a run, found one that would "
            f"be overwritten. Choose another --out."
        )
    directory.mkdir(parents=True, exist_ok=True)
    write_values(directory / CONFIG, settings)


def _finish(run: Run, device: str, command: str, seconds: float) -> Run:
    if run.method.learns:
        write_tensors(run.directory / POLICY, run.backbone.state_dict(), {"config": run.config.to_json()})
    run.controller.eval()
    # judged in float64, whatever it was trained in, unless the weights are on another device
    double = new_run(run.directory, run.config).controller.double()
    double.load_state_dict(run.controller.state_dict())
    starts = draw_starts(run.task, "test", TEST_STARTS)
    evaluation = evaluate(run.task, double, starts, condition=run.safety.condition)
    write_result(
        run,
        evaluation.metrics,
        starts=f"{describe_test_starts(run.task)}, simulated in float64",
        device=device,
        command=command,
        commit=commit(),
        versions=versions(),
        machine=machine(),
        train_seconds=round(seconds, 3),
        conflicts=evaluation.conflicts,
    )
    return run
