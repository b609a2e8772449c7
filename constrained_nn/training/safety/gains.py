"""How fast constraints may be approached: by the conflicts that the nominal controller meets."""

from __future__ import annotations

from collections.abc import Callable

import torch

from constrained_nn.certificates import SafeInputs
from constrained_nn.layers import EuclideanProjection, LeastViolation
from constrained_nn.training.safety.starts import draw_starts
from control_envs.tasks import Task

# Shares of the distance that may be used up in one sample, from bold to careful.
PACES = (0.5, 0.2, 0.1, 0.05, 0.02)
STARTS, SAMPLES = 32, 250


@torch.no_grad()
def choose_pace(task: Task, build: Callable[[float], SafeInputs]) -> float:
    """The pace at which the filtered nominal controller meets the fewest empty sets, then costs least.

    A bold pace comes near before it acts, and then may lack the force; a careful one keeps away
    from what it could reach. Which is right depends on what the inputs can do; so each is tried on
    32 start states, for at most 250 samples.
    """
    x0 = torch.as_tensor(draw_starts(task, "gains", STARTS))
    best, chosen = (float("inf"), float("inf")), PACES[0]
    for pace in PACES:
        score = _try(task, build(pace), x0, most=best[0])
        if score < best:
            best, chosen = score, pace
    return chosen


def _try(task: Task, safe: SafeInputs, x: torch.Tensor, most: float) -> tuple[float, float]:
    """Empty sets met, and the cost; ends early with more than `most` of them."""
    layer = EuclideanProjection(on_failure=LeastViolation())
    low, high = safe.low.to(x), safe.high.to(x)
    conflicts, cost = 0, 0.0
    for k in range(min(task.horizon, SAMPLES)):
        t = k * task.dt
        solution = layer.solve(task.nominal(t, x), safe.condition(t, x))
        conflicts += int((~solution.ok).sum())
        if conflicts > most:
            return float("inf"), float("inf")
        u = torch.minimum(torch.maximum(solution.value, low), high)
        cost += task.dt * float(task.stage_cost(t, x, u).sum())
        x = safe.advance(t, x, u)
    return float(conflicts), cost if cost == cost else float("inf")
