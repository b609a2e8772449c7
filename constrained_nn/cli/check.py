"""`constrained-nn check`: an independent check of a certificate, without torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from constrained_nn.cli._shell import fail, time_limit


class Accept(StrEnum):
    proof = "proof"
    sampled = "sampled"


def command(
    file: Annotated[Path, typer.Argument(help="Certificate written by `certify`.")],
    accept: Annotated[Accept, typer.Option(help="Weakest grade that may count as holding.")] = Accept.proof,
    replay: Annotated[
        bool, typer.Option("--replay", help="Also repeat the runs (needs the run's folder).")
    ] = False,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run to repeat; default the certificate's own folder.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.0, help="Time budget; a check that needs longer is inconclusive.")
    ] = None,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Larger files are refused unread.")] = 64,
) -> None:
    """Check a certificate from its file alone.

    Exit code 0: every claim holds (a `sampled` one only with --accept sampled); 1: a counterexample, which is
    printed; 2: inconclusive or damaged.
    """
    from constrained_nn.errors import FileFormatError
    from constrained_nn.verify import Outcome, check_claims, conclusion, read

    try:
        with time_limit(seconds, f"check: the file {file} needs more than the {seconds} s of --seconds"):
            certificate = read(file, max_bytes=max_megabytes * 2**20)
            findings = check_claims(certificate)
        if replay and all(finding.outcome is Outcome.HOLDS for finding in findings):
            for finding in findings:
                typer.echo(finding.statement)
            findings = _replay(certificate, run or file.parent)
    except FileFormatError as error:
        fail(error)
    for finding in findings:
        if finding.statement:
            typer.echo(finding.statement)
        typer.echo(f"{finding.grade}: {finding.text}")
    outcome = conclusion(findings, frozenset({"proof", accept.value}))
    if outcome is Outcome.INCONCLUSIVE and all(finding.outcome is Outcome.HOLDS for finding in findings):
        typer.echo("A sampled claim is no proof; pass --accept sampled if sampling is enough for you.")
    raise typer.Exit(int(outcome))


def _replay(certificate, run: Path):
    import torch

    from constrained_nn.cli.certify import load_subject
    from constrained_nn.evidence import replay

    torch.set_num_threads(1)
    if [claim["kind"] for claim in certificate["claims"]] == ["lyapunov-decrease"]:
        from constrained_nn.evidence._loops import replay_loop

        return replay_loop(certificate, run)
    typer.echo(f"repeating the runs of {run} ...")
    return replay(certificate, load_subject(run))
