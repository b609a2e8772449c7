"""Work in parallel processes of one thread each; an interruption ends them all."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from typing import TypeVar

Work = TypeVar("Work")


def _start(function: Callable[[Work], None], work: Work) -> BaseProcess:
    # a fresh interpreter: forking a process that has started threads can deadlock
    process = get_context("spawn").Process(target=_serve, args=(function, work), daemon=True)
    process.start()
    return process


def _serve(function: Callable[[Work], None], work: Work) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption ends
    if "torch" in sys.modules:  # work that needs it has loaded it by now; nothing else pays for it
        sys.modules["torch"].set_num_threads(1)
    function(work)


def run_in_processes(
    todo: Sequence[Work],
    function: Callable[[Work], None],
    jobs: int,
    begin: Callable[[Work], None],
    end: Callable[[Work, str], None],
    *,
    group: Callable[[Work], Hashable] = lambda work: None,
    start: Callable[[Callable[[Work], None], Work], BaseProcess] = _start,
) -> None:
    """Call `function` with each of `todo`, at most `jobs` at a time.

    Args:
        todo: What is to be done, in this order.
        function: Does it; function and work are pickled.
        jobs: Largest number of processes.
        begin: Called here just before a process starts.
        end: Called here when a process has ended, with words on how.
        group: Two of the same group are never run at once; None: it is in no group.
        start: Starts a process; tests have their own.

    Raises:
        KeyboardInterrupt: Of the caller; the processes are ended.
    """
    waiting, running = list(todo), dict[BaseProcess, Work]()
    try:
        while waiting or running:
            while len(running) < jobs:
                busy = {group(work) for work in running.values()} - {None}
                work = next((w for w in waiting if group(w) not in busy), None)
                if work is None:
                    break
                waiting.remove(work)
                begin(work)
                with _interruption_held(), _one_thread():
                    running[start(function, work)] = work
            connection.wait([process.sentinel for process in running])
            for process in [p for p in running if not p.is_alive()]:
                process.join()
                end(running.pop(process), _how_it_ended(process))
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join()


def _how_it_ended(process: BaseProcess) -> str:
    """What to say of a process that left no result."""
    code = process.exitcode or 0
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code} and no result"


@contextmanager
def _interruption_held() -> Iterator[None]:
    """Hold Ctrl-C until a new process is known to us; the process inherits the mask."""
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
    """Give a new process one thread; it reads this when it loads its libraries."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
