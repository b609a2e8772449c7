"""A training run on disk: settings, checkpoint, log, policy, result."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from constrained_nn.control import Controller, SaturatedController
from constrained_nn.errors import FileFormatError
from constrained_nn.files import read_tensors, read_values, write_values
from constrained_nn.training.checkpoint import copy_weights, require_same_settings
from constrained_nn.training.closed_loop.backbone import make_backbone
from constrained_nn.training.closed_loop.config import TrainConfig
from constrained_nn.training.methods import Condition, Method
from constrained_nn.training.safety import Safety, safety_of
from control_envs.tasks import Task

CONFIG, CHECKPOINT, POLICY = "config.json", "checkpoint.safetensors", "policy.safetensors"
METRICS, RESULT = "metrics.jsonl", "result.json"
FILES = (CONFIG, CHECKPOINT, POLICY, METRICS, RESULT)


@dataclass(frozen=True, eq=False)
class Run:
    """A run: what it is (`config`), and what it made of its task (`controller`).

    Args:
        directory: Where its files are.
        config: Its settings.
        task: The task.
        method: The method with its options; a copy, whose layers count this run alone.
        backbone: The network.
        proposer: The policy `(t, x) -> u` before anything is enforced.
        safety: What is asked of inputs, and what it guarantees.
        condition: The constraint set of each state, as the method sees it.
        controller: The policy.
    """

    directory: Path
    config: TrainConfig
    task: Task
    method: Method
    backbone: nn.Sequential
    proposer: Controller
    safety: Safety
    condition: Condition
    controller: Controller


def new_run(directory: Path, config: TrainConfig, *, device: str = "cpu") -> Run:
    """A run with fresh weights; writes nothing.

    Raises:
        DegreeError: The method asks for constraints that rows in the input cannot keep.
    """
    task, method = config.task, copy.deepcopy(config.method)
    x = torch.zeros(1, task.plant.state_dim, dtype=config.torch_dtype)
    features = task.features(0.0, x).shape[-1]
    backbone = make_backbone(
        features, task.plant.input_dim, config.hidden, config.seed, config.torch_dtype
    ).to(device)
    if config.from_nominal:
        for tensor in backbone[-1].parameters():
            nn.init.zeros_(tensor)
    safety = safety_of(task, config.gains)
    condition: Condition = safety.condition if method.constrains else _no_condition
    proposer = method.network(task, backbone)
    if config.from_nominal:  # a published task states its own controller, beyond the limits or not
        low, high = (torch.as_tensor(side) for side in (task.input_low, task.input_high))
        proposer = SaturatedController(proposer, low, high)
    controller = method.controller(proposer, condition).to(device)
    return Run(Path(directory), config, task, method, backbone, proposer, safety, condition, controller)


def _no_condition(t: Any, x: Tensor) -> Any:
    raise TypeError("training: expected a method with `constrains = True`, since it asks for the set.")


def load_run(directory: str | Path, *, device: str = "cpu") -> Run:
    """A finished run with its trained weights, in eval mode.

    Raises:
        FileFormatError: The folder or a file of it is missing, damaged, or does not belong to the run: a file that
            was changed after it was written, weights of other settings, shapes or dtypes, or not finite ones.
    """
    directory = Path(directory)
    run = new_run(directory, read_config(directory), device=device)
    if run.method.learns:
        tensors, about = read_tensors(directory / POLICY)
        found: Any = about.get("config")
        with contextlib.suppress(ValueError, TypeError, LookupError):  # whatever is wrong with it, it differs
            found = TrainConfig.from_json(found).to_json()  # an older file may state options at their default
        require_same_settings(directory / POLICY, found, run.config.to_json())
        copy_weights(directory / POLICY, tensors, run.backbone.state_dict())
    run.controller.eval()
    return run


def read_config(directory: Path) -> TrainConfig:
    """The settings of a run.

    Raises:
        FileFormatError: The file is missing or damaged.
    """
    path = directory / CONFIG
    try:
        return TrainConfig.from_json(read_values(path))
    except (FileNotFoundError, NotADirectoryError):
        raise FileFormatError(
            f"{directory}: expected a run with a {CONFIG}, found none. Train one: `constrained-nn train`."
        ) from None
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"{path}: damaged settings ({error}). Train the run again.") from None


def read_result(directory: Path) -> dict[str, Any]:
    """What a run measured.

    Raises:
        FileFormatError: The file is missing or damaged.
    """
    path = directory / RESULT
    try:
        return read_values(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileFormatError(
            f"{directory}: expected a finished run with a {RESULT}, found none. "
            f"Finish it with `constrained-nn train --resume`, or simulate it."
        ) from None
    except ValueError as error:
        raise FileFormatError(f"{path}: damaged ({error}). Simulate the run again.") from None


def write_result(run: Run, metrics: Mapping[str, float], **more: Any) -> None:
    """`result.json`: metrics, settings and where they come from."""
    finite = {name: value if abs(value) < float("inf") else None for name, value in metrics.items()}
    write_values(run.directory / RESULT, {"metrics": finite, "config": run.config.to_json(), **more})
