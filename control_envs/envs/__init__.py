"""Thin Gymnasium shells over tasks; importing this package registers every task as `Ctrl/Name-v0`."""

from __future__ import annotations

import difflib
from typing import Any

import gymnasium

from control_envs.envs.adapters import ControllerPolicy, SafetyGymnasium, as_policy, evaluate
from control_envs.envs.rendering import Renderer, record, write_film
from control_envs.envs.safety import SafetyFilter, VectorSafetyFilter
from control_envs.envs.single import ControlEnv
from control_envs.envs.vector import ControlVectorEnv
from control_envs.envs.wrappers import (
    ClipAction,
    NormalizeObservation,
    NormalizeReward,
    RecordStatistics,
    RescaleAction,
)
from control_envs.errors import UnknownTaskError
from control_envs.tasks import TASKS, Task


def env_id(task: Task | type[Task]) -> str:
    """Gymnasium id of a task: `unicycle-obstacles` is `Ctrl/UnicycleObstacles-v0`."""
    name = "".join(word.capitalize() for word in task.name.split("-"))
    return f"Ctrl/{name}-v{task.version}"


def register(task: type[Task]) -> str:
    """Make a task known by name and as a Gymnasium id, which is returned; registering it again replaces it.

    Example:
        >>> from control_envs.tasks import PendulumTask
        >>> register(PendulumTask)
        'Ctrl/Pendulum-v0'
    """
    TASKS[task.name] = task
    name = env_id(task)
    gymnasium.registry.pop(name, None)
    gymnasium.register(
        id=name,
        entry_point="control_envs.envs:ControlEnv",
        vector_entry_point="control_envs.envs:ControlVectorEnv",
        max_episode_steps=task.horizon,
        kwargs={"task": task.name},
    )
    return name


def ids() -> list[str]:
    """Registered ids of this package."""
    return sorted(name for name in gymnasium.registry if name.startswith("Ctrl/"))


def make(id: str, **kwargs: Any) -> gymnasium.Env:
    """`gymnasium.make` for our ids; the part before the slash may be left out.

    Args:
        id: Such as `"Ctrl/Pendulum-v0"`.
        kwargs: Arguments of `ControlEnv`, and `max_episode_steps`, which sets the horizon as well.

    Raises:
        UnknownTaskError: No environment has this id; the message suggests the nearest.
    """
    steps = kwargs.get("horizon", kwargs.get("max_episode_steps"))
    if steps is not None:
        kwargs |= {"horizon": steps, "max_episode_steps": steps}
    return gymnasium.make(_known(id), **kwargs)


def make_vec(id: str, num_envs: int = 1, **kwargs: Any) -> gymnasium.vector.VectorEnv:
    """`gymnasium.make_vec` for our ids; `kwargs` are arguments of `ControlVectorEnv`.

    Raises:
        UnknownTaskError: No environment has this id; the message suggests the nearest.
    """
    return gymnasium.make_vec(_known(id), num_envs=num_envs, **kwargs)


def _known(id: str) -> str:
    name = id if id.startswith("Ctrl/") else f"Ctrl/{id}"
    if name not in gymnasium.registry:
        near = difflib.get_close_matches(name, ids(), n=1, cutoff=0.0)
        raise UnknownTaskError(
            f"unknown environment '{id}'. Did you mean '{near[0]}'? Ids: {', '.join(ids())}."
        )
    return name


for _task in tuple(TASKS.values()):
    register(_task)
gymnasium.register(
    id="Ctrl/Arm7-v0", entry_point="control_envs.envs.mujoco_arm:ArmEnv", max_episode_steps=200, kwargs={}
)

__all__ = [
    "ClipAction",
    "ControlEnv",
    "ControlVectorEnv",
    "ControllerPolicy",
    "NormalizeObservation",
    "NormalizeReward",
    "RecordStatistics",
    "Renderer",
    "RescaleAction",
    "SafetyFilter",
    "SafetyGymnasium",
    "VectorSafetyFilter",
    "as_policy",
    "env_id",
    "evaluate",
    "ids",
    "make",
    "make_vec",
    "record",
    "register",
    "write_film",
]
