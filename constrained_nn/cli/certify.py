"""`constrained-nn certify`: evidence on a trained controller, in a file that `check` checks."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from constrained_nn.cli.shell import REFUTED, fail, refuse_options
from constrained_nn.options import Seed, Threads, prepare_torch
from constrained_nn.settings import MOST_WORKERS

MOST_RUNS = 10_000_000


class Grade(StrEnum):
    proof = "proof"
    sampled = "sampled"
    all = "all"


Run = Annotated[
    Path,
    typer.Argument(help="Folder of a finished training run, or with a record to be proved."),
]
Starts = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_RUNS,
        help="Recorded runs of the proof; default the task's published test states, or 84.",
    ),
]
Runs = Annotated[int, typer.Option(min=1, max=MOST_RUNS, help="Fresh start states of the sampled claim.")]
Confidence = Annotated[float, typer.Option(min=0.9, max=1 - 1e-9, help="Of each sampled bound.")]
Seconds = Annotated[float, typer.Option(min=0, help="Time budget of a proof by branch and bound.")]
Jobs = Annotated[int, typer.Option(min=1, max=MOST_WORKERS, help="Processes of a proof by branch and bound.")]
Search = Annotated[
    int,
    typer.Option(
        min=0,
        max=MOST_RUNS,
        help="Start states of the search for a counterexample; 0: no search.",
    ),
]


def command(
    context: typer.Context,
    run: Run,
    grade: Annotated[Grade, typer.Option(help="Which claims to make.")] = Grade.all,
    starts: Starts = None,
    runs: Runs = 1000,
    seed: Seed = 0,
    confidence: Confidence = 0.99,
    seconds: Seconds = 300,
    jobs: Jobs = 1,
    search: Search = 32,
    out: Annotated[Path | None, typer.Option(help="File; default RUN/certificate.json.")] = None,
    threads: Threads = 1,
) -> None:
    """Certify a controller: rows of its layer (proof), and its closed loop (sampled).

    The proof is in exact arithmetic, the sampling comes with a bound on the probability of failure.

    A folder with a record is proved as what it is: decisions under matrix inequalities
    (`decisions.safetensors`), a closed loop with a Lyapunov function (`loop.json`), a network with
    a set of outputs (`network.json`), a learned evolution (`evolution.safetensors`), a model that
    is stable by construction (`stable_model.json`), a barrier for held inputs (`barrier.json`).

    Before that it searches for a counterexample by gradient steps on the start state, and ends if
    it finds one.

    Exit code 0: every claim holds; 3: a counterexample was found (printed, and kept in the file);
    2: bad input, a crash, or inconclusive.
    """
    from constrained_nn.evidence.claims import record_in

    if not run.is_dir():
        fail(f"{run}: expected the folder of a training run, or one with a record to be proved.")
    record = record_in(run)
    if record is not None:
        _refuse_for_record(context, grade, record)
    else:
        _refuse_for_run(context, grade, run)
    prepare_torch("cpu", threads)
    target = out or run / "certificate.json"
    if record is not None:
        certificate = _certify_record(record, target, seconds, jobs)
        _point(certificate, record)
    else:
        subject = load_subject(run)
        if search:
            _search(subject, run, search, seed)
        certificate = _certify_run(subject, run, target, grade, starts, runs, seed, confidence)
    _report(certificate, target)


def _certify_run(
    subject: Any,
    run: Path,
    target: Path,
    grade: Grade,
    starts: int | None,
    runs: int,
    seed: int,
    confidence: float,
) -> dict[str, Any]:
    """The certificate of a training run, written."""
    from constrained_nn.evidence import certify, fresh_starts, write

    words = ["constrained-nn certify", str(run), f"--grade {grade.value}", f"--runs {runs}"]
    words += [f"--seed {seed}", f"--confidence {confidence!r}"]
    words += [f"--starts {starts}"] if starts else []
    try:
        published = getattr(subject.task, "published_starts", None)
        if starts is None and published is not None:
            recorded = published()["test"]
        else:
            recorded = fresh_starts(subject.task, starts or 84, seed)
        certificate = certify(
            subject,
            grades=frozenset(["proof", "sampled"] if grade is Grade.all else [grade.value]),
            seed=seed,
            runs=runs,
            confidence=confidence,
            starts=recorded,
            command=" ".join(words),
        )
        write(certificate, target)
    except OSError as error:
        _fail_to_write(target, error)
    return certificate


def _fail_to_write(target: Path, error: OSError) -> NoReturn:
    remedy = "Free some space, or name another file with --out."
    fail(f"could not write {target}: {error.strerror}. {remedy}")


def _search(subject: Any, run: Path, count: int, seed: int) -> None:
    """Look for the worst start state; a counterexample is printed, and ends the command."""
    from constrained_nn.evidence import falsify_closed_loop
    from constrained_nn.verify import encode

    worst = falsify_closed_loop(subject, count=count, seed=seed)
    if worst is None:
        return
    if not worst.is_counterexample:
        margin = f"worst margin {worst.margin:.4g}"
        typer.echo(f"searched {worst.tried} start states: {margin}, no counterexample")
        return
    state = ", ".join(
        f"{q.name} = {v!r}" for q, v in zip(subject.task.plant.state, worst.state.tolist(), strict=True)
    )
    typer.echo(f"counterexample: g <= 0 fails, margin {worst.margin:.6g}, from {state}")
    typer.echo(f'repeat it: constrained-nn simulate {run} --start "{encode(worst.state.tolist())}"')
    typer.echo("No certificate was written; --search 0 makes the claims anyway, and they fail.")
    raise typer.Exit(REFUTED)


def _refuse_for_record(context: typer.Context, grade: Grade, record: Path) -> None:
    if grade is Grade.sampled:
        fail(f"--grade sampled: {record.name} is proved, not sampled. Leave it out.")
    from constrained_nn.evidence.claims import SEARCHES

    unused = () if record.name in SEARCHES else ("seconds", "jobs")
    names = ("starts", "runs", "seed", "confidence", "search", *unused)
    refuse_options(context, names, f"has no effect on {record.name}")


def _refuse_for_run(context: typer.Context, grade: Grade, run: Path) -> None:
    refuse_options(context, ("seconds", "jobs"), "has no effect on a training run")
    if grade is Grade.proof:
        refuse_options(context, ("runs", "confidence"), "has no effect with --grade proof")
    elif grade is Grade.sampled:
        refuse_options(context, ("starts",), "has no effect with --grade sampled")


def _certify_record(path: Path, target: Path, seconds: float, jobs: int) -> dict[str, Any]:
    """The certificate of a record, written."""
    from constrained_nn.cli.shell import cover_progress
    from constrained_nn.evidence import write
    from constrained_nn.evidence.claims import RECORDS, Effort
    from constrained_nn.evidence.search import Counterexample

    try:
        with cover_progress() as report:
            effort = Effort(seconds, jobs, report)
            certificate = RECORDS[path.name](path, f"constrained-nn certify {path.parent}", effort)
        write(certificate, target)
    except Counterexample as error:
        typer.echo(f"counterexample: {error}")
        _repeat(path, error.start)
        typer.echo("No certificate was written.")
        raise typer.Exit(REFUTED) from None
    except OSError as error:
        _fail_to_write(target, error)
    return certificate


def _point(certificate: dict[str, Any], path: Path) -> None:
    """Show how to repeat a counterexample that a search found and a certificate holds."""
    from constrained_nn.verify import decode

    for claim in certificate["claims"]:
        point = claim["data"].get("point", "")
        if point:
            _repeat(path, decode(point, "point"))


def _repeat(path: Path, start: list[float]) -> None:
    """Print a counterexample in hexadecimal and decimal, and the command that repeats it, if any."""
    from constrained_nn.evidence.claims import REPEATS
    from constrained_nn.verify import encode

    typer.echo(f"at {encode(start)}, that is {' '.join(map(repr, start))}")
    if path.name in REPEATS:
        typer.echo(f'repeat it: constrained-nn simulate {path.parent} --start "{encode(start)}"')


def _report(certificate: dict[str, Any], target: Path) -> None:
    """Print what the checker finds, and end with its exit code."""
    from constrained_nn.verify import Outcome, check_claims

    findings = check_claims(certificate)
    for finding in findings:
        if finding.statement:
            typer.echo(finding.statement)
        typer.echo(f"{finding.grade}: {finding.text}")
    typer.echo(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")
    outcomes = {finding.outcome for finding in findings}
    for outcome in (Outcome.COUNTEREXAMPLE, Outcome.INCONCLUSIVE):
        if outcome in outcomes:
            raise typer.Exit(int(outcome))


def load_subject(run: Path) -> Any:
    """The trained controller of a run folder, as the subject of a claim."""
    import hashlib

    from constrained_nn.evidence import Subject
    from constrained_nn.training import load_run

    try:
        loaded = load_run(run)
        weights = run / "policy.safetensors"
        sha256 = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else "none"
    except OSError as error:
        fail(f"{run} cannot be read: {error.strerror}.")
    loaded.controller.eval()
    return Subject(
        loaded.task,
        loaded.controller,
        dtype=loaded.config.torch_dtype,
        method=loaded.method.name,
        weights=weights.name if weights.exists() else "none",
        sha256=sha256,
    )
