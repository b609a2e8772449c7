"""A study of methods as cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from constrained_nn.experiments.runner import (
    Cell,
    Outcome,
    Report,
    fingerprint,
    read_outcome,
    run_cells,
)
from constrained_nn.experiments.study.cell import measure_cell
from constrained_nn.experiments.study.spec import MethodSpec, StudySpec
from control_envs.tasks import make_task

Measure = Callable[[dict[str, Any], Sequence[Mapping[str, Any]], Path], dict[str, Any]]


def run_study(
    spec: StudySpec,
    out: Path,
    *,
    jobs: int,
    report: Report = print,
    measure: Measure = measure_cell,
) -> list[Outcome]:
    """Run what is not finished yet, `jobs` processes at a time, and return the outcome of every cell.

    Finished cells are kept; failed ones are tried again. On an interruption the processes are
    ended, their checkpoints stay, and KeyboardInterrupt reaches the caller.
    """
    cells = study_cells(spec, out, measure)
    return run_cells(cells, jobs=jobs, report=report, describe=_describe_costs)


def outcomes(spec: StudySpec, out: Path) -> list[Outcome]:
    """The outcome of every cell, from what is on disk."""
    return [read_outcome(cell) for cell in study_cells(spec, out)]


def study_cells(spec: StudySpec, out: Path, measure: Measure = measure_cell) -> list[Cell]:
    """All cells, seed by seed, so that an interrupted study has as many complete seeds as possible."""
    once = [(m, task, None) for task in spec.tasks for m in spec.methods if not m.learns]
    learn = [(m, task, seed) for seed in spec.seeds for task in spec.tasks for m in spec.methods if m.learns]
    return [_cell(spec, out, measure, *which) for which in (*once, *learn)]


def _cell(
    spec: StudySpec, out: Path, measure: Measure, method: MethodSpec, task: str, seed: int | None
) -> Cell:
    """One method on one task with one seed, None for a method that does not learn."""
    scenarios = [s.model_dump() for s in spec.scenarios]
    named = spec.settings(method, task, 0 if seed is None else seed)
    run = spec.settings(method, task, spec.seeds[0] if seed is None else seed)
    # training settings are part of the folder's name, so that runs of others are never touched
    key = fingerprint({k: v for k, v in named.items() if k != "seed"})[:8]
    label = "".join(c if c.isalnum() or c in "-_." else "_" for c in method.label)
    last = "once" if seed is None else f"seed{seed}"
    return Cell(
        title=f"{task}, {method.label}" + ("" if seed is None else f", seed {seed}"),
        labels={"task": task, "method": method.label, "seed": seed},
        settings=[named, scenarios, make_task(task).version, seed],
        folder=out / "cells" / task / f"{label}-{key}" / last,
        run=partial(measure, run, scenarios),
    )


def _describe_costs(outcome: Outcome) -> str:
    """The mean cost in every scenario, or how many runs diverged."""
    parts = []
    for name, metrics in outcome.values["scenarios"].items():
        costs = metrics.get("cost", [])
        known = [v for v in costs if v is not None]
        lost = len(costs) - len(known)
        mean = f"cost {sum(known) / len(known):.2f}" if known and not lost else "no mean cost"
        parts.append(f"{name}: {mean}" + (f", {lost} of {len(costs)} runs diverged" if lost else ""))
    return "; ".join(parts)
