"""Scenarios: start states, parameters and disturbances, drawn once by (seed, index) and saved with results.

Row `index` of seed `seed` comes from NumPy's Philox generator with that key, so that it is the same on every
machine and device, for every method, and however many rows are drawn. An environment that was reset with
`seed=s` plays the rows `(s, 0), (s, 1), ...`, one an episode.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from control_envs.disturbances import Distribution, Disturbance
from control_envs.tasks import Task

Parameters = Mapping[str, float | Distribution]
_CHANNELS = ("disturbances", "input_disturbances", "measurement_disturbances")


class Scenario(NamedTuple):
    """One row: start state `(n,)`, parameter values by name, and tables or None for the three channels.

    `disturbance` `(steps, k)` acts in the dynamics, `input` `(steps, m)` is added to the input, `measurement`
    `(steps + 1, n)` to the state that is observed, the first one at the reset.
    """

    start: np.ndarray
    parameters: dict[str, float]
    disturbance: np.ndarray | None
    input: np.ndarray | None = None
    measurement: np.ndarray | None = None


def draw_scenario(
    task: Task,
    seed: int,
    index: int,
    *,
    steps: int | None = None,
    parameters: Parameters | None = None,
    disturbance: Disturbance | None = None,
    input_disturbance: Disturbance | None = None,
    measurement_disturbance: Disturbance | None = None,
) -> Scenario:
    """Row `(seed, index)`; the tables have `steps` intervals (default: the task's horizon).

    Raises:
        ValueError: A parameter is not one of the plant, the plant has no disturbance, or a disturbance has the wrong
            number of values.
    """
    rng = _generator(seed, index, 0)
    start = task.sample_starts(rng, 1)[0]
    values = {}
    if parameters:
        check_parameters(task, parameters)
        for name in sorted(parameters):
            law = parameters[name]
            values[name] = law.draw(rng) if isinstance(law, Distribution) else float(law)
    disturbance = task.disturbance if disturbance is None else disturbance
    table = None
    steps = task.horizon if steps is None else steps
    if disturbance is not None:
        channels = len(task.plant.disturbance)
        if not channels:
            raise ValueError(
                f"{type(task.plant).__name__} has no disturbance channel, got {disturbance}. Leave it out, or "
                f"give the plant a `disturbance` table of quantities."
            )
        table = _table(disturbance, rng, steps, task.dt, channels)
    added = []
    for stream, one, count, channels in (  # streams of their own: what one channel draws changes no other
        (1, input_disturbance, steps, task.plant.input_dim),
        (2, measurement_disturbance, steps + 1, task.plant.state_dim),
    ):
        rng = _generator(seed, index, stream)
        added.append(None if one is None else _table(one, rng, count, task.dt, channels))
    return Scenario(start, values, table, *added)


def _generator(seed: int, index: int, stream: int) -> np.random.Generator:
    key = np.array([seed % 2**64, index], dtype=np.uint64)
    return np.random.Generator(
        np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], dtype=np.uint64))
    )


def _table(
    disturbance: Disturbance, rng: np.random.Generator, steps: int, dt: float, channels: int
) -> np.ndarray:
    message = f"{disturbance}: expected one value, or one for each channel ({channels} here)."
    try:
        table = disturbance.draw(rng, steps, dt, channels)
    except ValueError as error:
        raise ValueError(message) from error
    if table.shape != (steps, channels):
        raise ValueError(message)
    return table


def check_parameters(task: Task, parameters: Parameters) -> None:
    """Every name is a parameter of the plant.

    Raises:
        ValueError: One is not.
    """
    known = [f.name for f in fields(task.plant)]  # pyright: ignore[reportArgumentType]
    for name in parameters:
        if name not in known:
            raise ValueError(
                f"{type(task.plant).__name__} has no parameter '{name}'. Parameters: {', '.join(known) or 'none'}."
            )


@dataclass(frozen=True, eq=False)
class Scenarios:
    """A table of scenarios.

    Args:
        task: Name and version of the task, such as `"pendulum-v0"`.
        seed: Seed of the rows.
        starts: Start states `(count, n)`.
        parameters: Parameter values `(count,)` by name.
        disturbances: Disturbances of the dynamics `(count, steps, k)`, or None.
        input_disturbances: Added to the inputs `(count, steps, m)`, or None.
        measurement_disturbances: Added to the observed states `(count, steps + 1, n)`, or None.

    Example:
        >>> from control_envs.tasks import make_task
        >>> Scenarios.draw(make_task("double-integrator"), seed=1, count=3).starts.shape
        (3, 2)
    """

    task: str
    seed: int
    starts: np.ndarray
    parameters: Mapping[str, np.ndarray]
    disturbances: np.ndarray | None
    input_disturbances: np.ndarray | None = None
    measurement_disturbances: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Scenario:
        parameters = {name: float(values[index]) for name, values in self.parameters.items()}
        tables = [None if table is None else table[index] for table in self._tables().values()]
        return Scenario(self.starts[index].copy(), parameters, *tables)

    def _tables(self) -> dict[str, np.ndarray | None]:
        """The channels in the order of `Scenario`."""
        return {name: getattr(self, name) for name in _CHANNELS}

    @classmethod
    def draw(
        cls,
        task: Task,
        *,
        seed: int,
        count: int,
        steps: int | None = None,
        parameters: Parameters | None = None,
        disturbance: Disturbance | None = None,
        input_disturbance: Disturbance | None = None,
        measurement_disturbance: Disturbance | None = None,
    ) -> Scenarios:
        """Rows `(seed, 0)` to `(seed, count - 1)`."""
        rows = [
            draw_scenario(
                task,
                seed,
                i,
                steps=steps,
                parameters=parameters,
                disturbance=disturbance,
                input_disturbance=input_disturbance,
                measurement_disturbance=measurement_disturbance,
            )
            for i in range(count)
        ]
        names = sorted(parameters or {})
        tables: dict[str, np.ndarray | None] = {name: None for name in _CHANNELS}
        for name, column in zip(_CHANNELS, zip(*(row[2:] for row in rows), strict=True), strict=False):
            if column[0] is not None:
                tables[name] = np.array(column)
        return cls(
            task=f"{task.name}-v{task.version}",
            seed=seed,
            starts=np.array([r.start for r in rows]).reshape(count, task.plant.state_dim),
            parameters={name: np.array([r.parameters[name] for r in rows]) for name in names},
            **tables,
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write an `.npz` file, by a temporary name, so that nothing half-written stays."""
        path = Path(path)
        arrays: dict[str, Any] = {"starts": self.starts}
        arrays |= {f"parameter_{name}": values for name, values in self.parameters.items()}
        arrays |= {name: table for name, table in self._tables().items() if table is not None}
        header = json.dumps({"schema": "control-envs/scenarios/1", "task": self.task, "seed": self.seed})
        temporary = path.with_name(path.name + ".tmp")
        try:
            with open(temporary, "wb") as file:
                np.savez(file, header=np.array(header), **arrays)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Scenarios:
        """Read a file written by `save`.

        Raises:
            ValueError: The file is missing, damaged, or not a scenario table.
        """
        try:
            if not Path(path).is_file():  # a pipe would be waited for
                raise OSError("no regular file")
            with np.load(path, allow_pickle=False) as data:
                header = json.loads(str(data["header"]))
                if header["schema"] != "control-envs/scenarios/1":
                    raise KeyError("schema")
                return cls(
                    task=header["task"],
                    seed=int(header["seed"]),
                    starts=data["starts"],
                    parameters={k[10:]: data[k] for k in data.files if k.startswith("parameter_")},
                    **{name: data[name] if name in data.files else None for name in _CHANNELS},
                )
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"Scenarios.load: '{path}' is not a scenario table ({error}). Write one with `Scenarios.save`."
            ) from error
