"""Finished cells of result files, so that a table is completed instead of measured again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from constrained_nn.errors import FileFormatError
from constrained_nn.experiments.runner.protocol import Experiment
from constrained_nn.files import read_values

Key = tuple[str, int | None]  # row and seed


def earlier_cells(experiment: Experiment, files: Sequence[Path]) -> dict[Key, dict[str, Any]]:
    """Finished cells of result files by row and seed, with the commit and versions that made them.

    Raises:
        FileFormatError: A file is not a result of this experiment with these settings, has a row
            that the experiment lacks, or has other numbers than an earlier file for the same cell.
    """
    found: dict[Key, dict[str, Any]] = {}
    rows = [row.name for row in experiment.rows]
    for file in files:
        for cell in _finished_cells(experiment, file):
            key = (cell["row"], cell["seed"])
            if cell["row"] not in rows:
                raise FileFormatError(f"{file} has a row '{cell['row']}', which {experiment.name} lacks.")
            if key in found and found[key]["metrics"] != cell["metrics"]:
                raise FileFormatError(
                    f"{file} has other numbers for row '{cell['row']}', seed {cell['seed']} than a file before it. "
                    f"Leave one of the two out."
                )
            found.setdefault(key, cell)
    return found


def _finished_cells(experiment: Experiment, file: Path) -> list[dict[str, Any]]:
    """The cells of one file; one that does not say what made it has the origin of the file."""
    try:
        result = read_values(file)
        name, settings, cells = result["name"], result["settings"], result["cells"]
        origin = {"commit": result["commit"], "versions": result["versions"]}
        done = [{**origin, **cell} for cell in cells if cell["status"] == "done"]
        for cell in done:
            _, _, _ = cell["row"], cell["seed"], dict(cell["metrics"])
    except FileFormatError:
        raise
    except OSError as error:
        raise FileFormatError(f"{file} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError):
        raise FileFormatError(f"{file}: expected a result as `reproduce` writes it (NAME.json).") from None
    if name != experiment.name:
        raise FileFormatError(f"{file}: expected a result of {experiment.name}, got one of {name}.")
    if changed := changed_settings(settings, experiment.settings()):
        raise FileFormatError(
            f"{file} was made with other settings ({', '.join(changed)}). Its cells cannot be mixed with new ones."
        )
    return done


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of settings that differ as JSON values."""
    before, now = (json.loads(json.dumps(dict(s))) for s in (before, now))
    missing = object()
    return sorted(k for k in {*before, *now} if before.get(k, missing) != now.get(k, missing))
