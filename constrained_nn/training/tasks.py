"""Finding a task by what a user wrote, and refusing one that is not whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from constrained_nn.errors import FileFormatError
from constrained_nn.registry import Kind, find, names, spec_of
from control_envs.dynamics import Dynamics
from control_envs.tasks import TASKS, Task

KIND = Kind("task", Task, "control_envs.tasks")

# What a task must say, and what it is.
_NUMBERS = ("dt", "horizon")
_BOUNDS = {
    "input_low": "input_dim",
    "input_high": "input_dim",
    "state_low": "state_dim",
    "state_high": "state_dim",
}


def available_tasks() -> list[str]:
    """Names of all tasks: ours, registered ones, and those of entry points of installed packages."""
    return names(KIND, TASKS)


def find_task(spec: str, options: Mapping[str, Any] | None = None) -> Task:
    """The task that `spec` means: a name, `module:Task` or `file.py:Task`.

    Raises:
        UnknownNameError: There is no such name, module, file or class; the message suggests the nearest.
        FileFormatError: Importing it raises, it is no task, or it lacks something that a task must say.
        ValueError: Its name is taken by another task.
    """
    task = find(KIND, spec, TASKS, options)
    _require_whole(spec, task)
    if task.name != spec and task.name in TASKS and TASKS[task.name] is not type(task):
        raise ValueError(
            f"'{spec}': its name '{task.name}' is taken by another task. Folders and tables have this "
            f"name; give the task another one."
        )
    return task


def task_spec(task: Task) -> str:
    """What finds the task again: its name, or where its class was defined."""
    return spec_of(task, TASKS)


def _require_whole(spec: str, task: Any) -> None:
    plant = getattr(task, "plant", None)
    if not isinstance(plant, Dynamics):
        raise FileFormatError(
            f"'{spec}': expected a plant of control_envs.dynamics.Dynamics in `plant`, got "
            f"{type(plant).__name__}. Set `plant = MyPlant()` in the class."
        )
    for name in ("name", "summary"):
        if not isinstance(getattr(task, name, None), str):
            raise FileFormatError(f"'{spec}': expected text in `{name}`, got none. Set it in the class.")
    for name in _NUMBERS:
        value = getattr(task, name, None)
        if not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise FileFormatError(
                f"'{spec}': expected a positive number in `{name}`, got {value!r}. Set the control "
                f"interval `dt` [s] and the number of intervals `horizon`."
            )
    for name, size in _BOUNDS.items():
        wanted = (getattr(plant, size),)
        value = np.asarray(getattr(task, name, None), dtype=object)
        if value.shape != wanted:
            raise FileFormatError(
                f"'{spec}': expected an array of shape {wanted} in `{name}`, got "
                f"{'none' if getattr(task, name, None) is None else value.shape}. Give one number for "
                f"each {'input' if size == 'input_dim' else 'state'} of {type(plant).__name__}."
            )
    _require_starts(spec, task)


def _require_starts(spec: str, task: Task) -> None:
    """Starts of the right shape, finite, and inside of the region that the task is meant for."""
    starts = np.asarray(task.sample_starts(np.random.default_rng(0), 50))
    wanted = (50, task.plant.state_dim)
    if starts.shape != wanted or not np.isfinite(starts).all():
        raise FileFormatError(
            f"'{spec}': expected finite start states of shape {wanted} from sample_starts, got shape "
            f"{starts.shape}. Return one row for each start."
        )
    outside = (starts < task.state_low) | (starts > task.state_high)
    if outside.any():
        where = int(outside.any(0).argmax())
        raise FileFormatError(
            f"'{spec}': expected start states inside of state_low and state_high, got "
            f"{task.plant.state[where].name} = {starts[outside[:, where], where][0]:.4g}. Move the start "
            f"box, or widen the region."
        )
