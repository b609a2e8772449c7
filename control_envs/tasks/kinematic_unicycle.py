"""Drive a velocity-controlled unicycle around an ellipse."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import constant, namespace, stack
from control_envs.dynamics import KinematicUnicycle, circle
from control_envs.simulate import Euler
from control_envs.tasks.base import Array, TaskConstraint
from control_envs.tasks.clearance import Clearance
from control_envs.tasks.regulation import QuadraticTask

ELLIPSE = (0.51020408, 0.90702948)  # pᵀ diag(...) p >= 1; semi-axes 1.4 m and 1.05 m


def _penetration(t: Array, x: Array, u: Array) -> Array:
    return 1.0 - ELLIPSE[0] * x[..., 0] ** 2 - ELLIPSE[1] * x[..., 1] ** 2


SPEED, TURN = 2.0, 1.5  # largest inputs [m/s], [rad/s]
FENCE = 5.0  # radius of a round fence [m]
ALPHA = 2.0  # [1/s]
HOLD = 0.05  # [s], for which inputs are held behind the clearances; the published steps are longer


def _outside(x: Array, xp: Any) -> Array:
    return ELLIPSE[0] * x[..., 0] * x[..., 0] + ELLIPSE[1] * x[..., 1] * x[..., 1] - 1.0


def _outside_curvature(x: Array, xp: Any) -> Array:
    """`e'' = v² nᵀ H n + v ω ∇e·n⊥ >= −v TURN |∇e|` along the arc.

    More than that: `|∇e|` changes on the way, and a proof by boxes needs room, which costs nothing far away.
    """
    gx, gy = 2.0 * ELLIPSE[0] * x[..., 0], 2.0 * ELLIPSE[1] * x[..., 1]
    zero = xp.zeros_like(gx)
    room = 6.0 + 0.5 * _outside(x, xp)
    return stack([zero, TURN * (1.2 * xp.sqrt(gx * gx + gy * gy) + room), zero], xp)


def _inside_fence(x: Array, xp: Any) -> Array:
    return FENCE**2 - x[..., 0] * x[..., 0] - x[..., 1] * x[..., 1]


def _fence_curvature(x: Array, xp: Any) -> Array:
    """`e'' = −2 v² − 2 v ω p·n⊥ >= −v (2 SPEED + 2 TURN |p|)`, and room for a proof by boxes."""
    zero = xp.zeros_like(x[..., 0])
    radius = xp.sqrt(x[..., 0] * x[..., 0] + x[..., 1] * x[..., 1])
    return stack([zero, 20.0 + 2.4 * TURN * radius, zero], xp)


class KinematicUnicycleTask(QuadraticTask):
    """The plant, obstacle, limits and start states of the predictive-control task of HardNet++.

    20 explicit Euler steps of 0.2 s to (3.5, 0, 0), `0 <= v <= 2` m/s, `|ω| <= 1.5` rad/s. The published cost is a
    sum over steps; the stage cost is its summand by second, with the heading error by its chord.

    Attributes:
        clearances: What inputs that are held must keep: the obstacle, and a fence of 5 m around everything.
        clearance_hold: Time for which an input is held then [s].
        clearance_box: A box of states, lower and upper ends, that contains what they leave, and a whole turn.

    References:
        HardNet++ (arXiv 2604.19669), the task with an obstacle.
    """

    name: ClassVar = "kinematic-unicycle"
    summary: ClassVar = "velocity-controlled unicycle around an elliptical obstacle"
    plant = KinematicUnicycle()
    dt = 0.2
    horizon = 20
    integrator = Euler()
    input_low, input_high = np.array([0.0, -TURN]), np.array([SPEED, TURN])
    state_low, state_high = np.array([-5.0, -5.0, -np.inf]), np.array([6.0, 5.0, np.inf])
    goal, goal_input = np.array([3.5, 0.0, 0.0]), np.zeros(2)
    state_weights, input_weights = np.full(3, 1.0 / 0.2), np.full(2, 0.1 / 0.2)
    start_low, start_high = np.array([-4.0, -2.4, -0.45]), np.array([-2.2, 2.4, 0.45])
    constraints = (TaskConstraint("obstacle", "1", _penetration),)
    clearance_hold = HOLD
    clearance_box = (np.array([-5.05, -5.05, -3.15]), np.array([5.05, 5.05, 3.15]))
    clearances = (
        Clearance("obstacle", "1", _outside, _outside_curvature, (ALPHA,)),
        Clearance("fence", "m²", _inside_fence, _fence_curvature, (ALPHA,)),
    )
    view = ((-4.5, 4.5), (-3.0, 3.0))

    def nominal(self, t: Array, x: Array) -> Array:
        """Proportional heading and speed controller to the goal, blind to the obstacle."""
        xp = namespace(x)
        dx, dy = self.goal[0] - x[..., 0], self.goal[1] - x[..., 1]
        turn = xp.arctan2(dy, dx) - x[..., 2]
        turn = xp.arctan2(xp.sin(turn), xp.cos(turn))
        u = stack([xp.sqrt(dx * dx + dy * dy) * xp.cos(turn), 2.0 * turn], xp)
        low, high = constant(self.input_low, x, xp), constant(self.input_high, x, xp)
        return xp.minimum(xp.maximum(u, low), high)

    def brake(self, t: Array, x: Array) -> Array:
        """Stand still: this vehicle stops at once."""
        return namespace(x).zeros_like(x[..., :2])

    def scenery(self):
        return [circle((0.0, 0.0), (ELLIPSE[0] ** -0.5, ELLIPSE[1] ** -0.5))]
