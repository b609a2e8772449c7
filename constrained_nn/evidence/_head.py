"""The head of a certificate: everything but its claims and its digest."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import constrained_nn
from constrained_nn.verify import SCHEMA, VERSION, encode
from control_envs.tasks import Task


def head(*, command: str, seed: int, task: dict[str, Any], controller: dict[str, Any]) -> dict[str, Any]:
    """A certificate without claims, as JSON values; its digest is still empty.

    Args:
        command: The command line, kept in the file.
        seed: Seed of whatever was drawn.
        task: As `about_task` makes it.
        controller: Method, dtype, and name and SHA-256 of the file with its weights.
    """
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "digest": "",
        "versions": {
            "constrained-nn": constrained_nn.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "python-flint")},
        },
        "command": command,
        "seed": seed,
        "task": task,
        "controller": controller,
        "claims": [],
    }


def about_task(task: Task) -> dict[str, Any]:
    """Name, version, step, horizon and quantities of a task."""
    return {
        "name": task.name,
        "version": task.version,
        "dt": encode(task.dt),
        "horizon": task.horizon,
        "state": [f"{q.name} [{q.unit}]" for q in task.plant.state],
        "input": [f"{q.name} [{q.unit}]" for q in task.plant.input],
    }
