"""Adam that keeps the parameters with the best validation score, and goes on after an interruption."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from constrained_nn.errors import ConvergenceError, FileFormatError
from constrained_nn.files import read_tensors, write_tensors
from constrained_nn.settings import require_integer, require_real
from constrained_nn.training.checkpoint import (
    copy_weights,
    pack,
    require_finite,
    require_same_settings,
    require_step,
    unpack,
)


@dataclass
class History:
    """What happened: one entry a step.

    Args:
        loss: Training loss.
        score: Validation score (mean over models).
        diverged: Rollouts that ran away, in training and validation together.
    """

    loss: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    diverged: list[int] = field(default_factory=list)


def descend(
    module: nn.Module,
    evaluate: Callable[[int], tuple[Tensor, Tensor, int]],
    *,
    steps: int,
    learning_rate: float,
    final_learning_rate: float | None = None,
    settings: Mapping[str, Any],
    checkpoint: Path | None = None,
    every: int = 25,
    progress: Callable[[int, float, float], None] | None = None,
) -> History:
    """Minimize; at the end the module has the parameters with the best score.

    Args:
        module: Its parameters are changed.
        evaluate: `step -> (loss, score, diverged)` at the present parameters. A score `(M,)` is kept for each of `M`
            models, along the first dimension of all parameters.
        steps: Steps of Adam; the parameters after the last one are scored too.
        learning_rate: Step size of Adam.
        final_learning_rate: Where it goes along a half cosine; default: it stays.
        settings: What determines the numbers; a checkpoint with other settings is refused.
        checkpoint: File to save to, and to go on from if it exists.
        every: Steps between checkpoints.
        progress: Called as `progress(step, loss, score)`.

    Raises:
        ConvergenceError: The loss or a weight is not finite; the last checkpoint is kept.
        FileFormatError: The checkpoint is damaged or belongs to other settings.
        ValueError: A setting is out of range; `TypeError` for one that is no number.
    """
    require_integer("descend", "steps", steps)
    require_integer("descend", "every", every, least=1)
    require_real("descend", "learning_rate", learning_rate, above=0.0)
    require_real("descend", "final_learning_rate", final_learning_rate, least=0.0, optional=True)
    settings = {**settings, "steps": steps, "learning_rate": learning_rate}
    settings |= {} if final_learning_rate is None else {"final_learning_rate": final_learning_rate}
    settings = json.loads(json.dumps(settings))
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(parameters.values(), lr=learning_rate)
    best = {name: p.detach().clone() for name, p in parameters.items()}
    best_score: Tensor | None = None
    history, start = History(), 0
    if checkpoint is not None and checkpoint.exists():
        start, history, best, best_score = _restore(checkpoint, parameters, optimizer, settings)
    for step in range(start, steps + 1):
        last = step == steps
        with torch.set_grad_enabled(not last):
            loss, score, diverged = evaluate(step)
        score = score.detach()
        if not math.isfinite(loss.item()):
            raise ConvergenceError(
                f"descend: expected a finite loss, got {loss.item()} in step {step}. The checkpoint before it is kept; "
                f"lower the learning rate."
            )
        best_score = _keep(parameters, best, score, best_score)
        history.loss.append(loss.item())
        history.score.append(score.mean().item())
        history.diverged.append(diverged)
        if progress is not None:
            progress(step, loss.item(), score.mean().item())
        if not last:
            if final_learning_rate is not None:
                share = 0.5 + 0.5 * math.cos(math.pi * step / steps)
                rate = final_learning_rate + share * (learning_rate - final_learning_rate)
                optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if last or (step + 1) % every == 0:
            require_finite(parameters, f"descend: step {step}")
        if checkpoint is not None and ((step + 1) % every == 0 or last):
            _save(checkpoint, step + 1, parameters, optimizer, best, best_score, history, settings)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(best[name])
    return history


def _keep(parameters, best, score: Tensor, best_score: Tensor | None) -> Tensor:
    """Take over the parameters where the score is better; a score that is not finite never is."""
    score = torch.where(score.isfinite(), score, torch.inf)
    better = torch.ones_like(score, dtype=torch.bool) if best_score is None else score < best_score
    for name, parameter in parameters.items():
        mask = better.view(-1, *[1] * (parameter.ndim - 1)) if better.ndim else better
        best[name] = torch.where(mask, parameter.detach(), best[name])
    return score if best_score is None else torch.where(better, score, best_score)


def _save(path, step, parameters, optimizer, best, best_score, history, settings) -> None:
    tensors = pack(parameters, optimizer) | {f"best.{name}": value for name, value in best.items()}
    write_tensors(
        path,
        {**tensors, "best_score": best_score},
        {"step": step, "history": vars(history), "settings": settings},
    )


def _restore(path, parameters, optimizer, settings):
    tensors, about = read_tensors(path)
    require_same_settings(path, about.get("settings"), settings)
    step = require_step(path, about.get("step"), settings["steps"] + 1)
    unpack(path, tensors, parameters, optimizer)
    best = {name: torch.zeros_like(p) for name, p in parameters.items()}
    kept = {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
    copy_weights(path, kept, best)
    try:
        return step, History(**about["history"]), best, tensors["best_score"]
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{path}: damaged ({error}). Delete it to train from the start.") from None
