"""`constrained-nn reproduce`: published tables, measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from constrained_nn.cli.shell import (
    DONE,
    INTERRUPTED,
    REFUTED,
    UNDECIDED,
    fail,
    is_given,
    parse_integers,
    refuse_options,
)
from constrained_nn.options import Device, Threads, prepare_torch
from constrained_nn.settings import MOST_WORKERS

RESULTS = Path("docs/results")


def command(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(help="Experiment, such as safe-control; or module:OBJECT, or file.py:OBJECT."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Run every experiment.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished cells and run the rest.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over; what an earlier run left is moved aside.")
    ] = False,
    reference: Annotated[
        Path | None, typer.Option(help="Folder with the authors' published arrays, to compare with.")
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(help="Result file NAME.json whose finished cells are kept; may be repeated."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, such as 1,2,3 or 1:6.")] = None,
    rows: Annotated[str | None, typer.Option(help="Run only these rows, separated by commas.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Tiny budgets, to see that it runs.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for NAME.json and NAME.md.")] = RESULTS,
    runs: Annotated[Path, typer.Option(help="Folder for checkpoints and cells.")] = Path("runs/reproduce"),
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST_WORKERS,
            help="Processes at a time, of one thread each; 1: in this one, a cell after another.",
        ),
    ] = 1,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Measure published tables again: our numbers beside the published ones.

    Writes NAME.json (with command, seeds, commit and machine) and NAME.md. An interrupted run
    continues with --resume and ends with the same numbers. Exit code 0: done; 3: a comparison with
    published arrays disagrees; 2: bad input, or a cell failed; 130: interrupted.
    """
    from constrained_nn.experiments import available, load

    if (name is None) == (not every):
        fail(f"expected one experiment or --all. Experiments: {', '.join(available()) or 'none'}.")
    if reference is not None and not reference.is_dir():
        fail(f"--reference: expected a folder, got {reference}.")
    if resume and fresh:
        fail("--resume and --fresh exclude each other.")
    if every:
        refuse_options(context, ("earlier", "rows"), "is for one experiment, not for --all")
    if jobs > 1:
        refuse_options(context, ("threads",), "has no effect on several --jobs: each has one thread")
    if fast:
        if is_given(context, "out") and out == RESULTS:
            fail(f"--out: {RESULTS} is for measured tables, not for --fast. Choose another folder.")
        out, runs = (Path("runs/fast") if out == RESULTS else out), runs / "fast"
    chosen = [load(one).on(device) for one in (available() if every else [str(name)])]
    if reference is not None and not any(_compares(experiment) for experiment in chosen):
        fail(f"--reference: {name} has no published arrays to compare with. Leave it out.")
    if seeds is not None and not any(_is_seeded(experiment) for experiment in chosen):
        fail(f"--seeds: no row of {name} depends on a seed. Leave it out.")
    prepare_torch(device, threads)
    request: dict[str, Any] = {
        "seeds": parse_integers(seeds, "--seeds") if seeds else None,
        "rows": [row.strip() for row in rows.split(",")] if rows else None,
        "resume": resume,
        "fresh": fresh,
        "reference": reference,
        "earlier": earlier or [],
        "jobs": jobs if jobs > 1 else None,
    }
    options = _options(seeds, rows, fast, earlier or [])
    codes = {DONE}
    try:
        for experiment in chosen:
            codes.add(_reproduce(experiment.fast() if fast else experiment, request, runs, out, options))
    except KeyboardInterrupt:
        fail(f"interrupted. Finished cells are kept in {runs}; continue with --resume.", INTERRUPTED)
    if fast:
        typer.echo("--fast shows that it runs: after budgets this small the numbers mean nothing.")
    raise typer.Exit(max(codes))


def _compares(experiment: Any) -> bool:
    from constrained_nn.experiments import Experiment

    return type(experiment).compare is not Experiment.compare


def _is_seeded(experiment: Any) -> bool:
    return any(row.seeded for row in experiment.rows)


def _options(seeds: str | None, rows: str | None, fast: bool, earlier: list[Path]) -> list[str]:
    """The options that determine the numbers, for the command that the page shows."""
    options = [f"--seeds {seeds}"] * bool(seeds) + [f"--rows {rows}"] * bool(rows)
    return [*options, *["--fast"] * fast, *dict.fromkeys(f"--earlier {f.name}" for f in earlier)]


def _reproduce(experiment: Any, request: dict[str, Any], runs: Path, out: Path, options: list[str]) -> int:
    """Run one experiment and write its table; the exit code."""
    from constrained_nn.experiments.runner import experiment_page, reproduce
    from constrained_nn.files import write_atomically, write_values

    if not _is_seeded(experiment):  # one of --all
        request = request | {"seeds": None}
    result = reproduce(experiment, runs=runs / experiment.name, report=typer.echo, **request)
    result["command"] = " ".join(["constrained-nn reproduce", experiment.name, *options])
    write_values(out / f"{experiment.name}.json", result)
    page = write_atomically(out / f"{experiment.name}.md", experiment_page(result))
    typer.echo(f"wrote {page} and {page.with_suffix('.json').name}")
    disagrees = [c for c in result["reference"] if not c["agrees"]]
    for c in disagrees:
        typer.echo(f"differs from the published arrays: {c['what']}: {c['ours']} against {c['reference']}")
    compared = [c for c in disagrees if isinstance(c["ours"], float)]  # else it could not be made
    failed = any(cell["status"] == "failed" for cell in result["cells"])
    return REFUTED if compared else UNDECIDED if disagrees or failed else DONE
