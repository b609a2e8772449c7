"""The one training loop: step, learning rate, best weights, log, checkpoint, resumption."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from constrained_nn.errors import ConvergenceError
from constrained_nn.files import read_text, write_atomically
from constrained_nn.training.checkpoint import History, State, require_finite, restore, save
from constrained_nn.training.schedule import Schedule


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a batch gave.

    Args:
        loss: What is minimized, summed over the batch.
        size: How many elements the sum has; records and the limit on the gradient are of the mean.
        score: Validation score of the weights before the step, of one model `()` or of each of `M` models
            `(M,)`, which are then the first dimension of all parameters.
        record: Other numbers for the log.
    """

    loss: Tensor
    size: int = 1
    score: Tensor | None = None
    record: Mapping[str, float] = field(default_factory=dict)


class Training(ABC):
    """What is trained: where its losses come from, and what a checkpoint holds beside weights and optimizer.

    The losses of a step must be a function of the step and of the weights alone (its random numbers drawn from seeds
    made of the step), or a run that goes on from a checkpoint ends elsewhere.

    Attributes:
        name: What it is called in messages.
        unit: What a step is called in them.
        scored: Whether the weights with the best score are kept. Those after the last step are scored too.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = "step"
    scored: ClassVar[bool] = False

    module: nn.Module

    @abstractmethod
    def batches(self, step: int) -> Iterator[Measurement]:
        """The batches of a step, counted from 1; each is measured at the weights that the last one left."""

    def validate(self, step: int) -> Mapping[str, float]:
        """Numbers for the log, at the weights after a step that is logged."""
        return {}

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer changes."""
        return list(self.module.parameters())

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the module."""
        return self.module.state_dict()

    def counts(self) -> dict[str, Tensor]:
        """Other tensors that a checkpoint keeps, by name."""
        return {}


def run_training(
    training: Training,
    schedule: Schedule,
    *,
    settings: Mapping[str, Any],
    checkpoint: Path | None = None,
    log: Path | None = None,
    writer: Any = None,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> History:
    """Minimize with Adam. An interrupted run that goes on from its checkpoint ends with the same numbers.

    Args:
        training: What is trained.
        schedule: How long, how fast.
        settings: What determines the numbers, as JSON values; a checkpoint with others is refused.
        checkpoint: File to save to, and to go on from if it exists.
        log: File of one JSON line for each step that is kept.
        writer: A TensorBoard `SummaryWriter`, or None.
        progress: Called as `progress(step, record)` after every step.

    Returns:
        What happened; the module has the weights after the last step, or those with the best score.

    Raises:
        ConvergenceError: A loss, a gradient or a weight is not finite; the last checkpoint is kept.
        FileFormatError: The checkpoint is damaged or belongs to other settings.
        OSError: A file cannot be written; the last checkpoint is kept.
    """
    settings = json.loads(json.dumps(dict(settings)))
    parameters = training.parameters()
    optimizer = torch.optim.Adam(parameters, lr=schedule.rate.first)
    total = schedule.steps + training.scored
    state = State()
    if checkpoint is not None and checkpoint.exists():
        state = restore(checkpoint, training, optimizer, settings, total)
    for step in range(state.step + 1, total + 1):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate.at(step)
        record = _take_step(training, schedule, optimizer, parameters, step, state)
        state.add(step, record)
        if step % schedule.every == 0 or step == total:
            require_finite(
                dict(training.module.named_parameters()), f"{training.name}: {training.unit} {step}"
            )
            record |= training.validate(step)
            if log is not None:
                _write_line(log, step, record)
            if checkpoint is not None:
                save(checkpoint, training, optimizer, settings, state)
            if writer is not None:
                for name, value in record.items():
                    writer.add_scalar(name, value, step)
        if progress is not None:
            progress(step, record)
    with torch.no_grad():
        for name, value in state.best.items():
            training.weights()[name].copy_(value)
    return state.history


def _take_step(
    training: Training,
    schedule: Schedule,
    optimizer: torch.optim.Adam,
    parameters: list[nn.Parameter],
    step: int,
    state: State,
) -> dict[str, float]:
    """One step of Adam for each batch; after the last step the weights are only scored."""
    descending = step <= schedule.steps
    loss, size, record = 0.0, 0, {}
    with torch.set_grad_enabled(descending):
        for batch in training.batches(step):
            value, norm = batch.loss.item(), torch.zeros(())
            if descending and math.isfinite(value):
                optimizer.zero_grad(set_to_none=True)
                batch.loss.backward()
                norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            length = norm.item()
            if not (math.isfinite(value) and math.isfinite(length)):
                raise ConvergenceError(
                    f"{training.name}: expected a finite loss and gradient, got {value} and {length} at "
                    f"{training.unit} {step}. The last checkpoint is kept; lower the learning rate."
                )
            loss, size = loss + value, size + batch.size
            record = {**batch.record, "gradient": length / batch.size}
            if batch.score is not None:
                state.keep(training.weights(), batch.score.detach())
                record["score"] = batch.score.mean().item()
            if descending:
                if schedule.max_gradient_norm is not None:
                    longest = schedule.max_gradient_norm * batch.size
                    torch.nn.utils.clip_grads_with_norm_(parameters, longest, norm)
                optimizer.step()
    return {"loss": loss / size, **record}


def _write_line(path: Path, step: int, record: Mapping[str, float]) -> None:
    """One line; those after the checkpoint that a resumed run went on from are replaced."""
    kept = []
    if path.exists():
        for line in read_text(path).splitlines():
            try:
                if json.loads(line)["step"] < step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # a line that an interruption cut short
    finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
    write_atomically(path, "\n".join([*kept, json.dumps({"step": step, **finite})]) + "\n")
