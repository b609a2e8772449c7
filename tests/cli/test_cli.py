"""The command line: help for everything, one clear line for anything wrong, never a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from constrained_nn.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]

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
        (["train", "pendulm"], "Did you mean 'pendulum'?"),
        (["describe", "nowhere.py:Robot"], "does not exist"),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "unicycle-obstacles", "--threads", "100000"], "--threads"),
        (["train", "unicycle-obstacles", "--device", "meta"], "expected a device of this machine"),
        (["train", "unicycle-obstacles", "--device", ""], "--device: expected a value, got an empty one"),
        (["train", "unicycle-obstacles", "--out", ""], "--out: expected a value, got an empty one"),
        (["train", "unicycle-obstacles", "--out= "], "--out: expected a value, got an empty one"),
        (["train", "unicycle-obstacles", "--seed", "1" + "0" * 20], "--seed"),
        (
            ["train", "unicycle-obstacles", "--learning-rate", "inf"],
            "--learning-rate: expected a finite number",
        ),
        (["train", "unicycle-obstacles", "--final-learning-rate", "nan"], "expected a finite number"),
        (["train", "unicycle-obstacles", "--max-gradient-norm", "-1"], "expected max_gradient_norm > 0"),
        (["train", "unicycle-obstacles", "--max-adjoint-norm", "0"], "expected max_adjoint_norm > 0"),
        (["train", "unicycle-obstacles", "--option", "distance_weight=-1"], "expected distance_weight >= 0"),
        (["simulate", "run", "--count", "1" + "0" * 15], "--count"),
        (["simulate", ""], "expected a value, got an empty one"),
        (["certify", "run", "--runs", "1" + "0" * 15], "--runs"),
        (["certify", "run", "--seconds", "inf"], "--seconds: expected a finite number"),
        (["certify", "run", "--confidence", "nan"], "--confidence"),
        (["certify", "run", "--jobs", "100000"], "--jobs"),
        (["check", "c.json", "--seconds", "0"], "--seconds: expected more than 0"),
        (["check", "c.json", "--seconds", "inf"], "--seconds: expected a finite number"),
        (["check", "c.json", "--memory", "0"], "--memory"),
        (["reproduce", "safe-control", "--fast", "--seeds", "3:1"], "which holds none"),
        (["reproduce", "safe-control", "--fast", "--seeds", "0:1000000000000"], "at most 10000"),
        (["reproduce", "safe-control", "--fast", "--seeds", "1,2:4,3"], "each once"),
        (["reproduce", "safe-control", "--fast", "--seeds", "-1"], "from 0 to"),
        (["reproduce", "safe-control", "--fast", "--seeds", ""], "--seeds: expected a value"),
        (["bench", "rollout", "--states", "1" + "0" * 15], "memory"),
        (["bench", "rollout", "--threads", "100000"], "--threads"),
    ],
)
def test_values_without_a_meaning_are_refused(call, tmp_path, arguments, message):
    code, out, err = call(*arguments)
    assert code == 2
    assert message in " ".join((out + err).split())
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["train", "unicycle-obstacles", "--method", "cbf-qp", "--steps", "3"], "--steps"),
        (["train", "unicycle-obstacles", "--method", "nominal", "--learning-rate", "0.1"], "--learning-rate"),
        (["train", "unicycle-obstacles", "--method", "nominal", "--tensorboard"], "--tensorboard"),
        (["simulate", "run", "--count", "3"], "--count"),
        (["simulate", "run", "--starts", "test", "--seed", "3"], "--seed"),
        (["simulate", "run", "--start", "0 0 0 0 0", "--starts", "fresh"], "--starts"),
        (["simulate", "record", "--start", "0", "--figure", "a.png"], "--figure"),
        (["check", "c.json", "--run", "run"], "--run"),
        (["certify", "run", "--grade", "proof", "--runs", "5"], "--runs"),
        (["certify", "run", "--grade", "proof", "--confidence", "0.95"], "--confidence"),
        (["certify", "run", "--grade", "sampled", "--starts", "5"], "--starts"),
        (["certify", "run", "--jobs", "2"], "--jobs"),
        (["certify", "record", "--starts", "2"], "--starts"),
        (["certify", "record", "--grade", "sampled"], "--grade sampled"),
        (["certify", "lmi", "--seconds", "2"], "--seconds"),
        (["reproduce", "lmi-nonnormal", "--seeds", "1"], "--seeds"),
        (["reproduce", "lmi-nonnormal", "--reference", "run"], "--reference"),
        (["reproduce", "--all", "--rows", "pid"], "--rows"),
        (["reproduce", "pfar", "--jobs", "2", "--threads", "2"], "--threads"),
        (["reproduce", "pfar", "--fast", "--out", "docs/results"], "--out"),
        (["reproduce", "pfar", "--device", "meta"], "runs on the CPU only"),
        (["study", "study.yaml", "--report-only", "--jobs", "2"], "--jobs"),
        (["bench", "projection", "--peers", "moreau", "--device", "cuda"], "--device"),
    ],
)
def test_options_that_would_be_ignored_are_errors(call, tmp_path, arguments, option):
    for name in ("run", "record", "lmi"):
        (tmp_path / name).mkdir()
    (tmp_path / "record" / "loop.json").write_text("{}")
    (tmp_path / "lmi" / "decisions.safetensors").write_text("")
    code, out, err = call(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert option in err


@pytest.mark.parametrize("command", ["check", "report", "certify", "simulate", "compare", "study"])
def test_pipe_in_place_of_a_file_is_refused(call, tmp_path, command):
    os.mkfifo(tmp_path / "pipe")
    code, _, err = call(command, "pipe")
    assert code == 2
    assert "pipe or device" in err


def test_pipe_in_place_of_a_record_is_refused(call, tmp_path):
    (tmp_path / "record").mkdir()
    os.mkfifo(tmp_path / "record" / "loop.json")
    code, _, err = call("certify", "record")
    assert code == 2
    assert "expected an ordinary file" in err


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RecursionError(), AssertionError(), RuntimeError("odd"), BrokenPipeError(errno.EPIPE, "pipe"),
     EOFError(), NotImplementedError(), SystemExit(1), StopIteration()],
)  # fmt: skip
def test_nothing_but_a_verdict_has_the_code_of_one(call, monkeypatch, error):
    def raise_it(kind):
        raise error

    monkeypatch.setattr("constrained_nn.cli.list._entries", raise_it)
    code, _, err = call("list", "tasks")
    assert code == 2
    assert "Traceback" not in err


def test_interruption_is_130(call, monkeypatch):
    def interrupt(kind):
        raise KeyboardInterrupt

    monkeypatch.setattr("constrained_nn.cli.list._entries", interrupt)
    assert call("list", "tasks")[0] == 130


@pytest.mark.once  # in another process
def test_output_that_nobody_can_read_is_no_success():
    """A pipe that is closed at its other end, and a disk that is full."""
    command = [sys.executable, "-m", "constrained_nn", "list", "benchmarks"]
    ends = os.pipe()
    os.close(ends[0])
    closed = subprocess.run(command, stdout=ends[1], stderr=subprocess.PIPE, cwd=ROOT)
    assert closed.returncode == 2
    assert b"Traceback" not in closed.stderr
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            assert subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=ROOT).returncode == 2


def test_demo_deletes_nothing(call, run_folder, tmp_path):
    """The folder of an earlier demo, with a file that the user put there."""
    (tmp_path / "demo").mkdir()
    run_folder.rename(tmp_path / "demo" / "hardnet")
    for name in ("notes.txt", "hardnet/data.csv"):
        (tmp_path / "demo" / name).write_text("mine")
    before = {path: path.read_bytes() for path in (tmp_path / "demo").rglob("*") if path.is_file()}
    code, _, err = call("demo", "--out", "demo", "--fast")
    assert code == 2
    assert "--resume" in err
    assert {path: path.read_bytes() for path in (tmp_path / "demo").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_demo_refuses_a_folder_that_is_not_its_own(call, tmp_path, resume):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    code, _, err = call("demo", "--out", "thesis", *resume)
    assert code == 2
    assert "expected an empty folder" in err
    assert (tmp_path / "thesis" / "chapter.tex").exists()
