"""Supervised and unsupervised training of a network behind constraints, and the unicycle's planning problem."""

from constrained_nn.training.supervised.loop import Loss, fit
from constrained_nn.training.supervised.unicycle_plan import (
    PlanSolver,
    draw_starts,
    mirrored_plan,
    mirrored_state,
    plan_cost,
    plan_map,
    plan_set,
    roll_out,
    violations,
)

__all__ = [
    "Loss",
    "PlanSolver",
    "draw_starts",
    "fit",
    "mirrored_plan",
    "mirrored_state",
    "plan_cost",
    "plan_map",
    "plan_set",
    "roll_out",
    "violations",
]
