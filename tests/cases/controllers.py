"""Rows of the controllers."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import solve_continuous_are

from constrained_nn import HardNetAffine
from constrained_nn.certificates import ControlBarrier
from constrained_nn.control import (
    AnchoredController,
    FunctionController,
    MeanValue,
    ResidualController,
    SafetyFilter,
    SaturatedController,
    StateDependentLQR,
)
from constrained_nn.errors import InfeasibleError, ShapeError
from constrained_nn.sets import Polyhedron
from control_envs.dynamics import VanDerPol
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


def _saturated() -> SaturatedController:
    return SaturatedController(
        FunctionController(TASK.nominal), -torch.ones(2).double(), torch.ones(2).double()
    )


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


OSCILLATOR = VanDerPol(damping=0.8)
WEIGHTS = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64)), torch.eye(1, dtype=torch.float64)
TARGET, HELD = torch.tensor([0.5, 0.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)


def _sdlqr() -> StateDependentLQR:
    limits = {"lower": -3.0 * torch.ones(1), "upper": 3.0 * torch.ones(1)}
    limits = {name: value.double() for name, value in limits.items()}
    return StateDependentLQR(MeanValue(OSCILLATOR, nodes=3), *WEIGHTS, TARGET, HELD, **limits)


def _sdlqr_input(x: np.ndarray) -> np.ndarray:
    """The mean Jacobian worked out by hand: `∫ (1 − 2μ z w) ds` along the way from the target `(z, w)`."""
    s, weight = np.polynomial.legendre.leggauss(8)
    e = x - TARGET.numpy()
    z, w = (TARGET[i].item() + 0.5 * (s + 1) * e[i] for i in range(2))
    first = 0.5 * weight @ (-1 - 1.6 * z * w)
    second = 0.5 * weight @ (0.8 * (1 - z**2))
    A, B = np.array([[0.0, 1.0], [first, second]]), np.array([[0.0], [1.0]])
    P = solve_continuous_are(A, B, *(W.numpy() for W in WEIGHTS))
    return np.clip(HELD.numpy() - B.T @ P @ e, -3.0, 3.0)


def _oscillator_states(generator: torch.Generator, count: int) -> torch.Tensor:
    return TARGET + torch.randn(count, 2, generator=generator, dtype=torch.float64)


ROWS = [
    ControllerCase(
        "StateDependentLQR", StateDependentLQR, _sdlqr, _oscillator_states, _sdlqr_input, atol=1e-7
    ),
    BadCall(
        "StateDependentLQR",
        ValueError,
        lambda: StateDependentLQR(MeanValue(OSCILLATOR), *WEIGHTS, TARGET, HELD, least_margin=-1.0),
        "got -1.0",
    ),
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
        "SaturatedController",
        SaturatedController,
        lambda: SaturatedController(
            FunctionController(TASK.nominal), -2.0 * torch.ones(2), torch.tensor([0.5, 3.0])
        ),
        unicycle_states,
        lambda x: np.clip(_nominal(x), [-2.0, -2.0], [0.5, 3.0]),
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
    ControllerCase(
        "SaturatedController",
        SaturatedController,
        _saturated,
        unicycle_states,
        lambda x: np.clip(_nominal(x), -1.0, 1.0),
    ),
    ControllerCase("SafetyFilter", SafetyFilter, _filter, unicycle_states, _filtered_nominal, atol=1e-6),
    BadCall("SafetyFilter", InfeasibleError, _impossible, "3 of 3 elements INFEASIBLE"),
]
