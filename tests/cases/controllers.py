"""Rows of the controllers."""

from __future__ import annotations

import numpy as np
import torch

from constrained_nn import HardNetAffine
from constrained_nn.certificates import ControlBarrier
from constrained_nn.control import AnchoredController, FunctionController, ResidualController, SafetyFilter
from constrained_nn.errors import InfeasibleError, ShapeError
from constrained_nn.sets import Polyhedron
from tests.cases._rows import BadCall, ControllerCase
from tests.cases.certificates import TASK, unicycle_states
from tests.oracles import hardnet_affine, numpy


def _nominal(x: np.ndarray) -> np.ndarray:
    """Heading and speed controller of the published task, for one state."""
    px, py, theta, v, omega = x
    distance = np.hypot(px, py)
    omega_goal = 10.0 * (px * np.sin(theta) - py * np.cos(theta)) / (distance + 1e-5)
    v_goal = np.clip(-10.0 * distance * (px * np.cos(theta) + py * np.sin(theta)), -5.0, 5.0)
    return np.array([5.0 * (v_goal - v), 5.0 * (omega_goal - omega)])


def _residual() -> ResidualController:
    backbone = torch.nn.Linear(6, 2, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(backbone.weight, 0.5)
    return ResidualController(TASK.nominal, TASK.features, backbone)


def _nominal_plus_residual(x: np.ndarray) -> np.ndarray:
    px, py, theta, v, omega = x
    return _nominal(x) + 0.5 * (px + py + np.cos(theta) + np.sin(theta) + v + omega)


def _filter() -> SafetyFilter:
    barrier = ControlBarrier(TASK.barrier, TASK.plant, rate=20.0)
    return SafetyFilter(FunctionController(TASK.nominal), barrier.condition, HardNetAffine())


def _filtered_nominal(x: np.ndarray) -> np.ndarray:
    set = ControlBarrier(TASK.barrier, TASK.plant, rate=20.0).condition(0.0, torch.from_numpy(x))
    return hardnet_affine(_nominal(x), numpy(set.A), numpy(set.lower), numpy(set.upper))


def _impossible() -> torch.Tensor:
    def empty(t, x):
        return Polyhedron(torch.ones(1, 2), torch.ones(1), -torch.ones(1))

    controller = SafetyFilter(FunctionController(lambda t, x: x), empty, HardNetAffine()).eval()
    return controller(0.0, torch.zeros(3, 2))


ANCHOR, TWO = (
    torch.tensor([-1.0, 0.5, 0.2, 0.0, 0.1], dtype=torch.float64),
    torch.ones(2, dtype=torch.float64),
)


def _anchored() -> AnchoredController:
    backbone = torch.nn.Linear(5, 2, dtype=torch.float64)
    torch.nn.init.constant_(backbone.weight, 0.5)
    torch.nn.init.constant_(backbone.bias, 3.0)
    return AnchoredController(backbone, ANCHOR, TWO, -0.5 * TWO, torch.inf * TWO)


def _anchored_input(x: np.ndarray) -> np.ndarray:
    s = 0.5 * (x - ANCHOR.numpy()).sum()
    return np.full(2, 1.0 + (s if s >= 0 else 1.5 * np.tanh(s / 1.5)))


ROWS = [
    ControllerCase("AnchoredController", AnchoredController, _anchored, unicycle_states, _anchored_input),
    BadCall(
        "AnchoredController",
        ValueError,
        lambda: AnchoredController(torch.nn.Linear(5, 2), ANCHOR, TWO, TWO, 2 * TWO),
        "lower < hold < upper",
    ),
    BadCall(
        "AnchoredController",
        ShapeError,
        lambda: AnchoredController(torch.nn.Linear(5, 2), ANCHOR, TWO, -TWO[:1]),
        "got (1,) and (2,)",
    ),
    ControllerCase(
        "FunctionController",
        FunctionController,
        lambda: FunctionController(TASK.nominal),
        unicycle_states,
        _nominal,
    ),
    ControllerCase(
        "ResidualController", ResidualController, _residual, unicycle_states, _nominal_plus_residual
    ),
    ControllerCase("SafetyFilter", SafetyFilter, _filter, unicycle_states, _filtered_nominal, atol=1e-6),
    BadCall("SafetyFilter", InfeasibleError, _impossible, "3 of 3 elements INFEASIBLE"),
]
