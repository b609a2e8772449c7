"""One driver of cells, for `reproduce` and `study`.

A cell is one piece of work with a folder of its own: one row of a table or one method, with one
seed. What it found is one file in that folder, whole or absent, with a digest; a cell is finished
when that file says so for the cell's settings. So an interruption costs only the cells that were
running, and whatever started them, the same command continues. A cell that fails says why and is
not tried again until the next command.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import signal
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from constrained_nn.experiments.runner.processes import run_in_processes
from constrained_nn.files import commit, read_values, versions, write_values
from constrained_nn.registry import load_file, loaded_files

Report = Callable[[str], None]
# Calls `perform` for every cell, on some machine that reaches its folder. Here, it calls the first
# function just before a cell starts, and the second when it has ended, with words on how.
Launch = Callable[[Sequence["Cell"], Callable[["Cell"], None], Callable[["Cell", str], None]], None]
RESULT = "cell.json"
DONE, FAILED, UNFINISHED = "done", "failed", "unfinished"
_SOURCE = Path(__file__).resolve().parents[3]


def fingerprint(settings: Any) -> str:
    """Digest of JSON values that determine numbers; names of folders hold its first digits."""
    body = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(body.encode()).hexdigest()


@dataclass(frozen=True)
class Cell:
    """One piece of work.

    Args:
        title: For people.
        labels: What tells it from the other cells, as JSON values; kept with its result.
        settings: Everything that determines its numbers, as JSON values.
        folder: Its own; it holds the result, and whatever `run` needs to continue after an
            interruption.
        run: The work, called with the folder; its result is JSON values. It is pickled to run in
            another process, together with the objects it was made of.
        group: Cells of the same group are never run at once; None: any may be.
    """

    title: str
    labels: Mapping[str, Any]
    settings: Any
    folder: Path
    run: Callable[[Path], Mapping[str, Any]]
    group: Hashable = None

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the settings; a result that was found with others is never used."""
        return fingerprint(self.settings)

    def __reduce__(self) -> tuple[Any, ...]:
        # objects that were found in a file unpickle only where that file has been imported
        values = (self.title, self.labels, self.settings, self.folder, self.run, self.group)
        return _unpickle, (loaded_files(), pickle.dumps(values))


def _unpickle(files: Sequence[str], values: bytes) -> Cell:
    for file in files:
        load_file(file)
    return Cell(*pickle.loads(values))


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Args:
        cell: The cell.
        status: `done`, `failed` or `unfinished`.
        values: What its result file holds: labels, status, commit, versions, seconds, and what
            `run` found or the `error`; empty for one that is unfinished.
    """

    cell: Cell
    status: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> str:
        """Why it failed, in one line; empty for one that did not."""
        return str(self.values.get("error", "")) if self.status == FAILED else ""


def read_outcome(cell: Cell) -> Outcome:
    """The outcome of a cell, from its folder; a damaged file or other settings count for nothing."""
    try:
        values = read_values(cell.folder / RESULT)
        status = values["status"]
        # rows of a table had no fingerprint once; their folder holds the settings, and is checked
        same = values.pop("fingerprint", None) or _fits(values, cell)
        if status in (DONE, FAILED) and same in (True, cell.fingerprint):
            return Outcome(cell, status, values)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Outcome(cell, UNFINISHED)


def _fits(values: Mapping[str, Any], cell: Cell) -> bool:
    return all(name in values and values[name] == value for name, value in cell.labels.items())


def perform(cell: Cell) -> None:
    """Do the work of a cell and keep what it found, in whatever process; an error is a result.

    Raises:
        OSError: The result could not be written.
    """
    cell.folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    values = {**cell.labels, "commit": commit(), "versions": versions()}
    try:
        values |= {**cell.run(cell.folder), "status": DONE}
    except Exception as error:  # one bad cell must not cost the others
        values |= {"status": FAILED, "error": describe_error(error)}
    _keep(cell, values | {"seconds": round(time.perf_counter() - start, 2)})


def _keep(cell: Cell, values: Mapping[str, Any]) -> None:
    write_values(cell.folder / RESULT, {**values, "fingerprint": cell.fingerprint})


def describe_error(error: Exception) -> str:
    """One line on an error; pages name no folder of this machine."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".replace(f"{_SOURCE}/", "")


def run_cells(
    cells: Sequence[Cell],
    *,
    jobs: int | None = None,
    report: Report = print,
    describe: Callable[[Outcome], str] = lambda outcome: "done",
    launch: Launch | None = None,
) -> list[Outcome]:
    """Run the cells that are not finished, and return the outcome of every cell.

    Args:
        cells: The cells, in the order in which they are to start.
        jobs: Processes at a time, of one thread each; None: in this process, one after another.
        report: Called with one line of progress at a time.
        describe: Says what a finished cell found.
        launch: Runs the cells elsewhere, in place of `jobs`.

    Raises:
        KeyboardInterrupt: Of Ctrl-C or the termination signal. Processes are ended; finished cells
            and whatever the others have in their folders are kept.
    """
    todo = [cell for cell in cells if read_outcome(cell).status != DONE]
    total = len(cells)
    ended = total - len(todo)
    if ended:
        report(f"{ended} of {total} cells are finished already")

    def begin(cell: Cell) -> None:
        # a failure of an earlier attempt must not be taken for one of this attempt
        (cell.folder / RESULT).unlink(missing_ok=True)
        if jobs is None and launch is None:
            report(f"[{ended + 1}/{total}] {cell.title} ...")

    def end(cell: Cell, how: str) -> None:
        nonlocal ended
        ended += 1
        if not (cell.folder / RESULT).exists():
            _keep(cell, {**cell.labels, "status": FAILED, "error": f"its process {how}", "seconds": 0.0})
        report(f"[{ended}/{total}] {cell.title}: {_describe(read_outcome(cell), describe)}")

    with _termination_interrupts():
        if launch is not None:
            launch(todo, begin, end)
        elif jobs is not None:
            run_in_processes(todo, perform, jobs, begin, end, group=lambda cell: cell.group)
        else:
            for cell in todo:
                begin(cell)
                perform(cell)
                end(cell, "")
    return [read_outcome(cell) for cell in cells]


def _describe(outcome: Outcome, describe: Callable[[Outcome], str]) -> str:
    if outcome.status != DONE:
        return f"{outcome.status} ({outcome.error})" if outcome.error else outcome.status
    return f"{describe(outcome)} ({outcome.values['seconds']:.0f} s)"


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """The signal by which a scheduler or `kill` ends a program acts like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
