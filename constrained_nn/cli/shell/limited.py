"""Work on files of others, in a process of its own that is killed beyond its limits: `verify` holds how."""

from __future__ import annotations

from typing import Any

from constrained_nn.cli.shell.shell import fail


def run_limited(
    function: str, arguments: dict[str, Any], *, what: str, seconds: float, megabytes: int
) -> tuple[list[str], int]:
    """As `verify.run_limited`; where there is no verdict, one line says so and the command ends."""
    from constrained_nn.verify import NoVerdict, run_limited

    try:
        return run_limited(function, arguments, what=what, seconds=seconds, megabytes=megabytes)
    except NoVerdict as error:
        fail(error)
