"""The head of a certificate, everything but its claims and its digest; and the files that claims are made from."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import constrained_nn
from constrained_nn.errors import FileFormatError
from constrained_nn.files import read_values
from constrained_nn.verify import SCHEMA, VERSION, ClaimModule, encode
from constrained_nn.verify.file import check_names, mapping, spell
from control_envs.tasks import Task


def head(*, command: str, seed: int, task: dict[str, Any], controller: dict[str, Any]) -> dict[str, Any]:
    """A certificate without claims, as JSON values; its digest is still empty.

    Args:
        command: The command line, kept in the file.
        seed: Seed of whatever was drawn.
        task: As `describe_task` makes it.
        controller: Method, dtype, and name and SHA-256 of the file with its weights.

    Raises:
        FileFormatError: `check` would refuse a name.
    """
    check_names(task)
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "digest": "",
        "versions": {
            "constrained-nn": constrained_nn.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "python-flint")},
        },
        "command": spell(command),
        "seed": seed,
        "task": task,
        "controller": {key: spell(value) for key, value in controller.items()},
        "claims": [],
    }


def begin_claim(module: ClaimModule) -> dict[str, Any]:
    """What every claim of a kind has; its statement and verdict are still empty."""
    return {
        "kind": module.KIND,
        "grade": module.GRADE,
        "statement": "",
        "assumptions": list(module.ASSUMPTIONS),
        "verdict": "",
    }


def describe_task(task: Task) -> dict[str, Any]:
    """Name, version, step, horizon and quantities of a task."""
    return {
        "name": task.name,
        "version": task.version,
        "dt": encode(task.dt),
        "horizon": task.horizon,
        "state": [f"{q.name} [{q.unit}]" for q in task.plant.state],
        "input": [f"{q.name} [{q.unit}]" for q in task.plant.input],
    }


def read_record(path: Path, keys: Iterable[str], schema: str, *, what: str, writer: str) -> dict[str, Any]:
    """The JSON values of a file that one of the `save` functions wrote.

    Args:
        path: The file.
        keys: Its keys, exactly.
        schema: What its `schema` says.
        what: What it holds, for messages: `network`.
        writer: Who writes such files, for messages: `save_network`.

    Raises:
        FileFormatError: The file is missing, damaged, or of another kind.
    """
    try:
        saved = read_values(path)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read as a {what}: {error}.") from None
    saved = mapping(saved, keys, path.name)
    if saved["schema"] != schema:
        raise FileFormatError(f"{path} is no {what}. Write one with `evidence.{writer}`.")
    return saved
