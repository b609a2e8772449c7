"""Both nonlinear layers on the constraint sets of Hock and Schittkowski.

`pytest -m slow tests/numerics/test_hock_schittkowski.py` runs the whole collection, 12 starts each, in
units of the rows from 1e-4 to 1e4; the normal run takes sets that found faults, and a few starts.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from constrained_nn.layers import HardNetPlusPlus, NearestPoint
from constrained_nn.sets import Box, Intersection, NonlinearSet, SmoothFunction
from tests.cases.hock_schittkowski import PROBLEMS, Problem

LAYERS = pytest.mark.parametrize("layer", [HardNetPlusPlus, NearestPoint])
# Rows in other units (64), cusps (13), exponentials (34), narrow and badly scaled sets (93, 106), degenerate ones (46).
FEW = (8, 13, 19, 23, 34, 46, 64, 71, 93, 106)


def missed_by(problem: Problem, y: Tensor, unit: float) -> Tensor:
    """Largest violation in float64, relative to the terms of its row where they exceed one."""
    set = problem.set(unit)
    return (set.residual(y).abs() / (1.0 + set.scale(y))).amax(-1)


def solved(layer: type, problem: Problem, number: int, unit: float, starts: int) -> int:
    """Number of starts that are OK; none of them violates a row."""
    solution = layer().solve(problem.starts(starts, number), problem.set(unit))
    missed = missed_by(problem, solution.value, unit)
    assert (missed[solution.ok] <= 1e-10).all(), (number, missed)
    return int(solution.ok.sum())


@pytest.mark.once
@pytest.mark.parametrize("number", list(PROBLEMS))
def test_published_optimum_is_feasible_and_active(number: int) -> None:
    problem = PROBLEMS[number]
    assert missed_by(problem, problem.optimum, 1.0) <= 3e-6
    rows = problem.rows(problem.optimum).abs()
    on_bound = torch.minimum(problem.optimum - problem.lower, problem.upper - problem.optimum).amin()
    active = rows.amin() <= 1e-3 * (1.0 + rows.amax()) or on_bound <= 1e-9
    assert active or number == 70  # whose constraint is not active


@pytest.mark.once
@LAYERS
def test_hard_sets_in_units_from_small_to_large(layer: type) -> None:
    for unit in (1e-4, 1e4):
        counts = {n: solved(layer, PROBLEMS[n], n, unit, 3) for n in FEW}
        assert sum(counts.values()) >= 3 * len(FEW) - 2, counts


@pytest.mark.slow
@LAYERS
@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_whole_collection(layer: type, unit: float) -> None:
    counts = {n: solved(layer, p, n, unit, 12) for n, p in PROBLEMS.items()}
    assert sum(counts.values()) >= 0.97 * 12 * len(PROBLEMS), {n: c for n, c in counts.items() if c < 12}


@pytest.mark.once
@LAYERS
def test_functions_see_no_point_outside_of_the_bounds(layer: type) -> None:
    """`log` of the first variable and `1 / x` of the second have none there."""
    seen: list[Tensor] = []

    def rows(y: Tensor, context: Tensor) -> Tensor:
        if not torch._C._are_functorch_transforms_active():
            seen.append(y.detach())
        return torch.stack([torch.log(y[..., 0]) + 1.0 / y[..., 1], y.prod(-1)], -1)

    lower, upper = torch.tensor([0.01, 0.02]).double(), torch.tensor([2.0, 3.0]).double()
    bounds = torch.tensor([-1.0, 0.3]).double()
    set = Intersection(NonlinearSet(SmoothFunction(rows, 2), bounds, bounds), Box(lower, upper))
    y = 4.0 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solution = layer().solve(y, set)
    points = torch.cat([p.reshape(-1, 2) for p in seen])
    assert len(points) > 100
    assert ((points >= lower) & (points <= upper)).all()
    assert solution.ok.double().mean() > 0.9, solution.counts()


@pytest.mark.once
@LAYERS
def test_float32_is_solved_in_float64(layer: type) -> None:
    """And the status is that of the rounded value."""
    count = ok = 0
    for number in (6, 8, 14, 19, 63, 71):
        problem = PROBLEMS[number]
        solution = layer().solve(problem.starts(4, number).float(), problem.set(dtype=torch.float32))
        assert solution.value.dtype == torch.float32
        missed = missed_by(problem, solution.value.double(), 1.0)
        assert (missed[solution.ok] <= 64 * torch.finfo(torch.float32).eps).all(), number
        count, ok = count + 4, ok + int(solution.ok.sum())
    assert ok >= 0.85 * count
