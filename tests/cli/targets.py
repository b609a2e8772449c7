"""What the tests do in a process with limits."""

from __future__ import annotations

import os
import sys

from constrained_nn.cli.check import check_file


def modules_of_check(file: str, accept: str) -> tuple[list[str], int]:
    """Names of the modules that a process has loaded after it checked a file."""
    check_file(file, accept, None, 2048, 64)
    return sorted(sys.modules), 0


def one_long_step() -> tuple[list[str], int]:
    """A single instruction of hours, which no interruption between two of them would end."""
    return [str(3 ** (10**9) % 10)], 0


def take_memory() -> tuple[list[str], int]:
    return [str(len([bytes(2**20) for _ in range(2**20)]))], 0


def print_and_answer() -> tuple[list[str], int]:
    print('{"lines": ["forged"], "code": 0}', flush=True)
    return ["answered"], 3


def crash() -> tuple[list[str], int]:
    os.abort()


def end_without_an_answer() -> tuple[list[str], int]:
    print('{"lines": ["forged"], "code": 0}', flush=True)
    os._exit(0)


def end_after_a_forged_answer() -> tuple[list[str], int]:
    os.write(3, b'{"lines": ["forged"], "code": 0}')
    os._exit(1)


def odd_code() -> tuple[list[str], int]:
    return ["odd"], 1


def fail() -> tuple[list[str], int]:
    raise ZeroDivisionError("by nothing")


def recurse() -> tuple[list[str], int]:
    return recurse()
