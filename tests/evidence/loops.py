"""Closed loops with Lyapunov functions that are quick to prove."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import solve_discrete_are
from torch import nn

from constrained_nn.control import AnchoredController
from constrained_nn.evidence import ClosedLoop, quadratic_value, trace_derivative, trace_module, trace_step
from control_envs.simulate import RK4
from control_envs.tasks import DoubleIntegratorTask, PendulumTask, Task


def gain(task: Task, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """LQR of one step of the task: `P` and `K`."""
    A, B = (np.asarray(M) for M in task.plant.linearize(at, np.zeros(1)))
    A, B = np.eye(2) + task.dt * A + 0.5 * task.dt**2 * A @ A, task.dt * (np.eye(2) + 0.5 * task.dt * A) @ B
    P = solve_discrete_are(A, B, np.eye(2), np.eye(1))
    return P, np.linalg.solve(np.eye(1) + B.T @ P @ B, B.T @ P @ A)


def linear_policy(K: np.ndarray, origin: np.ndarray, limit: float) -> AnchoredController:
    backbone = nn.Linear(2, 1, bias=False).double()
    backbone.weight.data = torch.from_numpy(-K)
    one = torch.ones(1).double()
    return AnchoredController(backbone, torch.from_numpy(origin), 0 * one, -limit * one, limit * one)


def around(P: np.ndarray, level: float) -> np.ndarray:
    """Half-widths of a box a little larger than `{x' P x <= level}`."""
    return 1.05 * np.sqrt(level * np.diag(np.linalg.inv(P)))


def pendulum(motion: str = "step") -> tuple[Task, ClosedLoop, float]:
    """The pendulum around its upper rest under a saturated LQR."""
    task, top = PendulumTask(), np.array([np.pi, 0.0])
    P, K = gain(task, top)
    plant = trace_step(task.plant, RK4(), task.dt) if motion == "step" else trace_derivative(task.plant)
    P, level = P / np.trace(P), 0.002 if motion == "held" else 0.006
    width = around(P, level)
    value = quadratic_value(P, top)
    policy = trace_module(linear_policy(K, top, 8.0), 2)
    return task, ClosedLoop(plant, policy, value, top - width, top + width, top, motion, task.dt), level


def clipped_mass() -> tuple[Task, ClosedLoop, float]:
    """The double integrator under an LQR that is clipped, which has a kink."""
    task, origin = DoubleIntegratorTask(), np.zeros(2)
    P, K = gain(task, origin)
    backbone = nn.Linear(2, 1, bias=False).double()
    backbone.weight.data = torch.from_numpy(-K)
    policy = trace_module(nn.Sequential(backbone, nn.Hardtanh(-0.5, 0.5)), 2)
    plant = trace_step(task.plant, RK4(), task.dt)
    width = around(P, 0.5)
    return task, ClosedLoop(plant, policy, quadratic_value(P, origin), -width, width, origin), 0.5
