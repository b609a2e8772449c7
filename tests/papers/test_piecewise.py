"""HardNet (arXiv 2410.10807): the piecewise problems, and that enforcement holds at every point of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from constrained_nn import experiments
from constrained_nn.experiments.tables.hardnet.targets import Piecewise


def load(name: str) -> Piecewise:
    task = experiments.load(name)
    assert isinstance(task, Piecewise)
    return task


NAMES = ("piecewise", "piecewise-full", "piecewise-box")


@pytest.mark.parametrize("name", NAMES)
def test_the_target_satisfies_the_constraint(name: str) -> None:
    task = load(name)
    x = task.grid()
    goal = torch.from_numpy(task.target(x.squeeze(-1).numpy())).unsqueeze(-1)
    assert task.set(x).violation(goal).max() < 1e-14
    task.set(x).validate()


def test_constraints_at_points_worked_out_by_hand() -> None:
    x = torch.tensor([[-2.0], [-0.5], [0.5], [2.0]]).double()
    one = load("piecewise")
    lower, upper = (
        torch.tensor([5.0, -np.inf, 0.5 * (4 - 0.25), -np.inf]),
        torch.tensor([np.inf, 0, np.inf, -1.5]),
    )
    set = one.set(x)
    for inside, outside in ((lower + 0.1, lower - 0.1), (upper - 0.1, upper + 0.1)):
        there = inside.isfinite()
        y = torch.where(there, inside, 0.0).double().unsqueeze(-1)
        assert set.contains(y, atol=0.0)[there].all()
        y = torch.where(there, outside, 0.0).double().unsqueeze(-1)
        assert not set.contains(y, atol=0.0)[there].any()
    box = load("piecewise-box").set(x)
    expected = torch.tensor([[3.0, 3.0], [-2.0, -2.0], [0.5 * 3.75 - 2, 3.0], [3 / 8 - 2, 2.0]]).double()
    torch.testing.assert_close(torch.cat([box.lower, box.upper], -1), expected)


@pytest.mark.parametrize("name", NAMES)
def test_hardnet_violates_nowhere_and_the_others_do(name: str, tmp_path) -> None:
    task = experiments.load(name).fast()
    for row in task.rows:
        metrics = task.run(row.name, 1, tmp_path / row.name)
        assert (metrics["violated"] == 0) == row.name.startswith("hardnet")
        assert set(metrics) >= {column.name for column in task.columns}


@pytest.mark.slow
@pytest.mark.parametrize(("row", "mse"), [("none", 1.6083), ("hardnet", 0.1550)])
def test_first_seed_of_the_table(row: str, mse: float, tmp_path) -> None:
    """The means over five seeds equal the published ones; this is the first of them."""
    assert load("piecewise").run(row, 1, tmp_path)["mse"] == pytest.approx(mse, abs=5e-3)


def test_twenty_rows_on_five_outputs_hold_from_the_start(tmp_path) -> None:
    task = experiments.load("many-rows").fast()
    violated = {row.name: task.run(row.name, 1, tmp_path / row.name)["violated"] for row in task.rows}
    assert violated.pop("hardnet") == 0
    assert min(violated.values()) > 50
