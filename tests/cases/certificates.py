"""Rows of the certificate functions."""

from __future__ import annotations

import numpy as np
import torch

from constrained_nn.certificates import (
    BiLipschitzLyapunov,
    ControlBarrier,
    NeuralLyapunov,
    QuadraticLyapunov,
    SampledBarrier,
)
from constrained_nn.errors import ShapeError
from control_envs.dynamics import LinearSystem
from control_envs.tasks import DoubleIntegratorTask, KinematicUnicycleTask, UnicycleObstacles
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


LINE, ROUND = DoubleIntegratorTask(), KinematicUnicycleTask()


def sampled(task, **options) -> SampledBarrier:
    """The barrier of a task's clearances; wide limits, so that its rows alone decide."""
    low, high = (torch.full((task.plant.input_dim,), s * 1e3, dtype=torch.float64) for s in (-1, 1))
    return SampledBarrier(task.clearances, task.plant, hold=task.dt, low=low, high=high, **options)


class _Hasty:
    """The double integrator, sampled too rarely."""

    clearances, plant, dt = LINE.clearances, LINE.plant, 0.5


def on_the_line(x: np.ndarray) -> np.ndarray:
    p, v = x
    return np.array([1.2 * (0.1 - p) - v, 1.2 * (p + 3.0) + v, 0.7 - v, 0.7 + v])


def line_states(generator: torch.Generator, count: int) -> torch.Tensor:
    """States of the safe set: outside of it the rows are those of `h = 0` or have no input."""
    draw = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return torch.tensor([-2.4, -0.6]) + torch.tensor([1.9, 1.2]) * draw


class _PlainBarrier:
    """The same barrier without its shortcut, so that the general formula runs."""

    value, gradient = staticmethod(TASK.barrier.value), staticmethod(TASK.barrier.gradient)


# A Lyapunov function's condition is on the velocity: that of a plant whose input is its velocity.
VELOCITY = LinearSystem(np.zeros((3, 3)), np.eye(3))
ORIGIN = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
P = torch.tensor([[2.0, 0.3, 0.0], [0.3, 1.0, 0.2], [0.0, 0.2, 3.0]], dtype=torch.float64)


def seeded(build):
    """A module of float64 with parameters of a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().double()


def neural() -> NeuralLyapunov:
    return seeded(lambda: NeuralLyapunov(3, rate=0.5, hidden=(7, 5), origin=ORIGIN, angles=(1,)))


def bi_lipschitz() -> BiLipschitzLyapunov:
    return seeded(lambda: BiLipschitzLyapunov(3, rate=0.5, blocks=2, hidden=6, origin=ORIGIN))


def embedded(x: np.ndarray) -> np.ndarray:
    e = x - ORIGIN.numpy()
    return np.array([e[0], np.sin(e[1]), e[2], 1.0 - np.cos(e[1])])


def convex_network(z: np.ndarray) -> float:
    """The network of `neural()` as its equations read."""
    w = {name: p.detach().numpy() for name, p in neural().named_parameters()}
    soft = lambda a: np.log(1.0 + np.exp(a))  # noqa: E731
    h = soft(w["direct.0.weight"] @ z + w["direct.0.bias"])
    h = soft(soft(w["through.0"]) @ h / 7 + w["direct.1.weight"] @ z + w["direct.1.bias"])
    return float(soft(w["last"]) @ h / 5)


def neural_value(x: np.ndarray) -> np.ndarray:
    z, step = embedded(x), 1e-5 * np.eye(4)
    slope = np.array([(convex_network(s) - convex_network(-s)) / 2e-5 for s in step])
    return np.array(convex_network(z) - convex_network(0 * z) - slope @ z + 1e-3 * z @ z)


def bi_lipschitz_value(x: np.ndarray) -> np.ndarray:
    w = {name: p.detach().numpy() for name, p in bi_lipschitz().named_parameters()}

    def phi(z):
        for k in range(2):
            first, bias, second = w[f"inner.{k}.weight"], w[f"inner.{k}.bias"], w[f"outer.{k}.weight"]
            bound = max(1.0, np.linalg.norm(first) * np.linalg.norm(second))
            z = z + 0.8 / bound * second @ np.tanh(first @ z + bias)
        return z

    return np.array(np.sum((phi(x - ORIGIN.numpy()) - phi(np.zeros(3))) ** 2))


def quadratic_value(x: np.ndarray) -> np.ndarray:
    e = x - ORIGIN.numpy()
    return np.array(e @ P.numpy() @ e)


def states(generator: torch.Generator, count: int) -> torch.Tensor:
    return 2.0 * torch.randn(count, 3, generator=generator, dtype=torch.float64)


def decreasing(value: np.ndarray, rate: np.ndarray) -> np.ndarray:
    return -(rate + 0.5 * value)


ROWS = [
    CertificateCase(
        "QuadraticLyapunov",
        QuadraticLyapunov,
        lambda: QuadraticLyapunov(P, rate=0.5, origin=ORIGIN),
        VELOCITY,
        states,
        quadratic_value,
        decreasing,
    ),
    CertificateCase("NeuralLyapunov", NeuralLyapunov, neural, VELOCITY, states, neural_value, decreasing),
    CertificateCase(
        "BiLipschitzLyapunov",
        BiLipschitzLyapunov,
        bi_lipschitz,
        VELOCITY,
        states,
        bi_lipschitz_value,
        decreasing,
    ),
    BadCall("QuadraticLyapunov", ValueError, lambda: QuadraticLyapunov(-P, rate=0.5), "got -3.02"),
    BadCall("NeuralLyapunov", ValueError, lambda: NeuralLyapunov(2, rate=0.5, hidden=()), "got ()"),
    BadCall("LyapunovFunction", ValueError, lambda: NeuralLyapunov(2, rate=-0.5), "got -0.5"),
    BadCall(
        "LyapunovFunction",
        ShapeError,
        lambda: NeuralLyapunov(2, rate=0.5, origin=torch.zeros(3)),
        "got (3,)",
    ),
    BadCall(
        "BiLipschitzLyapunov",
        ValueError,
        lambda: BiLipschitzLyapunov(2, rate=0.5, contraction=1.5),
        "got 1.5",
    ),
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
    CertificateCase(
        "SampledBarrier",
        SampledBarrier,
        lambda: sampled(LINE),
        LINE.plant,
        line_states,
        on_the_line,
        lambda h, h_dot: h_dot + 5.0 * h - 0.025 * 1.01 * 1.2 * np.array([1.0, 1.0, 0.0, 0.0]),
    ),
    BadCall("SampledBarrier", ValueError, lambda: sampled(_Hasty()), "rate 5.0"),
]
