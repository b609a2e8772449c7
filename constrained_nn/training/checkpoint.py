"""What an interrupted training goes on from: weights and optimizer, and whether they belong to the run at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from constrained_nn.errors import ConvergenceError, FileFormatError

_WEIGHTS, _OPTIMIZER = "weights.", "optimizer."


def pack(weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and optimizer under the names that `unpack` knows."""
    tensors = {_WEIGHTS + name: value for name, value in weights.items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{i}.{name}": value for name, value in state.items()}
    return tensors


def unpack(
    path: Path, tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Load what `pack` packed into `weights` and `optimizer`.

    Raises:
        FileFormatError: Names, shapes or dtypes differ, or a number is not finite.
    """
    named = {n.removeprefix(_WEIGHTS): t for n, t in tensors.items() if n.startswith(_WEIGHTS)}
    copy_weights(path, named, weights)
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        if not name.startswith(_OPTIMIZER):
            continue
        index, _, key = name.removeprefix(_OPTIMIZER).partition(".")
        _refuse_not_finite(path, name, tensor)
        if not index.isdecimal() or int(index) >= len(parameters) or not tensor.is_floating_point():
            raise FileFormatError(f"{path}: the optimizer does not fit ({name}). Train the run again.")
        if tensor.ndim and (tensor.shape, tensor.dtype) != (
            parameters[int(index)].shape,
            parameters[int(index)].dtype,
        ):
            raise FileFormatError(f"{path}: the optimizer does not fit ({name}). Train the run again.")
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


def require_step(path: Path, step: Any, last: int) -> int:
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
