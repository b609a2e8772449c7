"""Work on files of others: nothing but an answer in time is a verdict."""

from __future__ import annotations

import sys

import pytest
import typer

from constrained_nn.cli.shell import run_limited

pytestmark = [pytest.mark.untyped, pytest.mark.once]  # in other processes


def run(name: str, seconds: float = 60.0, megabytes: int = 512) -> tuple[list[str], int]:
    return run_limited(f"tests.cli.targets:{name}", {}, what=name, seconds=seconds, megabytes=megabytes)


def refused(capsys, name: str, **limits) -> str:
    with pytest.raises(typer.Exit) as end:
        run(name, **limits)
    assert end.value.exit_code == 2
    return capsys.readouterr().err


def test_long_step_is_killed(capsys):
    assert "needs more than the 0.5 s of --seconds" in refused(capsys, "one_long_step", seconds=0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is enforced on Linux")
def test_greed_is_killed(capsys):
    assert "needs more than the 512 MiB of --memory" in refused(capsys, "take_memory")


@pytest.mark.parametrize("name", ["crash", "end_without_an_answer", "end_after_a_forged_answer", "odd_code"])
def test_process_that_ends_oddly_gives_no_verdict(capsys, name):
    assert "This is no verdict" in refused(capsys, name)


def test_what_is_printed_is_no_answer():
    assert run("print_and_answer") == (["answered"], 3)


@pytest.mark.parametrize(
    ("name", "words"), [("fail", "error: by nothing"), ("recurse", "error: RecursionError")]
)
def test_errors_are_one_line_and_no_verdict(name, words):
    (line,), code = run(name)
    assert code == 2
    assert line.startswith(words)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan"), 1e7])
def test_limit_that_is_none_is_refused(capsys, seconds):
    assert "--seconds: expected more than 0" in refused(capsys, "fail", seconds=seconds)
