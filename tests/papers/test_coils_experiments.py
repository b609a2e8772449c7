"""The CoILS experiments run every row, and resume."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from constrained_nn import experiments

OTHERS = ("coils-pendulum", "coils-path-following", "coils-cart-pole", "coils-birotor")


@pytest.mark.parametrize("name", ["coils-van-der-pol", *OTHERS])
def test_every_row_runs_and_says_what_it_measured(name, tmp_path):
    fast = experiments.load(name).fast()
    for row in fast.rows[:1] if name in OTHERS else fast.rows:
        metrics = fast.run(row.name, 1, tmp_path)
        names = {column.name for column in fast.columns}
        assert set(metrics) - {"residual"} <= names  # what a row does not have is left out
        if row.name.startswith("coils"):
            assert names <= set(metrics)
        assert 0.0 <= metrics["reach_2"] <= metrics["reach_10"] <= 100.0
        learned = row.name not in ("known-lqr", "idle")
        assert ("fit" in metrics) == learned
        assert all(math.isfinite(metrics[name]) for name in names & set(metrics))
        if row.name.startswith("coils"):
            assert metrics["slack"] <= 1e-12
        for file in tmp_path.iterdir():
            file.unlink()


def test_known_plant_is_stabilized_and_rest_is_not(tmp_path):
    import dataclasses

    task = dataclasses.replace(experiments.load("coils-van-der-pol"), grid=5)
    assert task.run("known-lqr", None, tmp_path)["reach_2"] == 100.0
    assert task.run("idle", None, tmp_path)["reach_10"] == pytest.approx(4.0)  # the goal itself


class _Plant(torch.nn.Module):
    def __init__(self, task):
        super().__init__()
        self.task = task

    def forward(self, x):
        return self.task.velocity(2, x)


class _RunsAway(torch.nn.Module):
    def forward(self, x):
        return 50.0 * x.square() * x


def test_stable_dynamics_of_pendulums(tmp_path):
    task = experiments.load("stable-n-link").fast()
    for row in task.rows:
        folder = tmp_path / f"{row.name}-seed1"
        folder.mkdir()
        metrics = task.run(row.name, 1, folder)
        # what a row does not have is left out
        assert set(metrics) <= {column.name for column in task.columns}
        for n in (1, 2):
            assert math.isfinite(metrics[f"error_{n}"])
            assert 0.0 < metrics[f"fit_{n}"] < 2.0
            assert 0.0 <= metrics[f"bounded_{n}"] <= 100.0
            if row.name.startswith("stable"):
                assert metrics[f"slack_{n}"] <= 1e-12
                assert metrics[f"active_{n}"] > 0.0
            else:
                assert f"slack_{n}" not in metrics
    # the plant itself has no error, and a model that runs away is neither near nor bounded
    exact = task._judged(_Plant(task), 2, 1)
    assert exact["error"] == pytest.approx(0.0, abs=1e-12)
    assert exact["bounded"] == 100.0
    assert exact["fit"] == pytest.approx(0.0, abs=1e-12)
    away = task._judged(_RunsAway(), 2, 1)
    assert away["error"] == math.inf
    assert away["bounded"] == 0.0
    assert task.draw_portraits(tmp_path, tmp_path / "portraits.png").stat().st_size > 10_000


def test_phase_portrait_is_drawn(tmp_path):
    from constrained_nn.plotting import Portrait, plot_portraits

    panel = Portrait(
        velocity=lambda x: -x,
        value=lambda x: (x**2).sum(-1),
        paths=np.stack([np.linspace(1.0, 0.0, 9)] * 2, -1)[None],
        level=0.5,
        marked=lambda x: x[:, 0] > 0.8,
    )
    box = (np.full(2, -1.0), np.full(2, 1.0))
    file = plot_portraits(tmp_path / "new" / "portrait.png", {"a": panel, "b": panel}, box, count=11)
    assert file.read_bytes().startswith(b"\x89PNG")
