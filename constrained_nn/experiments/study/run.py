"""Runs the cells of a study in parallel processes, and keeps every finished one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from constrained_nn.experiments.runner import how_it_ended, run_in_processes
from constrained_nn.experiments.study.cell import CELL, run_cell
from constrained_nn.experiments.study.spec import MethodSpec, StudySpec
from constrained_nn.files import read_values, write_values

Report = Callable[[str], None]
Target = Callable[[dict[str, Any], list[dict[str, Any]], Path, str], None]


@dataclass(frozen=True)
class Cell:
    """One method on one task with one seed (None for a method that does not learn)."""

    method: MethodSpec
    task: str
    seed: int | None

    @property
    def title(self) -> str:
        return f"{self.task}, {self.method.label}" + ("" if self.seed is None else f", seed {self.seed}")


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: `done` with its values, `failed` with a reason, or `unfinished`."""

    cell: Cell
    status: str
    error: str
    scenarios: dict[str, dict[str, list[float | None]]]


def cells(spec: StudySpec) -> list[Cell]:
    """All cells, seed by seed, so that an interrupted study has as many complete seeds as possible."""
    once = [Cell(m, task, None) for task in spec.tasks for m in spec.methods if not m.learns]
    return once + [
        Cell(m, task, seed) for seed in spec.seeds for task in spec.tasks for m in spec.methods if m.learns
    ]


def run_study(
    spec: StudySpec, out: Path, *, jobs: int, report: Report = print, target: Target = run_cell
) -> list[Outcome]:
    """Run what is not finished yet, `jobs` processes at a time, and return the outcome of every cell.

    Cells that are finished are kept; failed ones are tried again. On an interruption the processes are ended,
    their checkpoints stay, and KeyboardInterrupt goes on to the caller.
    """
    todo = [cell for cell in cells(spec) if _outcome(spec, cell, out).status != "done"]
    total, kept = len(cells(spec)), len(cells(spec)) - len(todo)
    if kept:
        report(f"{kept} of {total} cells are finished already")
    finished = kept

    def start(context: Any, cell: Cell) -> BaseProcess:
        return _start(context, spec, cell, out, target)

    def ended(process: BaseProcess, cell: Cell) -> None:
        nonlocal finished
        finished += 1
        _bury(process, spec, cell, out)
        report(f"[{finished}/{total}] {cell.title}: {_describe(_outcome(spec, cell, out))}")

    run_in_processes(todo, jobs, start, ended)
    return outcomes(spec, out)


def outcomes(spec: StudySpec, out: Path) -> list[Outcome]:
    """The outcome of every cell, from what is on disk."""
    return [_outcome(spec, cell, out) for cell in cells(spec)]


def _start(context: Any, spec: StudySpec, cell: Cell, out: Path, target: Target) -> BaseProcess:
    directory = _directory(spec, cell, out)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CELL).unlink(missing_ok=True)
    config = spec.settings(cell.method, cell.task, spec.seeds[0] if cell.seed is None else cell.seed)
    scenarios = [s.model_dump() for s in spec.scenarios]
    arguments = (config, scenarios, directory, spec.fingerprint(cell.method, cell.task, cell.seed))
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def _bury(process: BaseProcess, spec: StudySpec, cell: Cell, out: Path) -> None:
    """A process that ended without a result has failed; its cell says how."""
    directory = _directory(spec, cell, out)
    if not (directory / CELL).exists():
        fingerprint = spec.fingerprint(cell.method, cell.task, cell.seed)
        write_values(
            directory / CELL, {"fingerprint": fingerprint, "status": "failed", "error": how_it_ended(process)}
        )


def _outcome(spec: StudySpec, cell: Cell, out: Path) -> Outcome:
    path = _directory(spec, cell, out) / CELL
    try:
        saved = read_values(path)
        if saved["fingerprint"] == spec.fingerprint(cell.method, cell.task, cell.seed):
            if saved["status"] == "done":
                return Outcome(cell, "done", "", {s.name: saved["scenarios"][s.name] for s in spec.scenarios})
            return Outcome(cell, "failed", str(saved["error"]), {})
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent, cut short, or of another kind: to be run
    return Outcome(cell, "unfinished", "", {})


def _directory(spec: StudySpec, cell: Cell, out: Path) -> Path:
    """The folder of a cell; training settings are part of its name, so that runs of others are never touched."""
    config = spec.settings(cell.method, cell.task, 0 if cell.seed is None else cell.seed)
    seed = "once" if cell.seed is None else f"seed{cell.seed}"
    return out / "cells" / cell.task / f"{_safe(cell.method.label)}-{_key(config)}" / seed


def _key(config: dict[str, Any]) -> str:
    import hashlib

    body = json.dumps({k: v for k, v in config.items() if k != "seed"}, sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()[:8]


def _safe(label: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in label)


def _describe(outcome: Outcome) -> str:
    if outcome.status != "done":
        return f"{outcome.status}" + (f" ({outcome.error})" if outcome.error else "")
    parts = []
    for name, metrics in outcome.scenarios.items():
        costs = metrics.get("cost", [])
        lost = sum(v is None for v in costs)
        known = [v for v in costs if v is not None]
        mean = f"cost {sum(known) / len(known):.2f}" if known and not lost else "no mean cost"
        parts.append(f"{name}: {mean}" + (f", {lost} of {len(costs)} runs diverged" if lost else ""))
    return "; ".join(parts)
