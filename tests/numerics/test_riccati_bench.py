"""The Riccati benchmark: its problems, its figures, its file."""

from __future__ import annotations

import json

from typer import Typer
from typer.testing import CliRunner

from constrained_nn.bench import riccati


def test_figures_of_a_small_batch():
    for equation in ("care", "dare"):
        record = riccati.measure(equation, 8, 3, 1, 1, "cpu")
        assert record["solved"] == 8
        assert record["distance"] < 1e-9
        assert record["gradient_error"] < riccati.BAR_GRADIENT
        assert 0 < record["forward_ms"] < record["scipy_ms"] * 1e3


def test_residuals_of_the_bar():
    for which, least in (("random", 1000), ("badly scaled", 195)):
        record = riccati.judge("care", which, "cpu")
        assert record["worst"] <= riccati.BAR_RESIDUAL
        assert record["solved"] >= least
        assert record["solved"] + record["flagged"] == record["count"]


def test_the_command_prints_and_writes(tmp_path):
    app = Typer()
    app.command()(riccati.command)
    out = tmp_path / "riccati.json"
    done = CliRunner().invoke(app, ["--batch", "4", "--states", "2", "--inputs", "1", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "SciPy loop" in done.output
    record = json.loads(out.read_text())
    assert [r["equation"] for r in record["records"]] == ["care", "dare"]
    assert len(record["accuracy"]) == 4
