"""The CoILS experiments run every row, and resume."""

from __future__ import annotations

import math

import pytest

from constrained_nn import experiments


@pytest.mark.parametrize("name", ["coils-van-der-pol", "coils-pendulum"])
def test_every_row_runs_and_says_what_it_measured(name, tmp_path):
    fast = experiments.load(name).fast()
    for row in fast.rows:
        metrics = fast.run(row.name, 1, tmp_path)
        assert set(metrics) == {column.name for column in fast.columns}
        assert 0.0 <= metrics["reach_2"] <= metrics["reach_10"] <= 100.0
        learned = row.name not in ("known-lqr", "idle")
        assert math.isfinite(metrics["fit"]) == learned
        if row.name.startswith("coils"):
            assert metrics["slack"] <= 1e-12
        for file in tmp_path.iterdir():
            file.unlink()


def test_known_plant_is_stabilized_and_rest_is_not(tmp_path):
    import dataclasses

    task = dataclasses.replace(experiments.load("coils-van-der-pol"), grid=5)
    assert task.run("known-lqr", None, tmp_path)["reach_2"] == 100.0
    assert task.run("idle", None, tmp_path)["reach_10"] == pytest.approx(4.0)  # the goal itself
