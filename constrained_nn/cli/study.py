"""`constrained-nn study`: methods compared on the same start states, with intervals."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from constrained_nn.cli._shell import INTERRUPTED, fail


def command(
    file: Annotated[Path, typer.Argument(help="Study in YAML: methods, tasks, scenarios, seeds.")],
    out: Annotated[Path | None, typer.Option(help="Folder; default runs/study/NAME of the file.")] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Processes at a time, of one thread each.")
    ] = os.cpu_count() or 1,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; write the tables of what is finished.")
    ] = False,
) -> None:
    """Compare methods × tasks × scenarios × seeds in parallel processes.

    Finished cells are kept: run the same command again to go on after an interruption. Exit code 0: all cells
    are finished; 1: a cell failed, is unfinished, or holds runs that diverged; 2: bad input; 130: interrupted.
    """
    from constrained_nn.errors import FileFormatError
    from constrained_nn.experiments._study import outcomes, run_study
    from constrained_nn.experiments._study_report import markdown, write_report
    from constrained_nn.experiments._study_spec import read_study

    interrupted = False
    try:
        spec = read_study(file)
        folder = out or Path("runs/study") / file.stem
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            done = outcomes(spec, folder)
            if not report_only:
                done = run_study(spec, folder, jobs=jobs, report=typer.echo)
        except KeyboardInterrupt:
            interrupted, done = True, outcomes(spec, folder)
        finally:
            signal.signal(signal.SIGTERM, before)
        entries = write_report(spec, done, folder, f"constrained-nn study {file}")
    except FileFormatError as error:
        fail(error)
    except OSError as error:
        fail(f"could not write: {error}. Finished cells are kept; free some space and run the command again.")
    typer.echo(markdown(spec, entries))
    typer.echo(f"wrote runs.csv, summary.csv, table.tex, table.md, figure.pdf and figure.png in {folder}")
    finished = sum(o.status == "done" for o in done)
    if interrupted:
        fail(
            f"interrupted: {finished} of {len(done)} cells are finished and kept; the tables show the others as "
            f"unfinished. Run the same command to go on.",
            INTERRUPTED,
        )
    if finished < len(done) or not all(entry.complete for entry in entries):
        raise typer.Exit(1)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
