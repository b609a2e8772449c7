"""How commands end: one clear line and an exit code, never a traceback."""

from __future__ import annotations

from typing import NoReturn

import typer

INTERRUPTED = 130  # what a shell reports for a program that ended on Ctrl-C


def fail(message: object, code: int = 2) -> NoReturn:
    """Print one line on the error stream and end with `code`."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


def parse_integers(text: str, option: str) -> list[int]:
    """`1,2,5:8` as [1, 2, 5, 6, 7]; a bad one ends the command."""
    values: list[int] = []
    for part in text.split(","):
        first, colon, last = part.strip().partition(":")
        try:
            values += range(int(first), int(last)) if colon else [int(first)]
        except ValueError:
            fail(f"{option}: expected integers such as 1,2,5 or 1:6, got '{text}'.")
    return values
