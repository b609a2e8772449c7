"""`constrained-nn bench envs` counts steps, and writes what it counted."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from constrained_nn.cli import build


@pytest.mark.untyped
def test_bench_envs(tmp_path):
    out = tmp_path / "envs.json"
    options = [
        "--num-envs",
        "8",
        "--steps",
        "3",
        "--repeats",
        "1",
        "--compile",
        "aot_eager",
        "--out",
        str(out),
    ]
    result = CliRunner().invoke(build(), ["bench", "envs", "--task", "double-integrator", *options])
    assert result.exit_code == 0, result.output
    records = json.loads(out.read_text())["records"]
    assert [(r["kind"], r["num_envs"], r["compile"]) for r in records] == [
        ("single", 1, None),
        *[("vector", 8, None), ("vector", 8, "aot_eager")] * 2,
    ]
    assert all(r["steps_per_second"] > 0 for r in records)
