"""The safety-critical unicycle: drive to the origin around two elliptical obstacles."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from control_envs._array import constant, namespace
from control_envs.dynamics import Unicycle
from control_envs.simulate import Euler, InputLimitedSubsteps
from control_envs.tasks._base import Array, Task, TaskConstraint

STATE_COST = np.array([100.0, 100.0, 0.0, 0.1, 0.1])
INPUT_COST = 0.1


@dataclass(frozen=True)
class EllipseBarrier:
    """Barrier of relative degree 2 for elliptical obstacles seen from a look-ahead point.

    `h_j = e_j' + kappa e_j` with `e_j = |(c − o_j)/r_j|² − 1` at `c = p + l (cos θ, sin θ)`; `h >= 0` is safe.

    Args:
        centers: Centers of the ellipses `(k, 2)` [m].
        radii: Semi-axes `(k, 2)` [m].
        look_ahead: Distance `l` [m].
        kappa: Rate of the first-order decay [1/s].
    """

    centers: np.ndarray
    radii: np.ndarray
    look_ahead: float = 0.1
    kappa: float = 10.0

    def clearance(self, x: Array, *, xp: Any = None) -> Array:
        """`e` `(*batch, k)`, without unit: 0 on an ellipse, negative inside."""
        xp = xp or namespace(x)
        theta = x[..., 2]
        dx, dy = self._offsets(x, xp.cos(theta), xp.sin(theta), xp)
        ix, iy = self._inverse_squares(x, xp)
        return dx * dx * ix + dy * dy * iy - 1.0

    def value(self, x: Array, *, xp: Any = None) -> Array:
        """`h` `(*batch, k)` [1/s]."""
        return self.value_and_gradient(x, xp=xp)[0]

    def gradient(self, x: Array, *, xp: Any = None) -> Array:
        """`∂h/∂x` `(*batch, k, 5)`."""
        return self.value_and_gradient(x, xp=xp)[1]

    def value_and_gradient(self, x: Array, *, xp: Any = None) -> tuple[Array, Array]:
        """`h` and `∂h/∂x`, which share most of their terms."""
        xp = xp or namespace(x)
        terms = self._terms(x, xp)
        _, v, omega, c, s, gx, gy, vx, vy, ix, iy, e = terms
        rate = gx * vx + gy * vy  # e'
        tx, ty = -self.look_ahead * s, self.look_ahead * c  # ∂c/∂θ
        nx, ny = -v * s - omega * ty, v * c + omega * tx  # ∂c'/∂θ, which is (−v sin θ − l ω cos θ, ...)
        px, py = self.kappa * gx + 2.0 * vx * ix, self.kappa * gy + 2.0 * vy * iy
        gradient = xp.stack(
            [px, py, px * tx + py * ty + gx * nx + gy * ny, gx * c + gy * s, gx * tx + gy * ty], -1
        )
        return rate + self.kappa * e, gradient

    def lie_derivatives(self, x: Array, *, xp: Any = None) -> tuple[Array, Array, Array]:
        """`h`, `∇h·drift` and `∇h·actuation` of the unicycle: `(*batch, k)`, `(*batch, k)`, `(*batch, k, 2)`.

        The same numbers as from `gradient` and the plant, in a third of the operations.
        """
        xp = xp or namespace(x)
        _, v, omega, c, s, gx, gy, vx, vy, ix, iy, e = self._terms(x, xp)
        lc, ls = self.look_ahead * c, self.look_ahead * s
        rate = gx * vx + gy * vy
        ax, ay = -omega * (v * s + omega * lc), omega * (v * c - omega * ls)  # c'' without input
        drift = self.kappa * rate + 2.0 * (vx * vx * ix + vy * vy * iy) + gx * ax + gy * ay
        actuation = xp.stack([gx * c + gy * s, gy * lc - gx * ls], -1)
        return rate + self.kappa * e, drift, actuation

    def _terms(self, x: Array, xp: Any) -> tuple[Array, ...]:
        theta, v, omega = x[..., 2], x[..., 3], x[..., 4]
        c, s = xp.cos(theta), xp.sin(theta)
        dx, dy = self._offsets(x, c, s, xp)
        ix, iy = self._inverse_squares(x, xp)
        ex, ey = dx * ix, dy * iy
        e = dx * ex + dy * ey - 1.0
        turn = self.look_ahead * omega
        vx, vy = (v * c - turn * s)[..., None], (v * s + turn * c)[..., None]
        v, omega, c, s = v[..., None], omega[..., None], c[..., None], s[..., None]
        return theta, v, omega, c, s, 2.0 * ex, 2.0 * ey, vx, vy, ix, iy, e

    def _offsets(self, x: Array, c: Array, s: Array, xp: Any) -> tuple[Array, Array]:
        centers = constant(self.centers, x, xp)
        px, py = x[..., 0] + self.look_ahead * c, x[..., 1] + self.look_ahead * s
        return px[..., None] - centers[:, 0], py[..., None] - centers[:, 1]

    def _inverse_squares(self, x: Array, xp: Any) -> tuple[Array, Array]:
        inverse = constant(self.radii**-2.0, x, xp)
        return inverse[:, 0], inverse[:, 1]


def _published_barrier() -> EllipseBarrier:
    return EllipseBarrier(np.array([[-2.25, 0.5], [-0.8, 0.0]]), np.array([[0.5, 0.75], [0.5, 0.5]]))


@dataclass(frozen=True, eq=False)
class UnicycleObstacles(Task):
    """Drive a unicycle to the origin around two elliptical obstacles.

    Constants of the safety-critical control task of HardNet: 50 explicit Euler steps of 0.02 s with sub-steps
    where an input exceeds 100, cost `∫ xᵀ diag(100, 100, 0, 0.1, 0.1) x + 0.1 |u|² dt`.

    Args:
        barrier: Obstacles and barrier function.
        alpha: Decay rate of the barrier condition `h' + alpha h >= 0` [1/s].

    References:
        HardNet (arXiv 2410.10807), section 5.4 and its appendix.
    """

    barrier: EllipseBarrier = field(default_factory=_published_barrier)
    alpha: float = 20.0

    name: ClassVar[str] = "unicycle-obstacles"
    summary: ClassVar[str] = "acceleration-controlled unicycle, two elliptical obstacles, goal at the origin"
    plant: ClassVar[Unicycle] = Unicycle()  # pyright: ignore[reportIncompatibleVariableOverride]
    dt: ClassVar[float] = 0.02  # pyright: ignore[reportIncompatibleVariableOverride]
    horizon: ClassVar[int] = 50  # pyright: ignore[reportIncompatibleVariableOverride]
    integrator: ClassVar[Euler] = Euler()  # pyright: ignore[reportIncompatibleVariableOverride]
    substeps: ClassVar[InputLimitedSubsteps] = InputLimitedSubsteps(limit=100.0)  # pyright: ignore
    input_low: ClassVar[np.ndarray] = np.array([-100.0, -100.0])  # pyright: ignore
    input_high: ClassVar[np.ndarray] = np.array([100.0, 100.0])  # pyright: ignore
    state_low: ClassVar[np.ndarray] = np.array([-6.0, -4.0, -4 * np.pi, -15.0, -30.0])  # pyright: ignore
    state_high: ClassVar[np.ndarray] = np.array([3.0, 4.0, 4 * np.pi, 15.0, 30.0])  # pyright: ignore

    START_LOW: ClassVar[np.ndarray] = np.array([-4.0, 0.0, -np.pi / 4, 0.0, 0.0])
    START_HIGH: ClassVar[np.ndarray] = np.array([-3.5, 0.5, -np.pi / 8, 0.0, 0.0])

    @property
    def constraints(self) -> tuple[TaskConstraint, ...]:  # pyright: ignore
        """Each obstacle as `−e_j <= 0`, without unit."""
        return tuple(
            TaskConstraint(f"obstacle-{j + 1}", "1", partial(self._penetration, j))
            for j in range(len(self.barrier.centers))
        )

    def _penetration(self, j: int, t: Array, x: Array, u: Array) -> Array:
        return -self.barrier.clearance(x)[..., j]

    def sample_starts(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Uniform in the published box, redrawn where `h < 0`."""
        starts = np.empty((count, 5))
        for i in range(count):
            while True:
                starts[i] = rng.uniform(self.START_LOW, self.START_HIGH)
                if (self.barrier.value(starts[i]) >= 0).all():
                    break
        return starts

    def published_starts(self) -> dict[str, np.ndarray]:
        """The 1,000 start states of the paper, regenerated from seed 17: 833 train, 83 validation, 84 test.

        The authors drew five legacy NumPy uniforms a state and mapped them from the upper end of the box.
        """
        r = np.random.RandomState(17).rand(1000, 5)
        starts = self.START_HIGH - (self.START_HIGH - self.START_LOW) * r
        return {"train": starts[:833], "validation": starts[833:916], "test": starts[916:]}

    def stage_cost(self, t: Array, x: Array, u: Array) -> Array:
        xp = namespace(x)
        return (x * x * constant(STATE_COST, x, xp)).sum(-1) + INPUT_COST * (u * u).sum(-1)

    def features(self, t: Array, x: Array) -> Array:
        """`(px, py, cos θ, sin θ, v, ω)`."""
        xp = namespace(x)
        theta = x[..., 2]
        return xp.stack([x[..., 0], x[..., 1], xp.cos(theta), xp.sin(theta), x[..., 3], x[..., 4]], -1)

    def nominal(self, t: Array, x: Array) -> Array:
        """Proportional heading and speed controller to the origin, blind to the obstacles."""
        xp = namespace(x)
        px, py, theta, v, omega = (x[..., i] for i in range(5))
        c, s = xp.cos(theta), xp.sin(theta)
        distance = xp.sqrt(px * px + py * py)
        omega_goal = 10.0 * (px * s - py * c) / (distance + 1e-5)
        v_goal = xp.clip(-10.0 * distance * (px * c + py * s), -5.0, 5.0)
        return xp.stack([5.0 * (v_goal - v), 5.0 * (omega_goal - omega)], -1)
