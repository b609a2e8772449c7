"""`constrained-nn report`: a certificate for a person, on one page, checked while it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from constrained_nn.cli.check import LARGEST, MEMORY, SECONDS, Largest, Memory, Seconds
from constrained_nn.cli.shell import fail, run_limited


def command(
    file: Annotated[Path, typer.Argument(help="Certificate written by `certify`.")],
    out: Annotated[Path | None, typer.Option(help="Page; default the certificate's name with .html.")] = None,
    seconds: Seconds = SECONDS,
    memory: Memory = MEMORY,
    max_megabytes: Largest = LARGEST,
) -> None:
    """Check a certificate and write one HTML page about it: statements, assumptions, margins, pictures.

    Exit code 0: the checker confirmed every claim; 3: a counterexample; 2: inconclusive, damaged,
    or out of time or memory. A page is written unless the file cannot be checked; it shows what the
    checker found, also where that is nothing.
    """
    target = out or file.with_suffix(".html")
    if target.resolve() == file.resolve():
        fail(f"--out: {target} is the certificate itself. Name another file.")
    lines, code = run_limited(
        "constrained_nn.cli.report:write_report",
        {"file": str(file), "target": str(target), "max_megabytes": max_megabytes},
        what=f"report {file}",
        seconds=seconds,
        megabytes=memory,
    )
    for line in lines:
        typer.echo(line, err=line.startswith("error: "))
    raise typer.Exit(code)


def write_report(file: str, target: str, max_megabytes: int) -> tuple[list[str], int]:
    """Check, and write the page; lines to print and exit code."""
    from constrained_nn.cli.pages import page
    from constrained_nn.files import write_atomically
    from constrained_nn.verify import check_claims, conclusion, read

    certificate = read(file, max_bytes=max_megabytes * 2**20)
    findings = check_claims(certificate)
    try:
        write_atomically(target, page(certificate, findings, Path(file)))
    except OSError as error:
        raise ValueError(
            f"could not write {target}: {error.strerror}. Free some space, or name another file with --out."
        ) from None
    lines = [*(f"{finding.grade}: {finding.text}" for finding in findings), f"wrote {target}"]
    return lines, int(conclusion(findings, frozenset({"proof", "sampled"})))
