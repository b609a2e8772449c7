"""`constrained-nn reproduce`: published tables, measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from constrained_nn.cli.shell import INTERRUPTED, REFUTED, UNDECIDED, fail, parse_integers
from constrained_nn.options import Device, Threads, prepare_torch


def command(
    name: Annotated[str | None, typer.Argument(help="Experiment, such as safe-control.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Run every experiment.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished cells, go on with the rest.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew; what an earlier run left is moved aside.")
    ] = False,
    reference: Annotated[
        Path | None, typer.Option(help="Folder with the authors' published arrays, to compare with.")
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(help="Result file (NAME.json) whose finished cells are kept; may be given again."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, such as 1,2,3 or 1:6.")] = None,
    rows: Annotated[str | None, typer.Option(help="Run only these rows, separated by commas.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Tiny budgets, to see that it runs.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for NAME.json and NAME.md.")] = Path("docs/results"),
    runs: Annotated[Path, typer.Option(help="Folder for checkpoints and cells.")] = Path("runs/reproduce"),
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Measure published tables again: our numbers beside the published ones.

    Writes NAME.json (with command, seeds, commit and machine) and NAME.md. A run that is interrupted goes on
    with --resume and ends with the same numbers. Exit code 0: done; 3: a comparison with published
    arrays disagrees; 2: bad input, or a cell failed; 130: interrupted.
    """
    from constrained_nn.errors import FileFormatError, UnknownNameError
    from constrained_nn.experiments import available, load

    if (name is None) == (not every):
        fail(f"expected one experiment or --all. Experiments: {', '.join(available()) or 'none'}.")
    if reference is not None and not reference.is_dir():
        fail(f"--reference: expected a folder, got {reference}.")
    if resume and fresh:
        fail("--resume and --fresh exclude each other.")
    if every and earlier:
        fail("--earlier goes with one experiment, not with --all.")
    if fast and out == Path("docs/results"):
        out, runs = Path("runs/fast"), runs / "fast"
    codes = {0}
    try:
        chosen = [load(one).on(device) for one in (available() if every else [str(name)])]
        prepare_torch(device, threads)
        for experiment in chosen:
            codes.add(_one(experiment, resume, fresh, reference, earlier or [], seeds, rows, fast, out, runs))
    except (FileFormatError, UnknownNameError, ValueError) as error:
        fail(error)
    except OSError as error:
        fail(f"could not write: {error}. Finished cells are kept; free some space and pass --resume.")
    except KeyboardInterrupt:
        fail(f"interrupted. Finished cells are kept in {runs}; go on with --resume.", INTERRUPTED)
    raise typer.Exit(max(codes))


def _one(experiment, resume, fresh, reference, earlier, seeds, rows, fast, out, runs) -> int:
    from constrained_nn.experiments.runner import markdown, reproduce
    from constrained_nn.files import write_atomically, write_values

    options = [f"--seeds {seeds}"] * bool(seeds) + [f"--rows {rows}"] * bool(rows) + ["--fast"] * fast
    options += dict.fromkeys(f"--earlier {file.name}" for file in earlier)
    result = reproduce(
        experiment.fast() if fast else experiment,
        runs=runs / experiment.name,
        seeds=parse_integers(seeds, "--seeds") if seeds else None,
        rows=[row.strip() for row in rows.split(",")] if rows else None,
        resume=resume,
        fresh=fresh,
        reference=reference,
        earlier=earlier,
        report=typer.echo,
    )
    result["command"] = " ".join(["constrained-nn reproduce", experiment.name, *options])
    write_values(out / f"{experiment.name}.json", result)
    page = write_atomically(out / f"{experiment.name}.md", markdown(result))
    typer.echo(f"wrote {page} and {page.with_suffix('.json').name}")
    if fast:
        typer.echo("--fast shows that it runs: after budgets this small the numbers mean nothing.")
    disagrees = [c for c in result["reference"] if not c["agrees"]]
    for c in disagrees:
        typer.echo(f"differs from the published arrays: {c['what']}: {c['ours']} against {c['reference']}")
    compared = [c for c in disagrees if isinstance(c["ours"], float)]  # else it could not be made
    failed = any(cell["status"] == "failed" for cell in result["cells"])
    return REFUTED if compared else UNDECIDED if disagrees or failed else 0
