"""Plans of a unicycle around an ellipse: the program of HardNet++, its start states, and a solver for reference."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from control_envs.tasks import ELLIPSE, KinematicUnicycleTask

if TYPE_CHECKING:
    from torch import Tensor

    from constrained_nn.sets import NonlinearSet, StageJacobian, TrajectoryMap

_TASK = KinematicUnicycleTask()
_TERMINAL = np.array([10.0, 10.0, 1.0])
_INPUT_WEIGHT = 0.1


def draw_starts(seed: int, count: int, margin: float = 0.2) -> np.ndarray:
    """Start states `(count, 3)` of the published box, farther from the ellipse than `margin`, as published."""
    rng = np.random.default_rng(seed)
    kept = []
    while len(kept) < count:
        x = np.array([rng.uniform(a, b) for a, b in zip(_TASK.start_low, _TASK.start_high, strict=True)])
        if ELLIPSE[0] * x[0] ** 2 + ELLIPSE[1] * x[1] ** 2 - 1.0 > margin:
            kept.append(x)
    return np.stack(kept)


@dataclass(frozen=True)
class Plan:
    """A solution of the program.

    Args:
        states: `(T, 3)`, after the start state.
        inputs: `(T, 2)`.
        cost: Value of the objective.
        violation: Largest violated constraint.
    """

    states: np.ndarray
    inputs: np.ndarray
    cost: float
    violation: float


class PlanSolver:
    """The program in its inputs only, for SLSQP with exact derivatives; states follow by explicit Euler steps.

    `min Σ |e_k|² + e_Tᵀ diag(10, 10, 1) e_T + 0.1 Σ |u_k|²` over `k = 1 … T`, `e` the error to (3.5, 0, 0).
    """

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.weights = np.ones((horizon, 3))
        self.weights[-1] += _TERMINAL
        # before[k, i]: whether input i acts before state k + 1; later[k, j]: whether turn j bends the way to it
        self._before = np.tri(horizon)
        self._later = np.tri(horizon, k=-1)

    def simulate(self, x0: np.ndarray, u: np.ndarray) -> np.ndarray:
        """States `(T + 1, 3)`."""
        dt = _TASK.dt
        theta = x0[2] + dt * np.concatenate([[0.0], np.cumsum(u[:, 1])])
        steps = dt * u[:, :1] * np.stack([np.cos(theta[:-1]), np.sin(theta[:-1])], -1)
        way = x0[:2] + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
        return np.concatenate([way, theta[:, None]], 1)

    def evaluate(self, x0: np.ndarray, u: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Objective and gradient `(2T,)` (speeds, then turns), obstacle margins `(T,)` and their Jacobian."""
        dt, x = _TASK.dt, self.simulate(x0, u)
        e = x[1:] - _TASK.goal
        e[:, 2] = np.arctan2(np.sin(e[:, 2]), np.cos(e[:, 2]))
        cost = float((self.weights * e**2).sum() + _INPUT_WEIGHT * (u**2).sum())
        # along the way, d(px, py)_k/dv_i = dt (cos, sin)θ_i and d(px, py)_k/dω_j = dt (p_{j+1}, p_k rotated)
        px, py, theta = x.T
        to_v = dt * self._before, np.cos(theta[:-1]), np.sin(theta[:-1])
        px_v, py_v = to_v[0] * to_v[1], to_v[0] * to_v[2]
        px_w = -dt * self._later * (py[1:, None] - py[None, 1:])
        py_w = dt * self._later * (px[1:, None] - px[None, 1:])
        slope = 2.0 * self.weights * e
        to_speed = slope[:, 0] @ px_v + slope[:, 1] @ py_v
        to_turn = slope[:, 0] @ px_w + slope[:, 1] @ py_w + dt * slope[:, 2] @ self._before
        gradient = np.concatenate([to_speed, to_turn]) + 2.0 * _INPUT_WEIGHT * u.T.ravel()
        margin = ELLIPSE[0] * px[1:] ** 2 + ELLIPSE[1] * py[1:] ** 2 - 1.0
        a, b = 2.0 * ELLIPSE[0] * px[1:, None], 2.0 * ELLIPSE[1] * py[1:, None]
        jacobian = np.concatenate([a * px_v + b * py_v, a * px_w + b * py_w], 1)
        return cost, gradient, margin, jacobian

    def solve(
        self, x0: np.ndarray, guesses: Sequence[np.ndarray], steps: int = 180, tol: float = 1e-5
    ) -> Plan:
        """The best feasible local optimum of those that SLSQP finds from the guesses `(T, 2)`."""
        from scipy.optimize import minimize

        low, high = (np.repeat(b, self.horizon) for b in (_TASK.input_low, _TASK.input_high))
        best: Plan | None = None
        for guess in guesses:
            memory: dict[bytes, tuple] = {}

            def at(z: np.ndarray, memory: dict[bytes, tuple] = memory) -> tuple:
                key = z.tobytes()
                if key not in memory:
                    memory.clear()
                    memory[key] = self.evaluate(x0, z.reshape(2, -1).T)
                return memory[key]

            found = minimize(
                lambda z: at(z)[:2],
                guess.T.ravel(),
                jac=True,
                method="SLSQP",
                bounds=np.stack([low, high], 1),
                constraints={"type": "ineq", "fun": lambda z: at(z)[2], "jac": lambda z: at(z)[3]},
                options={"maxiter": steps, "ftol": tol},
            )
            u = np.clip(found.x, low, high).reshape(2, -1).T
            cost, _, margin, _ = self.evaluate(x0, u)
            plan = Plan(self.simulate(x0, u)[1:], u, cost, max(0.0, -float(margin.min())))
            if best is None or _rank(plan) < _rank(best):
                best = plan
        assert best is not None
        return best

    def guesses(self, x0: np.ndarray) -> list[np.ndarray]:
        """Ten arcs of constant input, and the way of a proportional controller that is blind to the ellipse."""
        arcs = itertools.product((1.0, 2.0), (-0.8, -0.4, 0.0, 0.4, 0.8))
        ways = [np.tile(arc, (self.horizon, 1)) for arc in arcs]
        x, blind = x0, []
        for _ in range(self.horizon):
            blind.append(_TASK.nominal(0.0, x))
            x = x + _TASK.dt * _TASK.plant.derivative(0.0, x, blind[-1])
        return [*ways, np.stack(blind)]


def _rank(plan: Plan) -> tuple[bool, float]:
    return plan.violation > 1e-8, plan.cost


def _step(x: Any, u: Any, p: Any) -> Tensor:
    """One explicit Euler step."""
    return x + _TASK.dt * _TASK.plant.derivative(0.0, x, u)


def _path(x: Any, u: Any, p: Any) -> Tensor:
    """`pᵀ Q p` of the position, speed, turn rate."""
    import torch

    square = ELLIPSE[0] * x[..., 0] ** 2 + ELLIPSE[1] * x[..., 1] ** 2
    return torch.stack([square, u[..., 0], u[..., 1]], -1)


def _derivative(x: Any, u: Any, z: Any, p: Any) -> StageJacobian:
    """Derivatives of `_step` and `_path`."""
    import torch

    from constrained_nn.sets import StageJacobian

    dt, v = _TASK.dt, u[..., 0]
    cos, sin = torch.cos(x[..., 2]), torch.sin(x[..., 2])
    zero, one = torch.zeros_like(v), torch.ones_like(v)
    step_x = [[one, zero, -dt * v * sin], [zero, one, dt * v * cos], [zero, zero, one]]
    step_u = [[dt * cos, zero], [dt * sin, zero], [zero, dt * one]]
    path_z = [[2.0 * ELLIPSE[0] * z[..., 0], 2.0 * ELLIPSE[1] * z[..., 1], zero], [zero] * 3, [zero] * 3]
    path_u = [[zero, zero], [one, zero], [zero, one]]
    blocks = (step_x, step_u, path_z, path_u)
    return StageJacobian(*(torch.stack([torch.stack(row, -1) for row in rows], -2) for rows in blocks))


@cache
def plan_map(horizon: int) -> TrajectoryMap:
    """The rows of a plan: dynamics, keep-out ellipse, speed and turn rate, stage by stage."""
    from constrained_nn.sets import TrajectoryMap

    return TrajectoryMap(
        _step, _path, state_dim=3, input_dim=2, path_dim=3, horizon=horizon, derivative=_derivative
    )


def plan_set(x0: Tensor, horizon: int) -> NonlinearSet:
    """Feasible plans `y = (states, inputs)` from start states `(*batch, 3)`."""
    import torch

    from constrained_nn.sets import NonlinearSet

    low, high = (x0.new_tensor(b) for b in (_TASK.input_low, _TASK.input_high))
    free = x0.new_full((1,), torch.inf)
    rows = plan_map(horizon)
    return NonlinearSet(rows, *rows.bounds(torch.cat([x0.new_ones(1), low]), torch.cat([free, high])), x0)


def plan_cost(y: Tensor, horizon: int) -> Tensor:
    """The objective `(*batch)` of a plan."""
    import torch

    states, inputs = plan_map(horizon).split(y)
    e = states - states.new_tensor(_TASK.goal)
    heading = torch.atan2(torch.sin(e[..., 2]), torch.cos(e[..., 2]))
    e = torch.cat([e[..., :2], heading.unsqueeze(-1)], -1).square()
    terminal = (e[..., -1, :] * e.new_tensor(_TERMINAL)).sum(-1)
    return e.sum((-2, -1)) + terminal + _INPUT_WEIGHT * inputs.square().sum((-2, -1))


def roll_out(x0: Tensor, inputs: Tensor) -> Tensor:
    """States `(*batch, T, 3)` after the start state, under inputs `(*batch, T, 2)`."""
    import torch

    dt = _TASK.dt
    turned = x0[..., 2:] + dt * inputs[..., 1].cumsum(-1)
    before = torch.cat([x0[..., 2:], turned[..., :-1]], -1)
    way = dt * inputs[..., :1] * torch.stack([before.cos(), before.sin()], -1)
    return torch.cat([x0[..., None, :2] + way.cumsum(-2), turned.unsqueeze(-1)], -1)


def mirrored_state(x: Tensor) -> Tensor:
    """The state seen in the mirror `py = 0`, which leaves the program as it is."""
    return x * x.new_tensor([1.0, -1.0, -1.0])


def mirrored_plan(y: Tensor, horizon: int) -> Tensor:
    """The plan seen in the mirror `py = 0`."""
    rows = plan_map(horizon)
    states, inputs = rows.split(y)
    return rows.join(mirrored_state(states), inputs * inputs.new_tensor([1.0, -1.0]))


def violations(y: Tensor, x0: Tensor, horizon: int) -> dict[str, Tensor]:
    """Violations of the dynamics `(*batch, T, 3)`, of the obstacle `(*batch, T)` and of the limits `(*batch, T, 2)`."""
    residual = plan_set(x0, horizon).residual(y).abs().unflatten(-1, (horizon, 6))
    return {"dynamics": residual[..., :3], "obstacle": residual[..., 3], "limits": residual[..., 4:]}
