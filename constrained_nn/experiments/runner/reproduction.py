"""Runs an experiment cell by cell, keeps what is finished, and writes the table beside the published one."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from constrained_nn.errors import FileFormatError, UnknownNameError
from constrained_nn.experiments.runner.earlier import changed_settings, earlier_cells
from constrained_nn.experiments.runner.protocol import Comparison, Experiment, Row
from constrained_nn.files import commit, machine, read_values, versions, write_values

Report = Callable[[str], None]
_SOURCE = Path(__file__).resolve().parents[3]


def reproduce(
    experiment: Experiment,
    *,
    runs: Path,
    seeds: Sequence[int] | None = None,
    rows: Sequence[str] | None = None,
    resume: bool = False,
    fresh: bool = False,
    reference: Path | None = None,
    earlier: Sequence[Path] = (),
    report: Report = print,
) -> dict[str, Any]:
    """All cells of an experiment, as a table of JSON values.

    Args:
        runs: Folder for the cells; each has its own folder in it, with what a later resumption needs.
        seeds: Seeds of the seeded rows; default those of the experiment.
        rows: Names of the rows to run; default all. The others keep what an earlier run found.
        resume: Reuse finished cells and go on with interrupted ones.
        fresh: Begin anew; the folder that an earlier run left is renamed, and nothing is deleted.
        reference: Folder with published arrays to compare with.
        earlier: Result files whose finished cells are kept where `runs` has none; their seeds are added.
        report: Called with one line of progress at a time.

    Raises:
        UnknownNameError: A row does not exist.
        FileFormatError: `runs` holds cells and neither `resume` nor `fresh` is given, or they or those of a file in
            `earlier` were made with other settings.
        ValueError: A seed is negative or occurs twice.
    """
    chosen = choose_rows(experiment, rows)
    seeds = tuple(experiment.seeds if seeds is None else seeds)
    if len(set(seeds)) != len(seeds):
        twice = next(s for s in seeds if seeds.count(s) > 1)
        raise ValueError(f"reproduce: expected every seed once, got seed {twice} twice. Leave one out.")
    if min(seeds, default=0) < 0:
        raise ValueError(f"reproduce: expected seeds of at least 0, got {min(seeds)}.")
    kept = earlier_cells(experiment, earlier)
    seeds = (*seeds, *sorted({seed for _, seed in kept if seed is not None} - {*seeds}))
    cells = [(row, seed) for row in experiment.rows for seed in (seeds if row.seeded else (None,))]
    to_run = sum(row.name in chosen for row, _ in cells)
    prepare_cells(experiment, runs, resume=resume, fresh=fresh)
    results, started = [], 0
    for row, seed in cells:
        directory = runs / cell_name(row.name, seed)
        result = read_cell(directory) or kept.get((row.name, seed))
        if row.name not in chosen:  # in the table all the same, if an earlier run has it
            results.append(
                result or _saved(directory) or {"row": row.name, "seed": seed, "status": "not run"}
            )
            continue
        started += 1
        label = f"[{started}/{to_run}] {experiment.name}: {cell_title(row, seed)}"
        if result is None:
            report(f"{label} ...")
            result = run_cell(experiment, row, seed, directory)
            report(f"{label}: {describe_outcome(experiment, result)}")
        else:
            report(f"{label}: kept from an earlier run")
        results.append(result)
    comparisons = [] if reference is None else _compare(experiment, reference, report)
    return {
        "name": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "seeds": list(seeds),
        "center": experiment.center,
        "settings": json.loads(spell_settings(experiment)),
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
        "columns": [{"name": c.name, "label": c.label, "format": c.format} for c in experiment.columns],
        "rows": [
            _summary(experiment, row, [r for r in results if r["row"] == row.name]) for row in experiment.rows
        ],
        "cells": results,
        "reference": [
            {"what": c.what, "ours": number(c.ours), "reference": number(c.reference), "atol": c.atol}
            | {"agrees": c.agrees}
            for c in comparisons
        ],
        "notes": list(experiment.notes),
    }


def _compare(experiment: Experiment, reference: Path, report: Report) -> list[Comparison]:
    """The comparisons; one that cannot be made disagrees, and costs no finished cell."""
    try:
        return experiment.compare(reference, report)
    except Exception as error:
        return [Comparison(f"not possible: {_describe(error)}", math.nan, math.nan, 0.0)]


def _describe(error: Exception) -> str:
    """One line on an error; pages name no folder of this machine."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".replace(f"{_SOURCE}/", "")


def number(value: float | None) -> float | str:
    """A JSON number, or the name of a value that JSON cannot hold; None is what a result file has for it."""
    value = float("nan" if value is None else value)
    return value if math.isfinite(value) else str(value)


def choose_rows(experiment: Experiment, names: Sequence[str] | None) -> Sequence[str]:
    known = [row.name for row in experiment.rows]
    if names is None:
        return known
    for name in names:
        if name not in known:
            raise UnknownNameError(f"{experiment.name} has no row '{name}'. Rows: {', '.join(known)}.")
    return names


def spell_settings(experiment: Experiment) -> str:
    return json.dumps(experiment.settings(), sort_keys=True, allow_nan=False)


def prepare_cells(experiment: Experiment, runs: Path, *, resume: bool, fresh: bool) -> None:
    """Make the folder, and see to it that cells of different settings never meet in one table."""
    if fresh and runs.exists():
        _set_aside(runs)
    saved = runs / "settings.json"
    if saved.exists():
        if not resume:
            raise FileFormatError(
                f"{runs} holds an earlier run of {experiment.name}. Pass --resume to go on with it, --fresh to "
                f"move it aside and begin anew, or --runs to work elsewhere."
            )
        if changed := changed_settings(read_values(saved), experiment.settings()):
            raise FileFormatError(
                f"{runs} was made with other settings ({', '.join(changed)}). Its cells cannot be mixed with new "
                f"ones. Pass --fresh to move them aside, or --runs to work elsewhere."
            )
    write_values(saved, json.loads(spell_settings(experiment)))


def _set_aside(runs: Path) -> None:
    """Rename the folder: whatever else the user keeps in it is not ours to delete."""
    aside = (runs.with_name(f"{runs.name}.old{n}") for n in itertools.count(1))
    runs.rename(next(path for path in aside if not path.exists()))


def read_cell(directory: Path) -> dict[str, Any] | None:
    """The result that is kept in a cell's folder; a failed or damaged one is run again."""
    result = _saved(directory)
    return result if result is not None and result["status"] == "done" else None


def _saved(directory: Path) -> dict[str, Any] | None:
    """What a cell's folder says, be it done or failed; None for a damaged one."""
    try:
        result = read_values(directory / "cell.json")
        return result if result["status"] in ("done", "failed") else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_cell(experiment: Experiment, row: Row, seed: int | None, directory: Path) -> dict[str, Any]:
    directory.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    result: dict[str, Any] = {"row": row.name, "seed": seed, "commit": commit(), "versions": versions()}
    try:
        metrics = experiment.run(row.name, seed, directory)
    except Exception as error:  # one bad cell must not cost the others
        result |= {"status": "failed", "error": _describe(error)}
    else:
        result |= {"status": "done", "metrics": {k: number(v) for k, v in metrics.items()}}
    result["seconds"] = round(time.perf_counter() - start, 2)
    write_values(directory / "cell.json", result)
    return result


def _summary(experiment: Experiment, row: Row, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation, or median and range, over the finished seeds, and which are not finished."""
    done = [r for r in results if r["status"] == "done"]
    ours: dict[str, Any] = {}
    for column in experiment.columns:
        values = [r["metrics"][column.name] for r in done if column.name in r["metrics"]]
        if not values:
            continue
        finite = all(isinstance(v, float | int) for v in values)
        mean = statistics.fmean(values) if finite else "not finite"
        std = statistics.stdev(values) if finite and len(values) > 1 else None
        ours[column.name] = {"mean": mean, "std": std, "count": len(values)}
        if experiment.center == "median":
            values = [float(v) for v in values]  # what is not finite is written in words
            low, middle, high = min(values), statistics.median(values), max(values)
            ours[column.name] |= {"median": number(middle), "low": number(low), "high": number(high)}
    return {
        "name": row.name,
        "label": row.label,
        "ours": ours,
        "published": {k: {"mean": p.value, "std": p.std} for k, p in row.published.items()},
        "cells": len(results),
        "failed": [r["seed"] for r in results if r["status"] == "failed"],
        "not_run": [r["seed"] for r in results if r["status"] == "not run"],
        "note": row.note,
    }


def cell_name(row: str, seed: int | None) -> str:
    return row if seed is None else f"{row}-seed{seed}"


def cell_title(row: Row, seed: int | None) -> str:
    return row.label if seed is None else f"{row.label}, seed {seed}"


def describe_outcome(experiment: Experiment, result: dict[str, Any]) -> str:
    if result["status"] != "done":
        return f"failed ({result['error']})"
    metrics = result["metrics"]
    shown = [
        f"{c.label} {c_value:{c.format}}"
        for c in experiment.columns
        if isinstance(c_value := metrics.get(c.name), float | int)
    ]
    return f"{', '.join(shown)} ({result['seconds']:.0f} s)"
