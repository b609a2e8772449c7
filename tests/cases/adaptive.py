"""Rows of the adaptive controllers, each written out for one state in NumPy."""

from __future__ import annotations

import numpy as np
import torch

from constrained_nn.control import (
    AdaptiveController,
    CascadeGains,
    PositiveDefinite,
    SaturatedCascade,
    TanhFeatures,
)
from constrained_nn.errors import ShapeError
from control_envs.dynamics import Manipulator, PlanarRotorcraft
from control_envs.simulate import rollout
from tests.cases._rows import BadCall, ControllerCase
from tests.oracles import numpy

L = np.array([[1.5, -0.3, 0.1], [-0.3, 2.0, 0.2], [0.1, 0.2, 1.4]])
K = np.array([[2.5, 0.1, 0.0], [0.1, 3.0, -0.2], [0.0, -0.2, 1.7]])
G = np.array([[6.0, -0.5, 0.1], [-0.5, 5.0, 0.3], [0.1, 0.3, 2.5]])
REFERENCE = torch.tensor([[0.3, -0.2, 0.1], [0.5, 0.4, -0.3], [-0.7, 0.2, 0.6]], dtype=torch.float64)
FLAT = torch.tensor([[0.3, -0.2], [0.5, 0.4], [-0.7, 0.2], [0.4, -0.5], [0.3, 0.8]], dtype=torch.float64)
ARM = Manipulator(lengths=(0.6, 0.5, 0.4), masses=(1.0, 0.8, 0.5), payload=0.3)


def _features() -> TanhFeatures:
    return TanhFeatures(6, (5, 4), generator=torch.Generator().manual_seed(1))


def _gain(value: np.ndarray) -> PositiveDefinite:
    return PositiveDefinite(torch.from_numpy(value))


def _y(x: np.ndarray) -> np.ndarray:
    for layer in _features().layers:
        x = np.tanh(numpy(layer.weight) @ x + numpy(layer.bias))
    return x


def _adaptive(plant):
    def make() -> AdaptiveController:
        return AdaptiveController(plant, _features(), L=_gain(L), K=_gain(K), G=_gain(G))

    def oracle(x: np.ndarray) -> np.ndarray:
        r, dr, ddr = numpy(REFERENCE)
        q, dq = x[:3], x[3:]
        v, dv = dr - L @ (q - r), ddr - L @ (dq - dr)
        s = dq - v
        A = np.full((3, 4), 0.1)
        force = plant.H(q) @ dv + plant.C(q, dq) @ v + plant.g(q) - A @ _y(x) - K @ s
        return np.concatenate([np.linalg.solve(plant.B(q), force), (G @ np.outer(s, _y(x))).ravel()])

    return make, oracle


def _gains() -> CascadeGains:
    gains = CascadeGains()
    with torch.no_grad():
        for i, parameter in enumerate(gains.parameters()):
            parameter += 0.2 * torch.cos(torch.arange(parameter.numel()) + i).view_as(parameter)
    return gains


def _cascade() -> SaturatedCascade:
    return SaturatedCascade(_features(), _gains(), P=_gain(K[:2, :2]))


def _cascade_by_differences(x: np.ndarray) -> np.ndarray:
    """The cascade from its definition: all derivatives by central differences."""
    k, c, p = (numpy(a) for a in _gains()())
    g = 9.81

    def virtual(x, r):
        e, de = x[:2] - r[0], x[3:5] - r[1]
        v = r[2] - c[:, 0] * np.tanh(k[:, 0] * e + k[:, 1] * de) - c[:, 1] * np.tanh(k[:, 1] * de)
        thrust = np.hypot(v[0], v[1] + g)
        return thrust, np.arctan(-v[0] / (v[1] + g))

    def moved(x, r, h):
        """State and reference after a time h along the nominal motion."""

        def slope(x):
            thrust, _ = virtual(x, r)
            return np.array([*x[3:], -thrust * np.sin(x[2]), thrust * np.cos(x[2]) - g, 0.0])

        return x + h * slope(x), np.array([*(r[:-1] + h * r[1:]), r[-1]])

    def roll_rate(x, r, h=1e-5):
        return (virtual(*moved(x, r, h))[1] - virtual(*moved(x, r, -h))[1]) / (2 * h)

    def lyapunov(x, r):
        e, de = x[:2] - r[0], x[3:5] - r[1]
        cosh = np.log(np.cosh(k[:, 0] * e + k[:, 1] * de)), np.log(np.cosh(k[:, 1] * de))
        total = (c[:, 0] * cosh[0] + c[:, 1] * cosh[1] + k[:, 0] * de**2 / 2).sum()
        eta = np.array([x[2] - virtual(x, r)[1], x[5] - roll_rate(x, r)])
        Q = np.array([[p[0] * (p[0] + 1) + p[1] ** 2, p[1]], [p[1], p[0] + 1]])
        return total + eta @ Q @ eta / 2

    r, h = numpy(FLAT), 1e-4
    thrust, roll = virtual(x, r)
    second = (roll_rate(*moved(x, r, h)) - roll_rate(*moved(x, r, -h))) / (2 * h)
    turn = second - p[0] * (x[2] - roll) - p[1] * (x[5] - roll_rate(x, r))
    gradient = np.array([(lyapunov(x + h * d, r) - lyapunov(x - h * d, r)) / (2 * h) for d in np.eye(6)[3:]])
    signal = np.array([-np.sin(x[2]) * gradient[0] + np.cos(x[2]) * gradient[1], gradient[2]])
    y = _y(x)
    rate = K[:2, :2] @ np.outer(signal, y)
    return np.concatenate([np.array([thrust, turn]) - np.full((2, 4), 0.1) @ y, rate.ravel()])


def _states(generator: torch.Generator, count: int) -> torch.Tensor:
    return torch.randn(count, 6, generator=generator, dtype=torch.float64)


def _row(name: str, plant) -> ControllerCase:
    make, oracle = _adaptive(plant)
    return ControllerCase(name, AdaptiveController, make, _states, oracle, REFERENCE)


ROWS = [
    _row("AdaptiveController", PlanarRotorcraft()),
    _row("AdaptiveController-arm", ARM),
    ControllerCase(
        "SaturatedCascade", SaturatedCascade, _cascade, _states, _cascade_by_differences, FLAT, atol=2e-5
    ),
    BadCall(
        "AdaptiveController",
        ShapeError,
        lambda: rollout(ARM, _adaptive(ARM)[0](), torch.zeros(6).double(), dt=0.01, horizon=1),
        "got NoneType. Pass `rollout(..., reference=...)`",
    ),
    BadCall(
        "SaturatedCascade",
        ShapeError,
        lambda: _cascade()(0.0, torch.zeros(6).double(), FLAT[:3], torch.zeros(8).double()),
        "got (3, 2)",
    ),
]
