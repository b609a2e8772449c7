"""Every example runs, as a user would start it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(example: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(example), *options],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # also where the package is not installed
    )


@pytest.mark.untyped
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_runs(example: Path, tmp_path: Path) -> None:
    result = run(example, tmp_path, "--fast")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip(), "an example says what came of it"
    assert not result.stderr.strip(), result.stderr


@pytest.mark.untyped
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_refuses_a_wrong_option(example: Path, tmp_path: Path) -> None:
    result = run(example, tmp_path, "--steps", "many")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
