"""What an interrupted training goes on from, and whether it belongs to the run at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from constrained_nn.errors import ConvergenceError, FileFormatError
from constrained_nn.files import read_tensors, write_tensors

if TYPE_CHECKING:
    from constrained_nn.training.engine import Training

_WEIGHTS, _OPTIMIZER, _BEST = "weights.", "optimizer.", "best."


@dataclass
class History:
    """What happened: one entry a step.

    Args:
        loss: Mean training loss.
        score: Validation score (mean over models), where there is one.
        diverged: Rollouts that ran away, in training and validation together, where they are counted.
    """

    loss: list[float | None] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    diverged: list[int] = field(default_factory=list)


@dataclass
class State:
    """Where a training stands, beside weights and optimizer.

    Args:
        step: The last step that is done.
        history: What happened.
        best: The weights with the best score.
        best_score: Their score, of each model.
    """

    step: int = 0
    history: History = field(default_factory=History)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: Tensor | None = None

    def add(self, step: int, record: Mapping[str, float]) -> None:
        """Take over the numbers of a step."""
        self.step = step
        self.history.loss.append(record["loss"])
        if "score" in record:
            self.history.score.append(record["score"])
        if "diverged" in record:
            self.history.diverged.append(int(record["diverged"]))

    def keep(self, weights: Mapping[str, Tensor], score: Tensor) -> None:
        """Take over the weights where the score is better; a score that is not finite never is."""
        score = torch.where(score.isfinite(), score, torch.inf)
        if self.best_score is None:
            self.best = {name: weight.detach().clone() for name, weight in weights.items()}
            self.best_score = score
            return
        better = score < self.best_score
        for name, weight in weights.items():
            mask = better.view(-1, *[1] * (weight.ndim - 1)) if better.ndim else better
            self.best[name] = torch.where(mask, weight.detach(), self.best[name])
        self.best_score = torch.where(better, score, self.best_score)


def save(
    path: Path,
    training: Training,
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
    state: State,
) -> None:
    """Write everything that `restore` needs.

    Raises:
        OSError: The file cannot be written; the old one is left as it was.
    """
    tensors = {_WEIGHTS + name: value for name, value in training.weights().items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{i}.{name}": value for name, value in moments.items()}
    tensors |= {_BEST + name: value for name, value in state.best.items()}
    if state.best_score is not None:
        tensors["best_score"] = state.best_score
    about = {"step": state.step, "history": vars(state.history), "settings": dict(settings)}
    write_tensors(path, tensors | training.counts(), about)


def restore(
    path: Path,
    training: Training,
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
    last: int,
) -> State:
    """Load what `save` wrote into module and optimizer; the state tells the last step, at most `last`.

    Raises:
        FileFormatError: The file is damaged, its settings are others, names, shapes or dtypes differ, or a number
            is not finite.
    """
    tensors, about = read_tensors(path)
    about = _of_today(about, settings)
    require_same_settings(path, about.get("settings"), settings)
    step = _require_step(path, about.get("step"), last)
    copy_weights(path, _named(tensors, _WEIGHTS), training.weights())
    _load_optimizer(path, _named(tensors, _OPTIMIZER), optimizer)
    for name, ours in training.counts().items():
        count = tensors.get(name)
        if count is None or (count.shape, count.dtype) != (ours.shape, ours.dtype):
            raise FileFormatError(f"{path}: {name} does not fit. Delete it to train from the start.")
        ours.copy_(count)
    try:
        history = History(**about["history"])
        state = State(step, history)
        if training.scored:
            state.best = {name: torch.zeros_like(weight) for name, weight in training.weights().items()}
            state.best_score = tensors["best_score"]
            copy_weights(path, _named(tensors, _BEST), state.best)
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{path}: damaged ({error}). Delete it to train from the start.") from None
    if not isinstance(history.loss, list) or len(history.loss) != step:
        raise FileFormatError(
            f"{path}: expected one loss for each of {step} steps. Delete it to train from the start."
        )
    return state


def _of_today(about: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a checkpoint says of itself, also one from before there was one engine for all trainings."""
    if "losses" in about:  # supervised; the oldest do not say what else determined their numbers
        own = {"more": settings.get("more"), **about}
        step, losses = own.pop("epoch", None), own.pop("losses")
        return {"step": step, "history": {"loss": losses}, "settings": own}
    if "config" in about:  # closed loop, which kept no losses
        step = about.get("step")
        losses = [None] * step if isinstance(step, int) else []
        return {"step": step, "history": {"loss": losses}, "settings": about["config"]}
    return about


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _load_optimizer(path: Path, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        _refuse_not_finite(path, _OPTIMIZER + name, tensor)
        fits = index.isdecimal() and int(index) < len(parameters) and tensor.is_floating_point()
        if fits and tensor.ndim:
            ours = parameters[int(index)]
            fits = (tensor.shape, tensor.dtype) == (ours.shape, ours.dtype)
        if not fits:
            raise FileFormatError(
                f"{path}: the optimizer does not fit ({_OPTIMIZER}{name}). Train the run again."
            )
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def copy_weights(path: Path, tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copy the tensors of a file into the weights of a network, and refuse any that do not fit.

    Raises:
        FileFormatError: Names, shapes or dtypes differ, or a weight is not finite.
    """
    if tensors.keys() != weights.keys():
        names = ", ".join(sorted(tensors.keys() ^ weights.keys()))
        raise FileFormatError(f"{path}: the weights do not fit the network of the settings ({names}).")
    for name, tensor in tensors.items():
        ours = weights[name]
        if (tensor.shape, tensor.dtype) != (ours.shape, ours.dtype):
            raise FileFormatError(
                f"{path}: the weights do not fit the network of the settings (expected {name} of shape "
                f"{tuple(ours.shape)} and {ours.dtype}, got {tuple(tensor.shape)} and {tensor.dtype})."
            )
        if ours.isfinite().all():  # a buffer may hold infinite bounds; a weight may not
            _refuse_not_finite(path, f"weight {name}", tensor)
    with torch.no_grad():
        for name, tensor in tensors.items():
            weights[name].copy_(tensor)


def require_same_settings(path: Path, found: Any, expected: Mapping[str, Any]) -> None:
    """Refuse a file of a run with other settings.

    Raises:
        FileFormatError: The settings differ; the message names those that do.
    """
    expected = json.loads(json.dumps(dict(expected)))
    if not isinstance(found, Mapping):
        raise FileFormatError(
            f"{path}: expected the settings of the run in it, found none. Train the run again."
        )
    missing = object()
    changed = [k for k in sorted({*found, *expected}) if found.get(k, missing) != expected.get(k, missing)]
    if changed:
        ours, theirs = ({k: values[k] for k in changed if k in values} for values in (expected, found))
        raise FileFormatError(
            f"{path}: expected a checkpoint with the settings {json.dumps(ours)}, got one of another run with "
            f"{json.dumps(theirs)[:200]}. Delete it to train from the start, or choose another folder."
        )


def _require_step(path: Path, step: Any, last: int) -> int:
    """The step of a checkpoint.

    Raises:
        FileFormatError: It is no step from 1 to `last`.
    """
    if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step <= last:
        raise FileFormatError(
            f"{path}: expected a checkpoint of a step from 1 to {last}, got {step!r}. Delete it to train from the "
            f"start."
        )
    return step


def require_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are not finite, before they are kept.

    Raises:
        ConvergenceError: A weight is NaN or infinite.
    """
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise ConvergenceError(
                f"{where}: expected finite weights, got NaN or infinity in {name}. They are not kept; the last "
                f"checkpoint is. Lower the learning rate."
            )


def _refuse_not_finite(path: Path, name: str, tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise FileFormatError(f"{path}: {name} holds NaN or infinity. Train the run again.")
