"""Every example runs, as a user would start it."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHORTER = {"adaptive_control": ("--steps", "2")}  # what it prints of its learning is not looked at


@pytest.mark.untyped
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_runs(example: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(example), "--fast", *SHORTER.get(example.stem, ())],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # also where the package is not installed
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip(), "an example says what came of it"
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
