"""`constrained-nn study`: methods compared on the same start states, with intervals."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from constrained_nn.cli.shell import INTERRUPTED, UNDECIDED, fail, refuse_options
from constrained_nn.settings import MOST_WORKERS


def command(
    context: typer.Context,
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

    Finished cells are kept: run the same command again to continue after an interruption. Exit code
    0: all cells are finished; 2: bad input, or a cell failed, is unfinished, or holds runs that
    diverged; 130: interrupted.
    """
    from constrained_nn.experiments.study import RowsSpec, read_study

    if report_only:
        refuse_options(context, ("jobs",), "has no effect with --report-only")
    spec = read_study(file)
    folder = out or Path("runs/study") / file.stem
    study = _rows if isinstance(spec, RowsSpec) else _methods
    interrupted, states, complete = study(spec, folder, None if report_only else jobs, file)
    finished = states.count("done")
    if interrupted:
        fail(
            f"interrupted: {finished} of {len(states)} cells are finished and kept; the tables show the "
            f"others as unfinished. Run the same command to continue.",
            INTERRUPTED,
        )
    if finished < len(states) or not complete:
        raise typer.Exit(UNDECIDED)


def _methods(spec: Any, folder: Path, jobs: int | None, file: Path) -> tuple[bool, list[str], bool]:
    """Whether it was interrupted, what became of every cell, and whether every mean is complete."""
    from constrained_nn.experiments.study import outcomes, run_study, study_page, write_report

    interrupted = jobs is not None and _is_interrupted(
        lambda: run_study(spec, folder, jobs=jobs, report=typer.echo)
    )
    done = outcomes(spec, folder)
    entries = write_report(spec, done, folder, f"constrained-nn study {file}")
    typer.echo(study_page(spec, entries))
    written = "runs.csv, summary.csv, table.tex, table.md, figure.pdf and figure.png"
    typer.echo(f"wrote {written} in {folder}")
    return interrupted, [o.status for o in done], all(entry.complete for entry in entries)


def _rows(spec: Any, folder: Path, jobs: int | None, file: Path) -> tuple[bool, list[str], bool]:
    """The same for a study of the rows of an experiment."""
    from constrained_nn.experiments.runner import experiment_page
    from constrained_nn.experiments.study import run_rows, write_rows

    interrupted = jobs is not None and _is_interrupted(
        lambda: run_rows(spec, folder, jobs=jobs, report=typer.echo)
    )
    result, written = write_rows(spec, folder, f"constrained-nn study {file}")
    typer.echo(experiment_page(result))
    typer.echo(f"wrote {', '.join(path.name for path in written)} in {folder}")
    return interrupted, [cell["status"] for cell in result["cells"]], True


def _is_interrupted(run: Callable[[], object]) -> bool:
    """Run, and say whether it was interrupted; the tables are written either way."""
    try:
        run()
    except KeyboardInterrupt:
        return True
    return False
