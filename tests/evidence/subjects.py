"""Controllers on the unicycle task, and certificates about them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from constrained_nn.certificates import ControlBarrier
from constrained_nn.evidence import Subject, certify
from constrained_nn.layers import HardNetAffine
from control_envs.tasks import UnicycleObstacles

TASK = UnicycleObstacles()


class Filtered(nn.Module):
    """The nominal controller behind HardNet-Aff."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = HardNetAffine()
        self.condition = ControlBarrier(TASK.barrier, TASK.plant, rate=TASK.alpha).condition

    def forward(self, t, x):
        return self.layer(TASK.nominal(t, x), self.condition(t, x))


class Nominal(nn.Module):
    """The nominal controller alone, which drives into the obstacles."""

    def forward(self, t, x):
        return TASK.nominal(t, x)


def subject(controller: nn.Module, dtype: torch.dtype = torch.float64) -> Subject:
    return Subject(TASK, controller.eval(), dtype, "test", "none", "none")


def make(
    about: Subject, *, starts: np.ndarray | None = None, runs: int = 60, grades=("proof", "sampled")
) -> dict:
    starts = TASK.published_starts()["test"][:4] if starts is None else starts
    return certify(
        about,
        grades=frozenset(grades),
        seed=3,
        runs=runs,
        confidence=0.99,
        starts=starts,
        command="constrained-nn certify somewhere",
    )
