"""The checker as a program of its own: `python -m constrained_nn.verify FILE`, and what `make checker` packs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from constrained_nn.verify.checker import Outcome, check_claims, describe
from constrained_nn.verify.file import read
from constrained_nn.verify.limits import NoVerdict, run_limited

SECONDS, MEMORY, LARGEST = 3600.0, 2048, 64  # what a certificate of 64 MiB needs, several times over
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks a file, prints what was found, and gives the exit code: 0 holds, 3 a counterexample, 2 no verdict."""
    options = _parse_options(arguments)
    try:
        lines, code = run_limited(
            "constrained_nn.verify.__main__:check_file",
            {"file": options.file, "accept": options.accept, "max_megabytes": options.max_megabytes},
            what=f"check {options.file}",
            seconds=options.seconds,
            megabytes=options.memory,
        )
    except NoVerdict as error:
        lines, code = [f"error: {error}"], int(Outcome.INCONCLUSIVE)
    except KeyboardInterrupt:
        lines, code = ["error: interrupted."], INTERRUPTED
    try:
        for line in lines:
            print(line, file=sys.stderr if line.startswith("error: ") else sys.stdout)
        sys.stdout.flush()
    except OSError:  # a verdict that nobody could read is none
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return int(Outcome.INCONCLUSIVE)
    return code


def _parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="constrained-nn-check",
        description="Check a certificate from its file alone, in a process with limits on time and memory. Exit code "
        "0: every claim holds; 3: a counterexample; 2: inconclusive, damaged, or out of time or memory.",
    )
    parser.add_argument("file", help="certificate")
    parser.add_argument(
        "--accept",
        choices=("proof", "sampled"),
        default="proof",
        help="weakest grade that may count as holding",
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time budget")
    parser.add_argument("--memory", type=_count, default=MEMORY, help="MiB that checking may take")
    parser.add_argument(
        "--max-megabytes", type=_count, default=LARGEST, help="larger files are refused unread"
    )
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def check_file(file: str, accept: str, max_megabytes: int) -> tuple[list[str], int]:
    """What the checker finds: lines to print and exit code."""
    lines, outcome = describe(check_claims(read(file, max_bytes=max_megabytes * 2**20)), accept)
    return lines, int(outcome)


if __name__ == "__main__":
    sys.exit(main())
