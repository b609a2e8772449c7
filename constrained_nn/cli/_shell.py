"""How commands end: one clear line and an exit code, never a traceback."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

INTERRUPTED = 130  # what a shell reports for a program that ended on Ctrl-C


def fail(message: object, code: int = 2) -> NoReturn:
    """Print one line on the error stream and end with `code`."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


@contextmanager
def time_limit(seconds: float | None, message: str) -> Iterator[None]:
    """Ends the command with `message` and exit code 2 if the block takes longer than `seconds`; None is no limit.

    The block is interrupted between two steps of the interpreter, as by Ctrl-C; it runs in the main thread.
    """
    if seconds is None:
        yield
        return
    over = threading.Event()

    def stop() -> None:
        over.set()
        _thread.interrupt_main()

    before = signal.getsignal(signal.SIGINT) or signal.SIG_DFL

    def interrupted(number: int, frame: FrameType | None) -> None:
        if over.is_set() or before == signal.SIG_DFL:
            raise KeyboardInterrupt
        if callable(before):
            before(number, frame)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    # a job in the background may have been started with the signal ignored: then it would never be interrupted
    signal.signal(signal.SIGINT, interrupted)
    timer.start()
    try:
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # an interruption that was on its way arrives here
            signal.signal(signal.SIGINT, before)
    except KeyboardInterrupt:
        if over.is_set():
            fail(message)
        raise


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
