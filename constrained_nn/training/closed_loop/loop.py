"""Closed-loop training: the cost of a whole rollout, differentiated through plant, layer and network."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from constrained_nn.errors import ConvergenceError, FileFormatError
from constrained_nn.files import (
    commit,
    machine,
    read_tensors,
    read_text,
    versions,
    write_atomically,
    write_tensors,
    write_values,
)
from constrained_nn.layers import ProjectionLayer
from constrained_nn.solvers import Status
from constrained_nn.training.checkpoint import (
    pack,
    require_finite,
    require_same_settings,
    require_step,
    unpack,
)
from constrained_nn.training.closed_loop.config import TrainConfig
from constrained_nn.training.closed_loop.evaluation import evaluate, simulate
from constrained_nn.training.closed_loop.runs import (
    CHECKPOINT,
    CONFIG,
    FILES,
    METRICS,
    POLICY,
    RESULT,
    Run,
    new_run,
    read_config,
    write_result,
)

Progress = Callable[[int, dict[str, float]], None]


def train(
    config: TrainConfig,
    directory: str | Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
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
    run = new_run(directory, config, device=device)
    done = _prepare(run, resume)
    if not run.method.learns:
        return _finish(run, device, command, seconds=0.0)
    optimizer = torch.optim.Adam(run.backbone.parameters(), lr=config.learning_rate)
    if done:
        done = _restore(run, optimizer)
    began = time.perf_counter()
    for step in range(done + 1, config.steps + 1):
        record = _step(run, optimizer, step, device)
        if step % config.eval_every == 0 or step == config.steps:
            require_finite(dict(run.backbone.named_parameters()), f"train: step {step}")
            record |= _validate(run, device)
            _log(run, step, record)
            _checkpoint(run, optimizer, step)
            if writer is not None:
                for name, value in record.items():
                    writer.add_scalar(name, value, step)
            if progress is not None:
                progress(step, record)
        elif progress is not None:
            progress(step, {})
    return _finish(run, device, command, seconds=time.perf_counter() - began)


def _prepare(run: Run, resume: bool) -> bool:
    """Make or check the directory; True when there is a checkpoint to go on from."""
    directory = run.directory
    if (directory / CONFIG).exists():
        if not resume:
            raise FileFormatError(
                f"{directory}: expected an empty folder, found a run. Go on with --resume, or choose another --out."
            )
        if read_config(directory) != run.config:
            raise FileFormatError(
                f"{directory}: expected the run that is resumed to have the same settings, found others in "
                f"{CONFIG}. Use its settings, or choose another --out."
            )
        return (directory / CHECKPOINT).exists()
    foreign = [name for name in FILES if os.path.lexists(directory / name)]
    if foreign:
        raise FileFormatError(
            f"{directory}: expected no file of the name {foreign[0]} in a folder without a run, found one that would "
            f"be overwritten. Choose another --out."
        )
    directory.mkdir(parents=True, exist_ok=True)
    write_values(directory / CONFIG, run.config.to_json())
    return False


def _batch(run: Run, step: int, device: str) -> torch.Tensor:
    """Start states of a step; the order within an epoch depends on seed and epoch alone."""
    starts = run.task.published_starts()["train"]  # pyright: ignore[reportAttributeAccessIssue]
    per_epoch = math.ceil(len(starts) / run.config.batch)
    epoch, position = divmod(step - 1, per_epoch)
    order = np.random.default_rng([run.config.seed, epoch]).permutation(len(starts))
    chosen = order[position * run.config.batch : (position + 1) * run.config.batch]
    return torch.as_tensor(starts[chosen], dtype=run.config.torch_dtype, device=device)


def _step(run: Run, optimizer: torch.optim.Optimizer, step: int, device: str) -> dict[str, float]:
    run.controller.train()
    for group in optimizer.param_groups:
        group["lr"] = _learning_rate(run.config, step)
    x0 = _batch(run, step, device)
    penalties = run.method.penalties(run.task, run.controller, step)  # pyright: ignore[reportArgumentType]
    controller = _clipped_adjoint(run)
    trajectory = simulate(run.task, controller, x0, running={"cost": run.task.stage_cost, **penalties})
    loss = sum(trajectory.integrals.values()).sum()  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in run.backbone.parameters() if p.grad is not None])
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        raise ConvergenceError(
            f"train: expected a finite loss and gradient, got {loss.item()} and {norm.item()} at step {step}. "
            f"The checkpoint of the last evaluation is kept; lower the learning rate."
        )
    if run.config.max_gradient_norm is not None:  # of the mean; the loss is a sum, as published
        parameters = run.backbone.parameters()
        torch.nn.utils.clip_grads_with_norm_(parameters, run.config.max_gradient_norm * len(x0), norm)
    optimizer.step()
    cost = trajectory.integrals["cost"].detach()
    return {"loss": loss.item() / len(x0), "cost": cost.mean().item(), "gradient": norm.item() / len(x0)}


def _clipped_adjoint(run: Run) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """The controller, with the adjoint of every run clipped where it passes back through the state."""
    limit = run.config.max_adjoint_norm
    if limit is None:
        return run.controller

    def clip(adjoint: torch.Tensor) -> torch.Tensor:
        norm = torch.linalg.vector_norm(adjoint, dim=-1, keepdim=True)
        return adjoint * (limit / norm.clamp_min(limit))

    def controller(t: Any, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            x.register_hook(clip)
        return run.controller(t, x)

    return controller


def _learning_rate(config: TrainConfig, step: int) -> float:
    if config.final_learning_rate is None:
        return config.learning_rate
    share = 0.5 * (1.0 + math.cos(math.pi * (step - 1) / max(1, config.steps - 1)))
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * share


def _validate(run: Run, device: str) -> dict[str, float]:
    starts = run.task.published_starts()["validation"]  # pyright: ignore[reportAttributeAccessIssue]
    x0 = torch.as_tensor(starts, dtype=run.config.torch_dtype, device=device)
    metrics = evaluate(run.task, run.controller, x0).metrics
    chosen = ("cost", "max_violation", "worst_row", "collisions")
    return {f"validation_{name}": metrics[name] for name in chosen}


def _log(run: Run, step: int, record: dict[str, float]) -> None:
    """One line of `metrics.jsonl`; lines after the checkpoint that a resumed run went on from are replaced."""
    path = run.directory / METRICS
    kept = []
    if path.exists():
        for line in read_text(path).splitlines():
            try:
                if json.loads(line)["step"] < step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # a line that an interruption cut short
    names = {
        int(status): status.name.lower() for status in Status
    }  # an old checkpoint may count a retired one
    counts = {
        f"status_{names.get(code, code)}": n
        for module in run.controller.modules()
        if isinstance(module, ProjectionLayer)
        for code, n in enumerate(module.counts.tolist())
        if n
    }
    finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
    kept.append(json.dumps({"step": step, **finite, **counts}))
    write_atomically(path, "\n".join(kept) + "\n")


def _checkpoint(run: Run, optimizer: torch.optim.Adam, step: int) -> None:
    tensors = pack(run.backbone.state_dict(), optimizer)
    for i, module in enumerate(m for m in run.controller.modules() if isinstance(m, ProjectionLayer)):
        tensors[f"counts.{i}"] = module.counts
    write_tensors(run.directory / CHECKPOINT, tensors, {"step": step, "config": run.config.to_json()})


def _restore(run: Run, optimizer: torch.optim.Adam) -> int:
    path = run.directory / CHECKPOINT
    tensors, metadata = read_tensors(path)
    require_same_settings(path, metadata.get("config"), run.config.to_json())
    step = require_step(path, metadata.get("step"), run.config.steps)
    unpack(path, tensors, run.backbone.state_dict(), optimizer)
    layers = [m for m in run.controller.modules() if isinstance(m, ProjectionLayer)]
    for i, module in enumerate(layers):
        counts = tensors.get(f"counts.{i}")
        if counts is None or (counts.shape, counts.dtype) != (module.counts.shape, module.counts.dtype):
            raise FileFormatError(f"{path}: counts.{i} does not fit. Delete it to train from the start.")
        module.counts.copy_(counts)
    return step


def _finish(run: Run, device: str, command: str, seconds: float) -> Run:
    if run.method.learns:
        write_tensors(run.directory / POLICY, run.backbone.state_dict(), {"config": run.config.to_json()})
    run.controller.eval()
    # judged in float64, whatever it was trained in, unless the weights are on another device
    double = new_run(run.directory, run.config).controller.double()
    double.load_state_dict(run.controller.state_dict())
    starts = run.task.published_starts()["test"]  # pyright: ignore[reportAttributeAccessIssue]
    evaluation = evaluate(run.task, double, starts)
    write_result(
        run,
        evaluation.metrics,
        starts="the 84 published test states, simulated in float64",
        device=device,
        command=command,
        commit=commit(),
        versions=versions(),
        machine=machine(),
        train_seconds=round(seconds, 3),
    )
    return run


__all__ = ["RESULT", "train"]
