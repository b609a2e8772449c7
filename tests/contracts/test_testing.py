"""The contracts that ship with the package: they pass what is right, and say what is wrong with what is not."""

from __future__ import annotations

import pytest
import torch

from constrained_nn import EuclideanProjection
from constrained_nn.control import FunctionController
from constrained_nn.testing import check_controller, check_layer, check_set, check_task
from control_envs.tasks import TASKS, DoubleIntegratorTask, make_task
from tests.contracts.composed import Budget
from tests.contracts.naive import Idle, NonnegativeSum, Own


def amounts(generator: torch.Generator, batch: tuple[int, ...]) -> NonnegativeSum:
    return NonnegativeSum(torch.randn(batch, generator=generator, dtype=torch.float64))


def budgets(generator: torch.Generator, batch: tuple[int, ...]) -> Budget:
    weights = 0.5 + torch.rand(*batch, 3, generator=generator, dtype=torch.float64)
    return Budget(weights, torch.ones(batch, dtype=torch.float64))


def test_a_newcomers_set_and_layer() -> None:
    check_set(amounts)
    check_layer(Own(), amounts)
    check_set(budgets)
    check_layer(EuclideanProjection(), budgets)


def test_a_layer_that_does_nothing() -> None:
    with pytest.raises(AssertionError, match="Idle to enforce every element"):
        check_layer(Idle(), amounts)


def test_a_set_that_mixes_its_batch() -> None:
    class Mixed(NonnegativeSum):
        def residual(self, y):
            return super().residual(y) + y.mean()

    with pytest.raises(AssertionError, match=r"Mixed\.residual of a batch"):
        check_set(lambda g, batch: Mixed(torch.zeros(batch, dtype=torch.float64)))


def test_a_controller_that_mixes_its_batch() -> None:
    states = torch.randn(4, 2, dtype=torch.float64)
    check_controller(FunctionController(lambda t, x: -x), states)
    with pytest.raises(AssertionError, match="those of its elements"):
        check_controller(FunctionController(lambda t, x: x - x.mean()), states)


@pytest.mark.once
@pytest.mark.parametrize("name", TASKS)
def test_tasks(name: str) -> None:
    check_task(make_task(name))


def test_a_task_whose_cost_mixes_its_batch() -> None:
    class Mixed(DoubleIntegratorTask):
        def stage_cost(self, t, x, u):
            return super().stage_cost(t, x, u) + x.mean()

    with pytest.raises(AssertionError, match="stage_cost of a batch"):
        check_task(Mixed())
