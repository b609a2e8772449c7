"""HardNet (arXiv 2410.10807): the instance of the learning-to-optimize task."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from constrained_nn.experiments.tables.hardnet import published_program
from constrained_nn.experiments.tables.hardnet.learning_to_optimize import EXPERIMENT, ROWS, N


def test_the_instance_is_the_published_one() -> None:
    program = published_program()
    assert np.linalg.cond(np.concatenate([program.A, program.C])) == pytest.approx(170.5, abs=0.1)
    assert (len(program.train), len(program.test)) == (8334, 833)
    inside = np.linalg.pinv(program.C) @ program.test.T  # feasible by the choice of b
    assert program.set(torch.from_numpy(program.test)).violation(torch.from_numpy(inside.T)).max() < 1e-12


def test_the_optimum_is_feasible_and_stationary() -> None:
    program = published_program()
    x = program.test[0]
    y = program.solve(x)
    assert program.set(torch.from_numpy(x)).violation(torch.from_numpy(y)) < 1e-8
    best = program.objective(torch.from_numpy(y))
    start = program.objective(torch.from_numpy(np.linalg.pinv(program.C) @ x))
    assert best < start - 1.0
    null = np.linalg.svd(program.C)[2][ROWS:].T
    rng = np.random.default_rng(0)
    rival = y + 1e-2 * (null @ rng.standard_normal((N - ROWS, 500))).T
    rival = torch.from_numpy(rival)
    feasible = program.set(torch.from_numpy(x)).violation(rival) < 1e-9
    assert (program.objective(rival)[feasible] > best - 1e-6).all()


def test_hardnet_satisfies_every_row_from_the_start(tmp_path) -> None:
    fast = EXPERIMENT.fast()
    for row in ("none", "dc3", "hardnet"):
        metrics = fast.run(row, 1, tmp_path / row)
        assert (metrics["worst_row"] < 1e-8) == (row == "hardnet")
        assert (metrics["max_equality"] < 1e-10) == (row != "none")
        assert set(metrics) >= {column.name for column in fast.columns}
