"""`constrained-nn certify`: evidence on a trained controller, in a file that `check` checks."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from constrained_nn.cli.shell import REFUTED, fail
from constrained_nn.options import Seed, Threads, prepare_torch
from constrained_nn.settings import MOST_WORKERS

MOST_RUNS = 10_000_000


class Grade(StrEnum):
    proof = "proof"
    sampled = "sampled"
    all = "all"


def command(
    context: typer.Context,
    run: Annotated[
        Path,
        typer.Argument(help="Folder of a finished training run, or with a record that is to be proved."),
    ],
    grade: Annotated[Grade, typer.Option(help="Which claims to make.")] = Grade.all,
    starts: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_RUNS, help="Recorded runs; default the task's published test states, or 84."
        ),
    ] = None,
    runs: Annotated[
        int, typer.Option(min=1, max=MOST_RUNS, help="Fresh start states of the sampled claim.")
    ] = 1000,
    seed: Seed = 0,
    confidence: Annotated[float, typer.Option(min=0.9, max=1 - 1e-9, help="Of each bound.")] = 0.99,
    seconds: Annotated[float, typer.Option(min=0, help="Time budget of a proof by branch and bound.")] = 300,
    jobs: Annotated[
        int, typer.Option(min=1, max=MOST_WORKERS, help="Processes of a proof by branch and bound.")
    ] = 1,
    search: Annotated[
        int,
        typer.Option(
            min=0, max=MOST_RUNS, help="Start states of the search for a counterexample; 0: no search."
        ),
    ] = 32,
    out: Annotated[Path | None, typer.Option(help="File; default RUN/certificate.json.")] = None,
    threads: Threads = 1,
) -> None:
    """Certify a controller: layer rows in exact arithmetic (proof), the closed loop by sampling (sampled).

    A folder with a record is proved as what it is: decisions under matrix inequalities (`decisions.safetensors`), a
    closed loop with a Lyapunov function (`loop.json`), a network with a set of outputs (`network.json`), a learned
    evolution (`evolution.safetensors`), a model that is stable by construction (`stable_model.json`), a barrier for
    held inputs (`barrier.json`).

    Before that a counterexample is searched for, by gradient steps on the start state; one that is found ends all.

    Exit code 0: every claim holds; 3: a counterexample was found (printed, and kept in the file); 2: bad input,
    a crash, or inconclusive.
    """
    from constrained_nn.evidence import certify, fresh_starts, write
    from constrained_nn.evidence.claims import SEARCHES, record_in

    if not run.is_dir():
        fail(f"{run}: expected the folder of a training run, or one with a record that is to be proved.")
    prepare_torch("cpu", threads)
    record = record_in(run)
    if record is not None:
        unused = () if record.name in SEARCHES else ("seconds", "jobs")
        _refuse(context, grade, ("starts", "runs", "seed", "confidence", "search", *unused), record)
        certificate = _recorded(record, out, seconds, jobs)
        _point(certificate, record)
        _report(certificate, out or run / "certificate.json")
        return
    _refuse(context, Grade.all, ("seconds", "jobs"), run)
    subject = load_subject(run)
    if search:
        _search(subject, run, search, seed)
    target = out or run / "certificate.json"
    words = ["constrained-nn certify", str(run), f"--grade {grade.value}", f"--runs {runs}", f"--seed {seed}"]
    words += [f"--confidence {confidence!r}"] + ([f"--starts {starts}"] if starts else [])
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
        fail(f"could not write {target}: {error.strerror}. Free some space, or name another file with --out.")
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        fail(error)
    _report(certificate, target)


def _search(subject: Any, run: Path, count: int, seed: int) -> None:
    """Look for the worst start state; a counterexample is printed with the command that repeats it, and ends all."""
    from constrained_nn.evidence import falsify_closed_loop
    from constrained_nn.verify import encode

    try:
        worst = falsify_closed_loop(subject, count=count, seed=seed)
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        fail(error)
    if worst is None:
        return
    if not worst.is_counterexample:
        typer.echo(f"searched {worst.tried} start states: worst margin {worst.margin:.4g}, no counterexample")
        return
    state = ", ".join(
        f"{q.name} = {v!r}" for q, v in zip(subject.task.plant.state, worst.state.tolist(), strict=True)
    )
    typer.echo(f"counterexample: g <= 0 fails, margin {worst.margin:.6g}, from {state}")
    typer.echo(f'repeat it: constrained-nn simulate {run} --start "{encode(worst.state.tolist())}"')
    typer.echo("No certificate was written; with --search 0 the claims are made anyway, and fail.")
    raise typer.Exit(REFUTED)


def _refuse(context: typer.Context, grade: Grade, names: tuple[str, ...], what: Path) -> None:
    """An option that would be ignored is an error instead."""
    if grade is Grade.sampled:
        fail(f"--grade sampled: {what.name} is proved, not sampled. Leave it out.")
    for name in names:
        if getattr(context.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT":
            fail(f"--{name}: of no use for {what.name}. Leave it out.")


def _recorded(path: Path, out: Path | None, seconds: float, jobs: int) -> dict[str, Any]:
    """The certificate of a record, written."""
    from constrained_nn.cli.shell import cover_progress
    from constrained_nn.evidence import write
    from constrained_nn.evidence.claims import RECORDS, Effort
    from constrained_nn.evidence.search import Counterexample

    try:
        with cover_progress() as report:
            effort = Effort(seconds, jobs, report)
            certificate = RECORDS[path.name](path, f"constrained-nn certify {path.parent}", effort)
        write(certificate, out or path.parent / "certificate.json")
    except Counterexample as error:
        typer.echo(f"counterexample: {error}")
        _repeat(path, error.start)
        typer.echo("No certificate was written.")
        raise typer.Exit(REFUTED) from None
    except OSError as error:
        fail(
            f"could not write the certificate: {error.strerror}. Free some space, or name another file with --out."
        )
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        fail(error)
    return certificate


def _point(certificate: dict[str, Any], path: Path) -> None:
    """The counterexample that a search found and a certificate holds, to be repeated."""
    from constrained_nn.verify import decode

    for claim in certificate["claims"]:
        point = claim["data"].get("point", "")
        if point:
            _repeat(path, decode(point, "point"))


def _repeat(path: Path, start: list[float]) -> None:
    """A counterexample in hexadecimal and decimal, and the command that repeats it, where there is one."""
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
    except (ValueError, TypeError, LookupError) as error:
        fail(error)
    loaded.controller.eval()
    return Subject(
        loaded.task,
        loaded.controller,
        dtype=loaded.config.torch_dtype,
        method=loaded.method.name,
        weights=weights.name if weights.exists() else "none",
        sha256=sha256,
    )
