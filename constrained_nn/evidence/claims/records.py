"""Folders that hold something to be proved, by the file in them: what `constrained-nn certify FOLDER` finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constrained_nn.evidence.claims.barrier import BARRIER, certify_barrier_record, repeat_barrier
from constrained_nn.evidence.claims.energy import EVOLUTION, certify_evolution
from constrained_nn.evidence.claims.lmi import DECISIONS, certify_decisions
from constrained_nn.evidence.claims.loops import LOOP, certify_loop, repeat_loop
from constrained_nn.evidence.claims.model_decrease import MODEL, certify_model
from constrained_nn.evidence.claims.outputs import NETWORK, certify_outputs, repeat_outputs
from constrained_nn.evidence.search import Report, quiet


@dataclass(frozen=True)
class Effort:
    """What a proof by branch and bound may cost: `seconds`, `jobs` and `report` of `cover`."""

    seconds: float = 300.0
    jobs: int = 1
    report: Report = quiet


Maker = Callable[[Path, str, Effort], dict[str, Any]]

# name of the file -> (file, command line, effort) -> certificate
RECORDS: dict[str, Maker] = {
    BARRIER: lambda path, command, effort: certify_barrier_record(
        path, command=command, seconds=effort.seconds, jobs=effort.jobs, report=effort.report
    ),
    DECISIONS: lambda path, command, effort: certify_decisions(path, command=command),
    EVOLUTION: lambda path, command, effort: certify_evolution(path, command=command),
    LOOP: lambda path, command, effort: certify_loop(
        path, command=command, seconds=effort.seconds, jobs=effort.jobs, report=effort.report
    ),
    MODEL: lambda path, command, effort: certify_model(
        path, command=command, seconds=effort.seconds, jobs=effort.jobs, report=effort.report
    ),
    NETWORK: lambda path, command, effort: certify_outputs(
        path, command=command, seconds=effort.seconds, jobs=effort.jobs, report=effort.report
    ),
}

# files whose proof searches, so that seconds and jobs count
SEARCHES = frozenset({BARRIER, LOOP, MODEL, NETWORK})

# name of the file -> (file, numbers) -> lines on what becomes of that counterexample
REPEATS: dict[str, Callable[[Path, list[float]], list[str]]] = {
    BARRIER: repeat_barrier,
    LOOP: repeat_loop,
    NETWORK: repeat_outputs,
}


def record_in(folder: Path) -> Path | None:
    """The file of a folder that says what is to be proved, if there is one."""
    return next((folder / name for name in RECORDS if (folder / name).exists()), None)
