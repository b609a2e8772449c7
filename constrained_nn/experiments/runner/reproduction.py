"""An experiment as cells, and its table beside the published one."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from constrained_nn.errors import FileFormatError, UnknownNameError
from constrained_nn.experiments.runner.cells import (
    DONE,
    UNFINISHED,
    Cell,
    Outcome,
    Report,
    describe_error,
    read_outcome,
    run_cells,
)
from constrained_nn.experiments.runner.earlier import Key, changed_settings, earlier_cells
from constrained_nn.experiments.runner.protocol import Comparison, Experiment, Row
from constrained_nn.files import commit, machine, read_values, versions, write_values


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
    jobs: int | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """All cells of an experiment, as a table of JSON values.

    Args:
        experiment: The experiment.
        runs: Folder for the cells; each has its own folder in it, with what a later resumption
            needs.
        seeds: Seeds of the seeded rows; default those of the experiment.
        rows: Names of the rows to run; default all. The others keep what an earlier run found.
        resume: Keep finished cells and continue interrupted ones.
        fresh: Start over; the folder that an earlier run left is renamed, and nothing is deleted.
        reference: Folder with published arrays to compare with.
        earlier: Result files whose finished cells are kept where `runs` has none; their seeds are
            added.
        jobs: Processes at a time, of one thread each; None: in this process, one cell after
            another.
        report: Called with one line of progress at a time.

    Raises:
        UnknownNameError: A row does not exist.
        FileFormatError: `runs` holds cells and neither `resume` nor `fresh` is given, or they or
            those of a file in `earlier` were made with other settings.
        ValueError: A seed is negative or occurs twice, or no row depends on a seed.
    """
    chosen = choose_rows(experiment, rows)
    kept = earlier_cells(experiment, earlier)
    seeds = _all_seeds(experiment, seeds, kept)
    _prepare_folder(experiment, runs, resume=resume, fresh=fresh)
    cells = _cells(experiment, runs, seeds)
    if kept:
        report(f"{len(kept)} finished cells are kept from {', '.join(f.name for f in earlier)}")
    work = [cell for key, cell in cells.items() if key[0] in chosen and key not in kept]
    run_cells(work, jobs=jobs, report=report, describe=partial(_describe_metrics, experiment))
    found = {key: _result(read_outcome(cell), kept.get(key)) for key, cell in cells.items()}
    results = [found[row.name, seed] for row in experiment.rows for seed in _seeds_of(row, seeds)]
    comparisons = [] if reference is None else _compare(experiment, reference, report)
    return _table(experiment, seeds, results, comparisons)


# --- cells ---------------------------------------------------------------------------------------


def choose_rows(experiment: Experiment, names: Sequence[str] | None) -> Sequence[str]:
    """`names`, or those of all rows.

    Raises:
        UnknownNameError: There is no such row.
    """
    known = [row.name for row in experiment.rows]
    if names is None:
        return known
    for name in names:
        if name not in known:
            raise UnknownNameError(f"{experiment.name} has no row '{name}'. Rows: {', '.join(known)}.")
    return names


def _all_seeds(
    experiment: Experiment, seeds: Sequence[int] | None, kept: Mapping[Key, Any]
) -> tuple[int, ...]:
    """The seeds that are asked for, and those of earlier results."""
    if seeds is not None and not any(row.seeded for row in experiment.rows):
        raise ValueError(f"{experiment.name}: no row depends on a seed. Leave the seeds out.")
    seeds = tuple(experiment.seeds if seeds is None else seeds)
    if len(set(seeds)) != len(seeds):
        twice = next(s for s in seeds if seeds.count(s) > 1)
        raise ValueError(f"reproduce: expected every seed once, got seed {twice} twice. Leave one out.")
    if min(seeds, default=0) < 0:
        raise ValueError(f"reproduce: expected seeds of at least 0, got {min(seeds)}.")
    return (*seeds, *sorted({seed for _, seed in kept if seed is not None} - {*seeds}))


def _seeds_of(row: Row, seeds: Sequence[int]) -> Sequence[int | None]:
    return seeds if row.seeded else (None,)


def _cells(experiment: Experiment, runs: Path, seeds: Sequence[int]) -> dict[Key, Cell]:
    """All cells by row and seed, in the order in which they run.

    Seed by seed, so that an interruption leaves as many complete seeds as possible; a training that
    several rows share comes before the rows that continue it.
    """
    once = [(row, None) for row in experiment.rows if not row.seeded]
    rows = sorted((row for row in experiment.rows if row.seeded), key=lambda row: bool(row.shares))
    settings = experiment.settings()
    cells = {}
    for row, seed in [*once, *((row, seed) for seed in seeds for row in rows)]:
        cells[row.name, seed] = Cell(
            title=f"{experiment.name}: {row.label}" + ("" if seed is None else f", seed {seed}"),
            labels={"row": row.name, "seed": seed},
            settings=settings,
            folder=runs / (row.name if seed is None else f"{row.name}-seed{seed}"),
            run=partial(_measure, experiment, row.name, seed),
            group=(row.shares or row.name, seed),
        )
    return cells


def _measure(experiment: Experiment, row: str, seed: int | None, folder: Path) -> dict[str, Any]:
    metrics = experiment.run(row, seed, folder)
    return {"metrics": {name: json_number(value) for name, value in metrics.items()}}


def _prepare_folder(experiment: Experiment, runs: Path, *, resume: bool, fresh: bool) -> None:
    """Make the folder, and see to it that cells of different settings never meet in one table."""
    if fresh and runs.exists():
        # whatever else the user keeps in it is not ours to delete
        aside = (runs.with_name(f"{runs.name}.old{n}") for n in itertools.count(1))
        runs.rename(next(path for path in aside if not path.exists()))
    saved = runs / "settings.json"
    if saved.exists():
        if not resume:
            raise FileFormatError(
                f"{runs} holds an earlier run of {experiment.name}. Pass --resume to continue it, "
                f"--fresh to move it aside and start over, or --runs to work elsewhere."
            )
        if changed := changed_settings(read_values(saved), experiment.settings()):
            raise FileFormatError(
                f"{runs} was made with other settings ({', '.join(changed)}). Its cells cannot be mixed "
                f"with new ones. Pass --fresh to move them aside, or --runs to work elsewhere."
            )
    write_values(saved, _json_settings(experiment))


def _json_settings(experiment: Experiment) -> dict[str, Any]:
    return json.loads(json.dumps(experiment.settings(), sort_keys=True, allow_nan=False))


def _describe_metrics(experiment: Experiment, outcome: Outcome) -> str:
    """The columns of the table that a finished cell has numbers for."""
    metrics = outcome.values["metrics"]
    shown = [(column, metrics.get(column.name)) for column in experiment.columns]
    return ", ".join(
        f"{column.label} {value:{column.format}}" for column, value in shown if isinstance(value, float | int)
    )


# --- the table -----------------------------------------------------------------------------------


def _result(outcome: Outcome, kept: dict[str, Any] | None) -> dict[str, Any]:
    """What the result file says of a cell: what its folder holds, else what an earlier file does."""
    if outcome.status != DONE and kept is not None:
        return kept
    if outcome.status == UNFINISHED:
        return {**outcome.cell.labels, "status": "not run"}
    return dict(outcome.values)


def _compare(experiment: Experiment, reference: Path, report: Report) -> list[Comparison]:
    """The comparisons; one that cannot be made disagrees, and costs no finished cell."""
    try:
        return experiment.compare(reference, report)
    except Exception as error:
        what = f"not possible: {describe_error(error)}"
        return [Comparison(what, math.nan, math.nan, 0.0)]


def _table(
    experiment: Experiment,
    seeds: Sequence[int],
    results: list[dict[str, Any]],
    comparisons: list[Comparison],
) -> dict[str, Any]:
    """The content of the result file."""
    columns = [{"name": c.name, "label": c.label, "format": c.format} for c in experiment.columns]
    reference = [
        {
            "what": c.what,
            "ours": json_number(c.ours),
            "reference": json_number(c.reference),
            "atol": c.atol,
            "agrees": c.agrees,
        }
        for c in comparisons
    ]
    return {
        "name": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "seeds": list(seeds),
        "center": experiment.center,
        "settings": _json_settings(experiment),
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
        "columns": columns,
        "rows": [
            _summary(experiment, row, [r for r in results if r["row"] == row.name]) for row in experiment.rows
        ],
        "cells": results,
        "reference": reference,
        "notes": list(experiment.notes),
    }


def _summary(experiment: Experiment, row: Row, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation, or median and range, over the finished seeds, and which are missing."""
    done = [r for r in results if r["status"] == DONE]
    ours: dict[str, Any] = {}
    for column in experiment.columns:
        values = [r["metrics"][column.name] for r in done if column.name in r["metrics"]]
        if not values:
            continue
        finite = all(isinstance(v, float | int) for v in values)
        mean = statistics.fmean(values) if finite else "not finite"
        std = statistics.stdev(values) if finite and len(values) > 1 else None
        entry: dict[str, Any] = {"mean": mean, "std": std, "count": len(values)}
        if experiment.center == "median":
            values = [float(v) for v in values]  # what is not finite is written in words
            summary = {"median": statistics.median(values), "low": min(values), "high": max(values)}
            entry |= {name: json_number(value) for name, value in summary.items()}
        ours[column.name] = entry
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


def json_number(value: float | None) -> float | str:
    """A JSON number, or the name of one that JSON cannot hold; None stands for NaN."""
    value = float("nan" if value is None else value)
    return value if math.isfinite(value) else str(value)
