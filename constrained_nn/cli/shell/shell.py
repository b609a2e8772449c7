"""How commands begin and end: sensible arguments, one clear line, an exit code, no traceback."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from constrained_nn.cli.shell.codes import DONE, INTERRUPTED, UNDECIDED
from constrained_nn.errors import one_line

MOST_INTEGERS = 10_000


def fail(message: object, code: int = UNDECIDED) -> NoReturn:
    """Print one line on the error stream and end with `code`."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


class Command(TyperCommand):
    """A command whose numbers are finite, and whose every error is one line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        for name, value in ctx.params.items():
            _refuse_meaningless(name.replace("_", "-"), value)
        try:
            with _notes():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("interrupted.", INTERRUPTED)
        except BrokenPipeError:
            raise
        except Exception as error:
            if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):  # an end, or bad usage
                raise
            fail(one_line(error))


class Shell(TyperGroup):
    """All commands; whatever happens, the exit code is 0, 2, 3 or 130.

    Click and Python themselves end with 1 on a closed pipe, an abort or an exception. Nothing may
    be mistaken for a verdict, so that 1 becomes 2 here.
    """

    def main(self, args: Any = None, *arguments: Any, **options: Any) -> Any:
        args = list(sys.argv[1:] if args is None else args)
        try:
            _refuse_empty(args)
            super().main(args, *arguments, **options)
            code = DONE
        except SystemExit as end:
            code = _exit_code(end.code)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except BaseException as error:
            code = UNDECIDED
            with contextlib.suppress(Exception):
                typer.echo(f"error: {one_line(error)}", err=True)
        sys.exit(_after_output(code))


def refuse_options(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Options that would be ignored are errors, where they are given.

    Args:
        context: Of the command.
        names: Names of its parameters.
        why: The predicate of the message, such as "has no effect with --all".
    """
    for name in names:
        if is_given(context, name):
            fail(f"--{name.replace('_', '-')} {why}. Leave it out.")


def is_given(context: typer.Context, name: str) -> bool:
    """Whether a parameter was given on the command line; False for one at its default."""
    return getattr(context.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"


def _refuse_meaningless(name: str, value: Any) -> None:
    """Refuse a number that sets no limit, and a file that may never end."""
    if isinstance(value, float) and not math.isfinite(value):
        fail(f"--{name}: expected a finite number, got {value}. Leave it out for its default.")
    for path in value if isinstance(value, list | tuple) else (value,):
        if isinstance(path, Path) and path.exists() and not (path.is_file() or path.is_dir()):
            fail(
                f"{name}: expected an ordinary file or a folder, got the pipe or device {path}. Choose another."
            )


def _refuse_empty(args: list[str]) -> None:
    """Refuse an empty argument: a variable was not set, and as a path it would mean this folder."""
    for before, argument in zip(["", *args], args, strict=False):
        name, equals, value = argument.partition("=")
        if not argument.strip():
            what = before if before.startswith("-") else "an argument"
        elif equals and name.startswith("--") and not value.strip():
            what = name
        else:
            continue
        typer.echo(f"error: {what}: expected a value, got an empty one. Leave it out, or give one.", err=True)
        sys.exit(UNDECIDED)


def _exit_code(code: Any) -> int:
    if code is None:
        return DONE
    return code if isinstance(code, int) and code != 1 else UNDECIDED


def _after_output(code: int) -> int:
    """The exit code once all output has arrived; a verdict that nobody could read does not count."""
    output = sys.stdout
    if output is None:
        return code
    try:
        output.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # else Python tries again, and ends with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        return UNDECIDED
    return code


@contextmanager
def _notes() -> Iterator[None]:
    """Warnings as one line each."""
    before = warnings.showwarning

    def show(message: Any, category: Any, *rest: Any, **more: Any) -> None:
        if category is UserWarning:
            typer.echo(f"note: {message}", err=True)
        else:
            before(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def parse_integers(text: str, option: str) -> list[int]:
    """`1,2,5:8` as [1, 2, 5, 6, 7], each once and none negative; a bad one ends the command."""
    wanted = f"{option}: expected integers such as 1,2,5 or 1:6"
    values: list[int] = []
    for part in text.split(","):
        first, colon, last = part.strip().partition(":")
        try:
            chosen = range(int(first), int(last)) if colon else range(int(first), int(first) + 1)
        except ValueError:
            fail(f"{wanted}, got '{text}'.")
        if not chosen:
            fail(f"{wanted}, got '{part.strip()}', which holds none. The end is not included and comes last.")
        if chosen[0] < 0 or chosen[-1] >= 2**63:
            fail(f"{wanted}, from 0 to 2^63 - 1, got '{part.strip()}'.")
        if len(values) + (chosen[-1] - chosen[0] + 1) > MOST_INTEGERS:
            fail(f"{wanted}, at most {MOST_INTEGERS} of them, got more. Ask for them in several commands.")
        values += chosen
    if len(set(values)) < len(values):
        fail(f"{wanted}, each once, got '{text}'. Leave one out.")
    return values
