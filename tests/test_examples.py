"""Every example runs, as a user would start it."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHORTER = {"adaptive_control": ("--steps", "2")}  # what it prints of its learning is not looked at


@pytest.mark.untyped
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_runs(example: Path, tmp_path: Path, as_a_program, capfd) -> None:
    as_a_program(example, "--fast", *SHORTER.get(example.stem, ()), folder=tmp_path)
    output, errors = capfd.readouterr()
    assert output.strip(), "an example says what came of it"
    assert not errors.strip(), errors


@pytest.fixture
def as_a_program(monkeypatch: pytest.MonkeyPatch):
    """Run a file as `python file options` would, without the seconds that a process needs to load torch.

    Warnings are written out, and what a process would take with it is put back.
    """
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()

    def run(file: Path, *options: str, folder: Path) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [str(file), *options])
        with warnings.catch_warnings():
            warnings.resetwarnings()
            for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
                warnings.simplefilter("ignore", kind)  # as the interpreter does
            warnings.showwarning = lambda *what: sys.stderr.write(warnings.formatwarning(*what[:4]))
            try:
                runpy.run_path(str(file), run_name="__main__")
            except SystemExit as end:
                if end.code:
                    pytest.fail(f"ends with {end.code}")

    with torch.random.fork_rng():
        yield run
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    plt.close("all")


@pytest.mark.once  # in another process
def test_starts_in_a_process_of_its_own(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "piecewise_constraints.py"), "--fast"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # also where the package is not installed
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    assert not result.stderr.strip(), result.stderr


@pytest.mark.untyped
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_refuses_a_wrong_option(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(example), "--steps", "many"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(example), run_name="__main__")
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "error: " in message
    assert "--steps" in message
