"""Rows of the certificate functions."""

from __future__ import annotations

import numpy as np
import torch

from constrained_nn.certificates import ControlBarrier
from control_envs.tasks import UnicycleObstacles
from tests.cases._rows import BadCall, CertificateCase

TASK = UnicycleObstacles()


def unicycle_states(generator: torch.Generator, count: int) -> torch.Tensor:
    low, high = torch.tensor([-4.0, -1.0, -1.5, -2.0, -2.0]), torch.tensor([0.5, 1.5, 1.5, 4.0, 2.0])
    draw = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    return low + (high - low) * draw


def two_ellipses(x: np.ndarray) -> np.ndarray:
    """`h = e' + 10 e` of the published task, `e'` by central differences along the motion."""

    def clearance(px: float, py: float, theta: float) -> np.ndarray:
        cx, cy = px + 0.1 * np.cos(theta), py + 0.1 * np.sin(theta)
        return np.array(
            [((cx + 2.25) / 0.5) ** 2 + ((cy - 0.5) / 0.75) ** 2 - 1, ((cx + 0.8) ** 2 + cy**2) / 0.25 - 1]
        )

    px, py, theta, v, omega = x
    s = 1e-5
    ahead, behind = (
        clearance(px + k * s * v * np.cos(theta), py + k * s * v * np.sin(theta), theta + k * s * omega)
        for k in (1, -1)
    )
    return (ahead - behind) / (2 * s) + 10.0 * clearance(px, py, theta)


class _PlainBarrier:
    """The same barrier without its shortcut, so that the general formula runs."""

    value, gradient = staticmethod(TASK.barrier.value), staticmethod(TASK.barrier.gradient)


ROWS = [
    CertificateCase(
        "ControlBarrier",
        ControlBarrier,
        lambda: ControlBarrier(TASK.barrier, TASK.plant, rate=20.0),
        TASK.plant,
        unicycle_states,
        two_ellipses,
        lambda h, h_dot: h_dot + 20.0 * h,
    ),
    CertificateCase(
        "ControlBarrier-general",
        ControlBarrier,
        lambda: ControlBarrier(_PlainBarrier(), TASK.plant, rate=20.0),
        TASK.plant,
        unicycle_states,
        two_ellipses,
        lambda h, h_dot: h_dot + 20.0 * h,
    ),
    BadCall(
        "ControlBarrier",
        ValueError,
        lambda: ControlBarrier(TASK.barrier, TASK.plant, rate=-1.0),
        "got -1.0",
    ),
]
