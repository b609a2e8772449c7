"""A study of the rows of one experiment: its cells in parallel processes, its table, its figures."""

from __future__ import annotations

import hashlib
import math
import signal
from collections.abc import Callable
from dataclasses import fields, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from constrained_nn.experiments.runner import (
    Experiment,
    Row,
    cell_name,
    cell_title,
    choose_rows,
    describe_outcome,
    earlier_cells,
    how_it_ended,
    load,
    markdown,
    prepare_cells,
    read_cell,
    reproduce,
    run_cell,
    run_in_processes,
    spell_settings,
)
from constrained_nn.files import write_atomically, write_values
from constrained_nn.settings import MOST_SEED

Report = Callable[[str], None]
Work = tuple[Row, int | None]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]


class RowsSpec(BaseModel):
    """A study of an experiment; everything but its name may be left out.

    Args:
        experiment: Its name, as for `reproduce`.
        rows: Names of rows; default all.
        seeds: Seeds; default those of the experiment.
        settings: Fields of the experiment to be changed, such as `{tests: 200}`.
        earlier: Result files whose finished cells are kept instead of run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: str
    rows: tuple[str, ...] | None = Field(default=None, min_length=1)
    seeds: tuple[Seed, ...] | None = Field(default=None, min_length=1, max_length=10_000)
    settings: dict[str, int | float | bool] = Field(default_factory=dict)
    earlier: tuple[Path, ...] = ()

    @model_validator(mode="after")
    def _known(self) -> RowsSpec:
        try:
            choose_rows(self.load(), self.rows)
        except LookupError as error:
            raise ValueError(str(error)) from None
        for name, values in (("row", self.rows), ("seed", self.seeds)):
            if values is not None and len(set(values)) < len(values):
                raise ValueError(f"a {name} occurs twice. Leave one out.")
        return self

    def load(self) -> Experiment:
        """The experiment with these settings."""
        experiment: Any = load(self.experiment)
        known = [f.name for f in fields(experiment)] if hasattr(experiment, "__dataclass_fields__") else []
        for name, value in self.settings.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"settings.{name}: expected a finite number, got {value}. Give one, or leave it out."
                )
            if name not in known:
                raise LookupError(f"unknown setting '{name}'. Known: {', '.join(known) or 'none'}.")
        return replace(experiment, **self.settings) if self.settings else experiment


def run_rows(spec: RowsSpec, out: Path, *, jobs: int, report: Report = print) -> None:
    """Run what is not finished yet, `jobs` processes at a time; rows that share a training one after the other."""
    experiment, cells = spec.load(), _cells(spec, out)
    kept = earlier_cells(experiment, spec.earlier)
    prepare_cells(experiment, cells, resume=True, fresh=False)
    work = list[Work]()
    for row in (row for row in experiment.rows if spec.rows is None or row.name in spec.rows):
        seeds = (experiment.seeds if spec.seeds is None else spec.seeds) if row.seeded else (None,)
        work += [(row, seed) for seed in seeds]
    work.sort(
        key=lambda w: (w[0].seeded, w[1] or 0, bool(w[0].shares))
    )  # seed by seed, shared trainings first
    todo = [
        (row, seed)
        for row, seed in work
        if (row.name, seed) not in kept and read_cell(cells / cell_name(row.name, seed)) is None
    ]
    finished = len(work) - len(todo)
    if finished:
        report(f"{finished} of {len(work)} cells are finished already")

    def start(context: Any, work: Work) -> BaseProcess:
        row, seed = work
        directory = cells / cell_name(row.name, seed)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cell.json").unlink(missing_ok=True)
        arguments = (spec.model_dump(), row.name, seed, directory)
        process = context.Process(target=_run, args=arguments, daemon=True)
        process.start()
        return process

    def ended(process: BaseProcess, cell: Work) -> None:
        nonlocal finished
        row, seed = cell
        finished += 1
        directory = cells / cell_name(row.name, seed)
        result = read_cell(directory)
        if result is None and not (directory / "cell.json").exists():
            result = {"row": row.name, "seed": seed, "status": "failed", "error": how_it_ended(process)}
            write_values(directory / "cell.json", {**result, "seconds": 0.0})
        outcome = "failed" if result is None else describe_outcome(experiment, result)
        report(f"[{finished}/{len(work)}] {cell_title(row, seed)}: {outcome}")

    run_in_processes(todo, jobs, start, ended, shared=lambda w: (w[0].shares or w[0].name, w[1]))


def _run(spec: dict[str, Any], name: str, seed: int | None, directory: Path) -> None:
    """One cell, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption ends
    import torch

    torch.set_num_threads(1)
    experiment = RowsSpec(**spec).load()
    run_cell(experiment, next(row for row in experiment.rows if row.name == name), seed, directory)


def write_rows(spec: RowsSpec, out: Path, command: str) -> tuple[dict[str, Any], list[Path]]:
    """The table of what is finished, and the files written: the table as JSON and Markdown, and figures."""
    experiment = spec.load()
    result = reproduce(
        experiment, runs=_cells(spec, out), seeds=spec.seeds, rows=[], resume=True, earlier=spec.earlier
    )
    if spec.rows is not None:
        for key in ("rows", "cells"):
            names = {"rows": "name", "cells": "row"}[key]
            result[key] = [entry for entry in result[key] if entry[names] in spec.rows]
    result["command"] = command
    data, page = out / f"{experiment.name}.json", out / f"{experiment.name}.md"
    write_values(data, result)
    write_atomically(page, markdown(result))
    return result, [data, page, *experiment.draw(result, out)]


def _cells(spec: RowsSpec, out: Path) -> Path:
    """The folder of the cells; the settings are part of its name, so that cells of others are never touched."""
    return out / f"cells-{hashlib.sha256(spell_settings(spec.load()).encode()).hexdigest()[:8]}"
