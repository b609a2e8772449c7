"""The command line: help for everything, one clear line for anything wrong, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from constrained_nn.cli import COMMANDS, main

# typer reads the annotations that the run-time checker wraps
pytestmark = pytest.mark.untyped


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder; returns (exit code, standard output, error output)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["constrained-nn", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def run_folder(call, tmp_path):
    arguments = ["--steps", "2", "--batch", "10", "--eval-every", "2", "--quiet", "--out", "run"]
    code, out, _ = call("train", "unicycle-obstacles", *arguments)
    assert code == 0
    assert "hardnet" in out
    return tmp_path / "run"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert "Usage" in out
    assert len(out.splitlines()) > 5


def test_list_and_version(call):
    code, out, _ = call("list")
    assert code == 0
    for name in ("unicycle-obstacles", "hardnet", "cbf-qp", "safe-control", "rollout"):
        assert name in out
    assert call("--version")[1].strip() == "0.1.0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "unicycle-obstacle"], "Did you mean 'unicycle-obstacles'?"),
        (["train", "unicycle-obstacles", "--method", "hardent"], "Did you mean 'hardnet'?"),
        (["train", "unicycle-obstacles", "--option", "weight"], "expected NAME=VALUE"),
        (["train", "unicycle-obstacles", "--option", "x=1"], "has no option 'x'"),
        (["train", "unicycle-obstacles", "--option", "weight=heavy"], "expected a number"),
        (["train", "unicycle-obstacles", "--dtype", "int8"], "expected dtype of float32, float64"),
        (["train", "unicycle-obstacles", "--learning-rate", "0"], "expected learning_rate > 0"),
        (["train", "unicycle-obstacles", "--device", "warp"], "expected a device of this machine"),
        (["train", "pendulum"], "expected a task with a barrier"),
        (["train", "unicycle-obstacles", "--steps", "-1"], "--steps"),
        (["simulate", "nowhere"], "expected a run"),
        (["compare", "nowhere"], "expected a run"),
        (["list", "everything"], "expected one of tasks"),
        (["reproduce", "safe-contrl"], "Did you mean 'safe-control'?"),
        (["bench", "rollout", "--states", "0"], "--states"),
        (["tarin"], "No such command 'tarin'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(call, arguments, message):
    code, out, err = call(*arguments)
    assert code == 2
    assert message in " ".join((out + err).split())
    assert "Traceback" not in err


def test_simulate_and_compare(call, run_folder):
    code, out, _ = call("simulate", str(run_folder), "--starts", "fresh", "--count", "3", "--figure", "a.png")
    assert code == 0
    assert "3 fresh start states" in out
    assert os.path.getsize("a.png") > 1000
    code, out, _ = call("compare", str(run_folder), "--latex", "t.tex", "--gif", "b.gif")
    assert code == 0
    assert r"\begin{tabular}" in Path("t.tex").read_text()
    assert os.path.getsize("b.gif") > 1000
    assert call("simulate", str(run_folder), "--starts", "some")[0] == 2


def test_same_folder_twice_needs_resume(call, run_folder):
    arguments = ["--steps", "2", "--batch", "10", "--eval-every", "2", "--quiet", "--out", "run"]
    code, _, err = call("train", "unicycle-obstacles", *arguments)
    assert code == 2
    assert "--resume" in err
    assert call("train", "unicycle-obstacles", *arguments, "--resume")[0] == 0


def test_full_disk_is_one_line(call, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = call("train", "unicycle-obstacles", "--steps", "2", "--batch", "5", "--quiet")
    assert code == 2
    assert "No space left on device" in err
    assert len(err.strip().splitlines()) == 1


def test_demo_refuses_a_folder_that_is_not_its_own(call, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    code, _, err = call("demo", "--out", "thesis")
    assert code == 2
    assert "expected an empty folder" in err
    assert (tmp_path / "thesis" / "chapter.tex").exists()
