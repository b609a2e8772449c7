"""The contracts that ship with the package: they pass what is right, and say what is wrong with what is not."""

from __future__ import annotations

import pytest
import torch

from constrained_nn import EuclideanProjection
from constrained_nn.control import FunctionController
from constrained_nn.sets import constraint_set
from constrained_nn.testing import check_controller, check_layer, check_set, check_task
from control_envs.tasks import TASKS, DoubleIntegratorTask, make_task
from tests.contracts.composed import Budget
from tests.contracts.naive import Coarse, Idle, NonnegativeSum, Own


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


def test_a_layer_that_looks_at_who_watches() -> None:
    class Curious(Own):
        def enforce(self, y, set, factor, warm_start):
            return set.project(y) + 1e-3 * set.floor.requires_grad

    with pytest.raises(AssertionError, match="Curious to give the same bits of value"):
        check_layer(Curious(), amounts)


def test_a_set_that_swallows_nan() -> None:
    @constraint_set
    class Swallowing(NonnegativeSum):
        def residual(self, y):
            return super().residual(y).nan_to_num(0.0)

    def draw(generator: torch.Generator, batch: tuple[int, ...]) -> Swallowing:
        return Swallowing(amounts(generator, batch).floor)

    with pytest.raises(AssertionError, match="NaN in floor to contain nothing"):
        check_layer(Own(), draw)


def test_a_projection_that_is_coarse() -> None:
    def draw(generator: torch.Generator, batch: tuple[int, ...]) -> Coarse:
        return Coarse(amounts(generator, batch).floor)

    check_set(draw, atol=1e-4)
    with pytest.raises(AssertionError, match=r"Coarse\.project\(y\) in the set"):
        check_set(draw)


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
