"""Cells in parallel processes of one thread each; an interruption ends them all."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

Work = TypeVar("Work")


def run_in_processes(
    todo: list[Work],
    jobs: int,
    start: Callable[[Any, Work], BaseProcess],
    ended: Callable[[BaseProcess, Work], None],
    shared: Callable[[Work], object] | None = None,
) -> None:
    """Run all of `todo`, at most `jobs` at a time.

    Args:
        todo: What is to be done, in this order.
        jobs: Largest number of processes.
        start: Starts a process of a multiprocessing context for one of them.
        ended: Called when a process has ended.
        shared: Two with the same value are never run at once; None: any two may be.

    Raises:
        KeyboardInterrupt: Of the caller; the processes are ended.
    """
    context = get_context("spawn")
    waiting, running = list(todo), dict[BaseProcess, Work]()
    try:
        while waiting or running:
            while len(running) < jobs:
                busy = {shared(work) for work in running.values()} if shared else set()
                work = next((w for w in waiting if not shared or shared(w) not in busy), None)
                if work is None:
                    break
                waiting.remove(work)
                with _interruption_held(), _one_thread():
                    running[start(context, work)] = work
            connection.wait([process.sentinel for process in running])
            for process in [p for p in running if not p.is_alive()]:
                process.join()
                ended(process, running.pop(process))
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join()


def how_it_ended(process: BaseProcess) -> str:
    """What to say of a process that left no result."""
    code = process.exitcode or 0
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code} and no result"
    return f"its process {how}"


@contextmanager
def _interruption_held() -> Iterator[None]:
    """Ctrl-C waits until a new process has its work and is known to us; the process inherits the mask."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A child reads this when it loads its libraries."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
