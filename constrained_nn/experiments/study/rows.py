"""A study of the rows of one experiment: its cells, its table, its figures."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from constrained_nn.experiments.runner import (
    Experiment,
    Report,
    choose_rows,
    experiment_page,
    fingerprint,
    load,
    reproduce,
)
from constrained_nn.files import write_atomically, write_values
from constrained_nn.settings import MOST_SEED

Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]


class RowsSpec(BaseModel):
    """A study of an experiment; everything but its name may be left out.

    Args:
        experiment: As for `reproduce`: a name, `module:OBJECT` or `file.py:OBJECT`.
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
            experiment = self.load()
            choose_rows(experiment, self.rows)
        except LookupError as error:
            raise ValueError(str(error)) from None
        if self.seeds is not None and not any(row.seeded for row in experiment.rows):
            raise ValueError("seeds: no row depends on a seed. Leave them out.")
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
    """Run what is not finished yet, `jobs` processes at a time."""
    _reproduce(spec, out, rows=spec.rows, jobs=jobs, report=report)


def write_rows(spec: RowsSpec, out: Path, command: str) -> tuple[dict[str, Any], list[Path]]:
    """The table of what is finished, and the files written: JSON, Markdown and figures."""
    experiment = spec.load()
    result = _reproduce(spec, out, rows=[], report=lambda line: None)
    if spec.rows is not None:
        for key, name in (("rows", "name"), ("cells", "row")):
            result[key] = [entry for entry in result[key] if entry[name] in spec.rows]
    result["command"] = command
    data, page = out / f"{experiment.name}.json", out / f"{experiment.name}.md"
    write_values(data, result)
    write_atomically(page, experiment_page(result))
    return result, [data, page, *experiment.draw(result, out)]


def _reproduce(spec: RowsSpec, out: Path, **options: Any) -> dict[str, Any]:
    """The settings are part of the folder's name, so that cells of others are never touched."""
    experiment = spec.load()
    runs = out / f"cells-{fingerprint(experiment.settings())[:8]}"
    return reproduce(experiment, runs=runs, seeds=spec.seeds, resume=True, earlier=spec.earlier, **options)
