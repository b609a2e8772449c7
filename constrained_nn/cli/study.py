"""`constrained-nn study`: methods compared on the same start states, with intervals."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from constrained_nn.cli.shell import INTERRUPTED, UNDECIDED, fail
from constrained_nn.settings import MOST_WORKERS


def command(
    file: Annotated[
        Path, typer.Argument(help="Study in YAML: methods, tasks, scenarios, seeds; or an experiment.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder; default runs/study/NAME of the file.")] = None,
    jobs: Annotated[
        int, typer.Option(min=1, max=MOST_WORKERS, help="Processes at a time, of one thread each.")
    ] = os.cpu_count() or 1,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; write the tables of what is finished.")
    ] = False,
) -> None:
    """Compare methods × tasks × scenarios × seeds, or the rows of an experiment, in parallel processes.

    Finished cells are kept: run the same command again to go on after an interruption. Exit code 0: all cells
    are finished; 2: bad input, or a cell failed, is unfinished, or holds runs that diverged; 130: interrupted.
    """
    from constrained_nn.errors import FileFormatError
    from constrained_nn.experiments.study import RowsSpec, read_study

    try:
        spec = read_study(file)
        folder = out or Path("runs/study") / file.stem
        study = _rows if isinstance(spec, RowsSpec) else _methods
        interrupted, states, complete = study(spec, folder, 0 if report_only else jobs, file)
    except FileFormatError as error:
        fail(error)
    except OSError as error:
        fail(f"could not write: {error}. Finished cells are kept; free some space and run the command again.")
    finished = states.count("done")
    if interrupted:
        fail(
            f"interrupted: {finished} of {len(states)} cells are finished and kept; the tables show the others as "
            f"unfinished. Run the same command to go on.",
            INTERRUPTED,
        )
    if finished < len(states) or not complete:
        raise typer.Exit(UNDECIDED)


def _methods(spec: Any, folder: Path, jobs: int, file: Path) -> tuple[bool, list[str], bool]:
    """Whether it was interrupted, what became of every cell, and whether every mean is complete."""
    from constrained_nn.experiments.study import markdown, outcomes, run_study, write_report

    interrupted = jobs > 0 and _interrupted(lambda: run_study(spec, folder, jobs=jobs, report=typer.echo))
    done = outcomes(spec, folder)
    entries = write_report(spec, done, folder, f"constrained-nn study {file}")
    typer.echo(markdown(spec, entries))
    typer.echo(f"wrote runs.csv, summary.csv, table.tex, table.md, figure.pdf and figure.png in {folder}")
    return interrupted, [o.status for o in done], all(entry.complete for entry in entries)


def _rows(spec: Any, folder: Path, jobs: int, file: Path) -> tuple[bool, list[str], bool]:
    """The same for a study of the rows of an experiment."""
    from constrained_nn.experiments.runner import markdown
    from constrained_nn.experiments.study import run_rows, write_rows

    interrupted = jobs > 0 and _interrupted(lambda: run_rows(spec, folder, jobs=jobs, report=typer.echo))
    result, written = write_rows(spec, folder, f"constrained-nn study {file}")
    typer.echo(markdown(result))
    typer.echo(f"wrote {', '.join(path.name for path in written)} in {folder}")
    return interrupted, [cell["status"] for cell in result["cells"]], True


def _interrupted(run: Callable[[], object]) -> bool:
    """Run; whether Ctrl-C or the termination signal ended it."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        run()
    except KeyboardInterrupt:
        return True
    finally:
        signal.signal(signal.SIGTERM, before)
    return False


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
