"""The projection benchmark: its definitions, its own peer, its table and its errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from constrained_nn.bench import projection
from constrained_nn.bench.measure import measure
from constrained_nn.bench.rivals import NAMES, reference, workload
from tests.oracles import nearest_point


@pytest.mark.parametrize("name", NAMES)
def test_reference_is_the_nearest_point(name):
    work = workload(name, 2)
    value, _ = reference(work)
    rows, bound = work.one_sided()

    def constraints(z):
        G = rows if rows.ndim == 2 else rows[1]
        return [bound[1] >= G @ z] + ([] if work.C is None else [work.C @ z == work.d[1]])

    np.testing.assert_allclose(value[1], nearest_point(work.point[1], constraints), atol=1e-5)
    assert work.violation(value) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_our_layer_is_exact_on_every_workload(name):
    record = measure("constrained_nn", name, 16, "cpu")
    assert record["distance"] <= 1e-9
    assert record["gradient_error"] <= 1e-7
    assert record["violation"] <= 1e-9


def test_the_command_prints_a_table_and_writes_a_file(tmp_path):
    import typer

    app = typer.Typer()
    app.command()(projection.command)
    out = tmp_path / "projection.json"
    arguments = ["--peers", "constrained_nn", "--workloads", "w1s", "--batch", "4", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "w1s, batch 4" in done.output
    record = json.loads(out.read_text())
    assert record["records"][0]["distance"] < 1e-9
    assert record["versions"]["torch"]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="expected a peer among"):
        projection.run(peers=["nobody"])
    with pytest.raises(ValueError, match="expected a workload among"):
        projection.run(peers=["constrained_nn"], workloads=["w9"])


def test_verdict_compares_with_the_bar():
    def row(peer, forward, both):
        return {"peer": peer, "workload": "w1s", "device": "cpu", "forward_ms": forward, "both_ms": both}

    assert projection.verdict([row("constrained_nn", 5, 8), row("moreau", 10, 24)], "w1s").endswith(": met")
    assert projection.verdict([row("constrained_nn", 7, 8), row("moreau", 10, 24)], "w1s").endswith(
        ": missed"
    )
