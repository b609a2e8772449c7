"""Work on files of others in a process of its own, which is killed when it takes too much time or memory.

An interruption inside one process waits for a long step in C to end, and a limit on memory would hit the caller too.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from constrained_nn.errors import one_line
from constrained_nn.verify.checker import Outcome

MOST_SECONDS = 10**6
_START = 120.0  # seconds that the interpreter and our own imports may take; they do not depend on the file
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from constrained_nn.verify.limits import serve
serve()
"""


class NoVerdict(ValueError):
    """No answer came, or none in time, or one that is none."""


def run_limited(
    function: str, arguments: dict[str, Any], *, what: str, seconds: float, megabytes: int
) -> tuple[list[str], int]:
    """Lines to print and exit code of `function(**arguments)`, from a process that cannot take more than allowed.

    Args:
        function: `module:name`; it returns the lines and the code.
        arguments: JSON values.
        what: What is done, for messages.
        seconds: Time from when our own code is loaded; then the process is killed.
        megabytes: Memory beyond that of our own code. Linux alone enforces it.

    Raises:
        NoVerdict: Anything but an answer in time: the process was killed, ran out of memory, or failed.
    """
    if not 0 < seconds <= MOST_SECONDS:
        raise NoVerdict(f"--seconds: expected more than 0 and at most {MOST_SECONDS:g}, got {seconds:g}.")
    request = {
        "function": function,
        "arguments": arguments,
        "seconds": seconds,
        "megabytes": megabytes,
        "parent": os.getpid(),
    }
    # the flags and the path of this process: the child imports what this one would, and no more
    path = json.dumps([str(Path(entry).resolve()) for entry in sys.path])
    isolation = {"-I": sys.flags.isolated, "-E": sys.flags.ignore_environment, "-S": sys.flags.no_site}
    flags = [flag for flag, given in isolation.items() if given]
    process = subprocess.Popen(
        [sys.executable, "-P", *flags, "-c", _CODE, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    late = f"{what}: it needs more than the {seconds:g} s of --seconds. This is no verdict."
    try:
        output, errors = process.communicate(json.dumps(request).encode(), timeout=_START + seconds)
    except subprocess.TimeoutExpired:
        raise NoVerdict(late) from None
    finally:  # Ctrl-C and the time limit alike
        process.kill()
        process.wait()
    if process.returncode == -getattr(signal, "SIGALRM", 0):
        raise NoVerdict(late)
    try:
        answer = json.loads(output)
        lines, code = [str(line) for line in answer["lines"]], answer["code"]
        if process.returncode != 0 or isinstance(code, bool) or code not in set(Outcome):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        how = _describe_end(process.returncode, errors, megabytes)
        raise NoVerdict(f"{what}: {how} This is no verdict.") from None
    return lines, code


def _describe_end(code: int, errors: bytes, megabytes: int) -> str:
    last = " ".join((errors.decode(errors="replace").strip().splitlines() or [""])[-1].split())[:300]
    if "MemoryError" in last or "llocat" in last:
        return f"it needs more than the {megabytes} MiB of --memory."
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"its process {how}, perhaps for want of memory (--memory {megabytes}). {last}".rstrip(". ") + "."


def serve() -> None:
    """The process that does the work: a request on standard input, an answer on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what Ctrl-C ends
    request = json.loads(sys.stdin.buffer.read())
    _end_with(request["parent"])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    module, _, name = request["function"].partition(":")
    function = getattr(importlib.import_module(module), name)  # our own code is not what the limits are for
    limit_memory(request["megabytes"])
    limit_time(request["seconds"])
    try:
        lines, code = function(**request["arguments"])
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        lines, code = [f"error: {one_line(error)}"], int(Outcome.INCONCLUSIVE)
    json.dump({"lines": lines, "code": code}, answers)
    answers.close()


def _end_with(parent: int) -> None:
    """Let this process be killed when its caller ends, by whatever signal; on Linux."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it has ended already
            os._exit(int(Outcome.INCONCLUSIVE))


def limit_time(seconds: float) -> None:
    """End this process by a signal that no step of a library can hold up."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, seconds)


def limit_memory(megabytes: int) -> None:
    """Let this process take so much memory beyond what it has; called again, the new limit counts from then on."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + megabytes * 2**20
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def unlimit_memory() -> None:
    """Take the limit back, for loading a library."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
