"""`constrained-nn report`: a certificate for a person, on one page, checked while it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from constrained_nn.cli._shell import fail


def command(
    file: Annotated[Path, typer.Argument(help="Certificate written by `certify`.")],
    out: Annotated[Path | None, typer.Option(help="Page; default the certificate's name with .html.")] = None,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Larger files are refused unread.")] = 64,
) -> None:
    """Check a certificate and write one HTML page about it: statements, assumptions, margins, pictures.

    Exit code 0: the checker confirmed every claim; 1: a counterexample; 2: inconclusive or damaged. A page is written
    unless the file cannot be read; it shows what the checker found, also where that is nothing.
    """
    from constrained_nn._files import write_atomically
    from constrained_nn.cli._report_page import page
    from constrained_nn.errors import FileFormatError
    from constrained_nn.verify import check_claims, conclusion, read

    target = out or file.with_suffix(".html")
    if target.resolve() == file.resolve():
        fail(f"--out: {target} is the certificate itself. Name another file.")
    try:
        certificate = read(file, max_bytes=max_megabytes * 2**20)
        findings = check_claims(certificate)
    except FileFormatError as error:
        fail(error)
    try:
        write_atomically(target, page(certificate, findings, file))
    except OSError as error:
        fail(f"could not write {target}: {error.strerror}. Free some space, or name another file with --out.")
    for finding in findings:
        typer.echo(f"{finding.grade}: {finding.text}")
    typer.echo(f"wrote {target}")
    raise typer.Exit(int(conclusion(findings, frozenset({"proof", "sampled"}))))
