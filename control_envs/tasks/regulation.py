"""Tasks that bring a plant to a point: quadratic cost, uniform starts, linear-quadratic nominal controller."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

from control_envs.arrays import constant, namespace
from control_envs.errors import NotStabilizableError
from control_envs.simulate import RK4, Integrator
from control_envs.tasks.base import Array, Task, TaskConstraint, embed


class QuadraticTask(Task):
    """Drive the state to `goal` at quadratic cost; angles count by their chord, so that 2π is no error.

    `stage_cost = Σ q_i e_i² + Σ r_j (u_j − v_j)²`, `e_i = x_i − goal_i` or `2 sin((x_i − goal_i)/2)`.

    Attributes:
        goal, goal_input: Target state and the input `v` that holds it there.
        state_weights, input_weights: `q` and `r`.
        start_low, start_high: Box of the start states, uniform.
    """

    integrator: Integrator = RK4()
    constraints: tuple[TaskConstraint, ...] = ()
    goal: np.ndarray
    goal_input: np.ndarray
    state_weights: np.ndarray
    input_weights: np.ndarray
    start_low: np.ndarray
    start_high: np.ndarray

    def sample_starts(self, rng: np.random.Generator, count: int) -> np.ndarray:
        draws = rng.random((count, self.plant.state_dim))
        return self.start_low + (self.start_high - self.start_low) * draws

    def stage_cost(self, t: Array, x: Array, u: Array) -> Array:
        xp = namespace(x)
        e = x - constant(self.goal, x, xp)
        angles = [q.angle for q in self.plant.state]
        if any(angles):
            e = xp.where(constant(angles, x, xp) > 0, 2.0 * xp.sin(0.5 * e), e)
        v = u - constant(self.goal_input, x, xp)
        cost = (e * e * constant(self.state_weights, x, xp)).sum(-1)
        return cost + (v * v * constant(self.input_weights, x, xp)).sum(-1)

    def features(self, t: Array, x: Array) -> Array:
        """States in their order, each angle as its cosine and sine."""
        return embed(self.plant, x)


class RegulationTask(QuadraticTask):
    """A `QuadraticTask` whose nominal controller is the saturated linear-quadratic regulator at the goal."""

    name: ClassVar[str]

    def nominal(self, t: Array, x: Array) -> Array:
        """`clip(goal_input − K e, input_low, input_high)` with angle errors in (−π, π]."""
        xp = namespace(x)
        e = x - constant(self.goal, x, xp)
        angles = [q.angle for q in self.plant.state]
        if any(angles):
            e = xp.where(constant(angles, x, xp) > 0, xp.arctan2(xp.sin(e), xp.cos(e)), e)
        u = constant(self.goal_input, x, xp) - e @ constant(self.gain.T, x, xp)
        low, high = constant(self.input_low, x, xp), constant(self.input_high, x, xp)
        return xp.minimum(xp.maximum(u, low), high)

    @cached_property
    def gain(self) -> np.ndarray:
        """Linear-quadratic gain `K` `(m, n)` of the linearization at the goal.

        Raises:
            NotStabilizableError: The Riccati equation has no stabilizing solution, or one that rounding does not tell
                from none.
        """
        from scipy.linalg import LinAlgError, solve_continuous_are

        A, B = self.plant.linearize(self.goal, self.goal_input)
        try:
            P = solve_continuous_are(A, B, np.diag(self.state_weights), np.diag(self.input_weights))
        except (LinAlgError, ValueError) as error:
            raise self._no_gain(str(error)) from None
        K = (B.T @ P) / self.input_weights[:, None]
        closed = A - B @ K
        slowest = np.linalg.eigvals(closed).real.max()
        # an eigenvalue on the boundary is double in the equation and moves by the square root of the rounding
        if not slowest < -1e-7 * np.linalg.norm(closed):
            raise self._no_gain(f"the closed loop has an eigenvalue of real part {slowest:.3g} 1/s")
        return K

    def _no_gain(self, reason: str) -> NotStabilizableError:
        return NotStabilizableError(
            f"{type(self).__name__}.gain: expected a linearization that state feedback stabilizes at this cost, got "
            f"none ({reason}). Weight every state that does not come to rest by itself, or add inputs."
        )
