"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import os

import pytest
import typer
from typer.testing import CliRunner

from constrained_nn.cli import study
from constrained_nn.cli.shell import Command
from constrained_nn.experiments.study import report as _study_report
from constrained_nn.files import write_atomically, write_json
from tests.evidence.test_study import STUDY


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "deep" / "file.txt", "old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new" * 1000)
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_study_on_a_full_disk_ends_in_one_line(tmp_path, monkeypatch):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    monkeypatch.setattr(_study_report, "write_atomically", full_disk)
    app = typer.Typer()
    app.command(cls=Command)(study.command)
    result = CliRunner().invoke(app, [str(file), "--out", str(tmp_path / "out"), "--report-only"])
    assert result.exit_code == 2
    assert "No space left" in result.output
    assert "What was finished is kept" in result.output
    assert result.output.count("\n") == 1
