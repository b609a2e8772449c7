"""`constrained-nn check`: an independent check of a certificate, without torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from constrained_nn.cli.shell import refuse_options, run_limited

# what a certificate of 64 MiB needs, several times over
Seconds = Annotated[float, typer.Option(help="Time budget; a check that needs longer is killed.")]
Memory = Annotated[int, typer.Option(min=1, help="MiB that a check may take; beyond that it is killed.")]
Largest = Annotated[int, typer.Option("--max-megabytes", min=1, help="Larger files are refused unread.")]
SECONDS, MEMORY, LARGEST = 3600.0, 2048, 64


class Accept(StrEnum):
    proof = "proof"
    sampled = "sampled"


def command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Certificate written by `certify`.")],
    accept: Annotated[Accept, typer.Option(help="Weakest grade that may count as holding.")] = Accept.proof,
    replay: Annotated[
        bool, typer.Option("--replay", help="Also repeat the runs (needs the run's folder).")
    ] = False,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run to repeat; default: the certificate's.")
    ] = None,
    seconds: Seconds = SECONDS,
    memory: Memory = MEMORY,
    max_megabytes: Largest = LARGEST,
) -> None:
    """Check a certificate from its file alone, in a process with limits on time and memory.

    Exit code 0: every claim holds (a `sampled` one only with --accept sampled); 3: a
    counterexample, which is printed; 2: inconclusive, damaged, or out of time or memory.
    """
    if not replay:
        refuse_options(context, ("run",), "has no effect without --replay")
    lines, code = run_limited(
        "constrained_nn.cli.check:check_file",
        {
            "file": str(file),
            "accept": accept.value,
            "replay": str(run or file.parent) if replay else None,
            "memory": memory,
            "max_megabytes": max_megabytes,
        },
        what=f"check {file}",
        seconds=seconds,
        megabytes=memory,
    )
    for line in lines:
        typer.echo(line, err=line.startswith("error: "))
    raise typer.Exit(code)


def check_file(
    file: str, accept: str, replay: str | None, memory: int, max_megabytes: int
) -> tuple[list[str], int]:
    """What the checker finds: lines to print and exit code."""
    from constrained_nn.verify import Outcome, check_claims, describe, read

    certificate = read(file, max_bytes=max_megabytes * 2**20)
    findings = check_claims(certificate)
    lines: list[str] = []
    if replay is not None and all(finding.outcome is Outcome.HOLDS for finding in findings):
        lines = [finding.statement for finding in findings]
        findings, words = _replay(certificate, Path(replay), memory)
        lines += words
    described, outcome = describe(findings, accept)
    return lines + described, int(outcome)


def _replay(certificate: dict[str, Any], run: Path, memory: int) -> tuple[list[Any], list[str]]:
    """Findings of the repeated runs, which need torch, and what to say before them."""
    from constrained_nn.verify import limit_memory, unlimit_memory

    unlimit_memory()
    import torch

    from constrained_nn.cli.certify import load_subject
    from constrained_nn.evidence import replay
    from constrained_nn.evidence.claims import replay_loop

    torch.set_num_threads(1)
    limit_memory(memory)
    if [claim["kind"] for claim in certificate["claims"]] == ["lyapunov-decrease"]:
        return replay_loop(certificate, run), []
    return replay(certificate, load_subject(run)), [f"repeating the runs of {run} ..."]
