"""Thin Gymnasium shells over tasks; importing this package registers every task as `Ctrl/Name-v0`."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

from control_envs.checks import check_plant
from control_envs.envs.adapters import ControllerPolicy, FlatInfo, SafetyGymnasium, as_policy, evaluate
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
    """Make a task known by name and as a Gymnasium id, which is returned.

    A class that is defined anew, as in a notebook, takes the place of its earlier definition.

    Raises:
        ValueError: Another task has this name.

    Example:
        >>> from control_envs.tasks import PendulumTask
        >>> register(PendulumTask)
        'Ctrl/Pendulum-v0'
    """
    earlier = TASKS.get(task.name, task)
    if (earlier.__module__, earlier.__qualname__) != (task.__module__, task.__qualname__):
        raise ValueError(
            f"register: expected a name of its own for {task.__qualname__}, got '{task.name}', which "
            f"{earlier.__module__}.{earlier.__qualname__} has. Give the task another name."
        )
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


def check(id: str) -> None:
    """Everything that is promised of a registered task: its plant, both checkers of Gymnasium, NumPy against torch.

    Raises:
        AssertionError: A promise is broken.
        Exception: What the checker raises; a warning counts as an error.
    """
    env: Any = make(id).unwrapped
    task = env.task
    check_plant(task.plant)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
    envs = ControlVectorEnv(task, 2)
    single, _ = env.reset(seed=0)
    many, _ = envs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(3):
        assert np.allclose(many[0], single, rtol=1e-6, atol=1e-6), (
            f"{id}: vector and single environment differ."
        )
        action = 0.1 * rng.uniform(-1, 1, env.action_space.shape)
        single, many = env.step(action)[0], envs.step(np.stack([action, action]))[0]


def table() -> str:
    """Markdown table of the registered tasks: actions, observations' states and constraints with their units."""
    lines = ["| id | actions | states | constraints `g <= 0` | dt, horizon |", "|---|---|---|---|---|"]
    for task in sorted((cls() for cls in TASKS.values()), key=env_id):
        plant = task.plant
        inputs = zip(plant.input, task.input_low, task.input_high, strict=True)
        cells = [
            f"`{env_id(task)}`",
            ", ".join(f"{q.name} {low:g} to {high:g} {q.unit}" for q, low, high in inputs),
            ", ".join(f"{q.name} [{q.unit}]" for q in plant.state),
            ", ".join(f"{c.name} [{c.unit}]" for c in task.constraints),
            f"{task.dt:g} s, {task.horizon}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
    "FlatInfo",
    "NormalizeObservation",
    "NormalizeReward",
    "RecordStatistics",
    "Renderer",
    "RescaleAction",
    "SafetyFilter",
    "SafetyGymnasium",
    "VectorSafetyFilter",
    "as_policy",
    "check",
    "env_id",
    "evaluate",
    "ids",
    "make",
    "make_vec",
    "record",
    "register",
    "table",
    "write_film",
]
