"""The checker in one file: it needs Python, NumPy and python-flint, and behaves like `constrained-nn check`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from constrained_nn.verify import digest
from tests.evidence.conditions import minimal

pytestmark = [pytest.mark.untyped, pytest.mark.once]  # in other processes

BUILD = Path(__file__).parents[2] / ".ci" / "build_checker.py"
NEEDED = ("numpy", "flint", "python_flint")
BLOCKED = ("torch", "scipy", "control_envs", "typer", "constrained_nn")


def build(target: Path) -> Path:
    subprocess.run([sys.executable, "-I", "-S", str(BUILD), str(target)], check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist") / "constrained-nn-check.pyz")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with NumPy and python-flint alone."""
    folder = tmp_path_factory.mktemp("libraries")
    for entry in Path(numpy.__file__).parents[1].iterdir():
        if entry.name.partition(".")[0].partition("-")[0] in NEEDED:
            (folder / entry.name).symlink_to(entry)
    return folder


def python(libraries: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python without site-packages: it sees its own library, that folder, and what it is given."""
    return subprocess.run(
        [sys.executable, "-S", "-P", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=libraries,
        env={**os.environ, "PYTHONPATH": str(libraries)},
        timeout=120,
    )


def write(folder: Path, kind, **changes: object) -> Path:
    certificate = minimal.finish(*kind())
    (claim,) = certificate["claims"]
    claim |= changes
    certificate["digest"] = digest(certificate)
    file = folder / "certificate.json"
    file.write_text(json.dumps(certificate))
    return file


def test_nothing_else_can_be_imported(libraries: Path) -> None:
    names = ", ".join(map(repr, BLOCKED))
    code = f"import importlib.util as u, numpy, flint; print([n for n in ({names},) if u.find_spec(n)])"
    assert python(libraries, "-c", code).stdout.strip() == "[]"


def test_verdicts_and_exit_codes(archive: Path, libraries: Path, tmp_path: Path) -> None:
    holds = python(libraries, archive, write(tmp_path, minimal.lyapunov))
    assert (holds.returncode, holds.stderr) == (0, "")
    assert "proof: holds" in holds.stdout
    file = write(tmp_path, minimal.energy_runs)
    kept = python(libraries, archive, file)
    assert kept.returncode == 2
    assert "pass --accept sampled" in kept.stdout
    assert python(libraries, archive, file, "--accept", "sampled").returncode == 0
    # of V(x+) <= alpha max(V, c) with alpha above 1 nothing can be true
    false = python(libraries, archive, write(tmp_path, minimal.energy, alpha="0x1p+1"))
    assert false.returncode == 3
    assert "counterexample" in false.stdout


def test_no_verdict_is_one_line_and_code_2(archive: Path, libraries: Path, tmp_path: Path) -> None:
    file = write(tmp_path, minimal.rows)  # the one kind that uses NumPy
    assert python(libraries, archive, file).returncode == 0
    file.write_text(file.read_text()[:-2])
    for arguments, says in (
        ((file,), "is not valid JSON"),
        ((tmp_path / "none.json",), "does not exist"),
        ((file, "--seconds", "0"), "expected more than 0"),
        ((file, "--seconds", "1e-9"), "needs more than the 1e-09 s"),
    ):
        found = python(libraries, archive, *arguments)
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr.startswith("error: ")
        assert says in found.stderr
        assert len(found.stderr.splitlines()) == 1
    assert python(libraries, archive).returncode == 2


def test_the_same_sources_give_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    assert build(tmp_path / "again.pyz").read_bytes() == archive.read_bytes()
