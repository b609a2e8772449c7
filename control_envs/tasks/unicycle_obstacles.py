"""The safety-critical unicycle: drive to the origin around two elliptical obstacles."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from control_envs.arrays import constant, namespace
from control_envs.dynamics import Unicycle, circle
from control_envs.simulate import Euler, InputLimitedSubsteps
from control_envs.tasks.base import Array, Task, TaskConstraint

COST = np.array([100.0, 100.0, 0.0, 0.1, 0.1, 0.1, 0.1])  # weights of (x, u) squared, per second


@dataclass(frozen=True)
class EllipseBarrier:
    """Barrier of relative degree 2 for elliptical obstacles seen from a look-ahead point.

    `h_j = e_j' + kappa e_j`, `e_j = |(c − o_j)/r_j|² − 1` at `c = p + l (cos θ, sin θ)`; `h >= 0` is safe.

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
        frame = self._frame(x, xp)
        return xp.moveaxis(0.5 * frame.twice_distance - 1.0, 0, -1)

    def value(self, x: Array, *, xp: Any = None) -> Array:
        """`h` `(*batch, k)` [1/s]."""
        xp = xp or namespace(x)
        return xp.moveaxis(self._value(self._frame(x, xp)), 0, -1)

    def gradient(self, x: Array, *, xp: Any = None) -> Array:
        """`∂h/∂x` `(*batch, k, 5)`."""
        xp = xp or namespace(x)
        f = self._frame(x, xp)
        by_px = f.vx * f.ix + self.kappa * f.gx
        by_py = f.vy * f.iy + self.kappa * f.gy
        turn = self.look_ahead * f.omega
        by_theta = self.look_ahead * (by_py * f.c - by_px * f.s)  # through c
        by_theta = by_theta + f.v * (f.gy * f.c - f.gx * f.s) - turn * f.by_v  # through c'
        return xp.moveaxis(xp.stack([by_px, by_py, by_theta, f.by_v, f.by_omega], -1), 0, -2)

    def safe_rows(self, x: Array, rate: float, *, xp: Any = None) -> tuple[Array, Array]:
        """Rows `A u <= upper` of `∇h·(drift + actuation u) + rate h >= 0`: `(*batch, k, 2)`, `(*batch, k)`.

        The same numbers as from `gradient` and the plant, in fewer operations: with the input zero
        `c'' = −l ω² d + v ω n`, so `∇h·drift + rate h = e'' + (kappa + rate) e' + rate kappa e`.
        """
        xp = xp or namespace(x)
        f = self._frame(x, xp)
        both = self.kappa + rate
        radial = f.v * both - self.look_ahead * f.omega * f.omega
        tangential = f.omega * (f.v / self.look_ahead + both)
        curvature = f.vx * f.vx * f.ix + f.vy * f.vy * f.iy
        level = (0.5 * rate * self.kappa) * f.twice_distance - rate * self.kappa
        upper = f.by_v * radial + f.by_omega * tangential + curvature + level
        A = -xp.stack([f.by_v, f.by_omega], -1)
        return xp.moveaxis(A, 0, -2), xp.moveaxis(upper, 0, -1)

    def _value(self, f: _Frame) -> Array:
        rate = f.by_v * f.v + f.by_omega * f.omega  # e'
        return rate + self.kappa * (0.5 * f.twice_distance - 1.0)

    def _frame(self, x: Array, xp: Any) -> _Frame:
        l = self.look_ahead
        px, py, theta, v, omega = xp.moveaxis(x, -1, 0)
        c, s = xp.cos(theta), xp.sin(theta)
        column = (-1,) + (1,) * px.ndim
        ox, oy = (constant(o.reshape(column), x, xp) for o in self.centers.T)
        ix, iy = (constant(2.0 * r.reshape(column) ** -2.0, x, xp) for r in self.radii.T)
        dx, dy = px + l * c - ox, py + l * s - oy
        gx, gy = dx * ix, dy * iy
        turn = l * omega
        return _Frame(
            c, s, v, omega, ix, iy, gx, gy,
            twice_distance=dx * gx + dy * gy,
            vx=v * c - turn * s,
            vy=v * s + turn * c,
            by_v=gx * c + gy * s,
            by_omega=l * (gy * c - gx * s),
        )  # fmt: skip


class _Frame(NamedTuple):
    """Geometry at the look-ahead point `c`, by components: `(*batch)`, or `(k, *batch)` for `k` obstacles.

    Components, because a reduction over an axis of two numbers costs ten times the two products.
    `gx, gy`: `∂e/∂c`; `ix, iy`: `2 / r²`; `vx, vy`: `c'`; `by_v, by_omega`: `∂e'/∂v`, `∂e'/∂ω`.
    """

    c: Array
    s: Array
    v: Array
    omega: Array
    ix: Array
    iy: Array
    gx: Array
    gy: Array
    twice_distance: Array
    vx: Array
    vy: Array
    by_v: Array
    by_omega: Array


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
    view: ClassVar = ((-4.5, 1.0), (-1.5, 2.0))
    state_low: ClassVar[np.ndarray] = np.array([-6.0, -4.0, -4 * np.pi, -15.0, -30.0])  # pyright: ignore
    state_high: ClassVar[np.ndarray] = np.array([3.0, 4.0, 4 * np.pi, 15.0, 30.0])  # pyright: ignore

    START_LOW: ClassVar[np.ndarray] = np.array([-4.0, 0.0, -np.pi / 4, 0.0, 0.0])
    START_HIGH: ClassVar[np.ndarray] = np.array([-3.5, 0.5, -np.pi / 8, 0.0, 0.0])

    start_low: ClassVar[np.ndarray] = START_LOW
    start_high: ClassVar[np.ndarray] = START_HIGH

    def admissible(self, x: Array) -> Array:
        """States of the start box that are start states `(*batch)`: those with `h >= 0`."""
        return (self.barrier.value(x) >= 0).all(-1)

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
        z = xp.concatenate([x, u], -1)
        return (z * z * constant(COST, x, xp)).sum(-1)

    def features(self, t: Array, x: Array) -> Array:
        """`(px, py, cos θ, sin θ, v, ω)`."""
        xp = namespace(x)
        heading = xp.sin(x[..., 2:3] + constant([0.5 * np.pi, 0.0], x, xp))
        return xp.concatenate([x[..., :2], heading, x[..., 3:]], -1)

    def nominal(self, t: Array, x: Array) -> Array:
        """Proportional heading and speed controller to the origin, blind to the obstacles."""
        xp = namespace(x)
        px, py, theta, v, omega = xp.moveaxis(x, -1, 0)
        c, s = xp.cos(theta), xp.sin(theta)
        distance = xp.linalg.vector_norm(x[..., :2], axis=-1)
        v_goal = xp.clip(-10.0 * distance * (px * c + py * s), -5.0, 5.0)
        omega_goal = 10.0 * (px * s - py * c) / (distance + 1e-5)
        return 5.0 * xp.stack([v_goal - v, omega_goal - omega], -1)

    def brake(self, t: Array, x: Array) -> Array:
        """Brings speed and turn rate to zero."""
        return -10.0 * x[..., 3:]

    def scenery(self) -> list[np.ndarray]:
        return [circle(c, r) for c, r in zip(self.barrier.centers, self.barrier.radii, strict=True)]
