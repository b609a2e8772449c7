"""Contracts of plants: frozen parameters and pure functions of (t, x, u, w)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import namespace

Array = Any  # a NumPy array, a torch tensor, or any object of the array namespace `xp`


@dataclass(frozen=True)
class Quantity:
    """A named component of a state, an input or a disturbance.

    Args:
        name: Short name, such as `"theta"`.
        unit: SI unit, such as `"rad"`; `"1"` for none.
        angle: Whether values that differ by 2π are the same (drawing and observation wrap it).
    """

    name: str
    unit: str
    angle: bool = False


class Dynamics(ABC):
    """A plant `dx/dt = f(t, x, u, w)`: a frozen dataclass of physical parameters in SI units.

    Parameters are floats, or arrays of the batch shape so that they differ between batch elements. Every
    function takes `(*batch, n)` arrays of one namespace `xp` (found from `x` when not given), works elementwise
    over the batch, branches on nothing and changes nothing in place.
    """

    state: ClassVar[tuple[Quantity, ...]]
    input: ClassVar[tuple[Quantity, ...]]
    disturbance: ClassVar[tuple[Quantity, ...]] = ()

    @property
    def state_dim(self) -> int:
        return len(self.state)

    @property
    def input_dim(self) -> int:
        return len(self.input)

    @abstractmethod
    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        """`dx/dt` `(*batch, n)` at time `t` [s], state `x`, input `u` and disturbance `w` (None: zero)."""

    def outline(self, x: np.ndarray) -> Sequence[np.ndarray]:
        """Picture of one state `(n,)`: polylines `(k, 2)` [m]. This hook's default is a bar for each state."""
        return [np.array([[i, 0.0], [i, value]]) for i, value in enumerate(x)]

    def draw(self, ax: Any, x: np.ndarray, t: float) -> None:
        """Draw one state `(n,)` at time `t` [s] on Matplotlib axes."""
        for k, line in enumerate(self.outline(np.asarray(x, dtype=float))):
            ax.plot(*line.T, color=f"C{k % 10}", linewidth=2)
        ax.set_title(f"t = {t:.2f} s")

    def linearize(self, x: Array, u: Array, w: Array | None = None, t: float = 0.0) -> tuple[Array, Array]:
        """Jacobians `∂f/∂x` `(n, n)` and `∂f/∂u` `(n, m)` at one state and input, exact, in the kind of `x`."""
        import torch

        numpy = namespace(x) is np
        x, u = torch.as_tensor(x), torch.as_tensor(u)
        w = None if w is None else torch.as_tensor(w)
        jacobian = torch.func.jacfwd(lambda x, u: self.derivative(t, x, u, w, xp=torch), argnums=(0, 1))
        A, B = jacobian(x, u)
        return (A.numpy(), B.numpy()) if numpy else (A, B)


class ControlAffine(Dynamics):
    """A plant that is affine in its input: `dx/dt = drift(t, x, w) + actuation(t, x) u`.

    `drift` and `actuation` are all that a plant must give. One that knows its derivative in fewer
    operations overrides `derivative` too; `control_envs.checks.check_plant` compares the two.
    """

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        driven = (self.actuation(t, x, xp=xp) @ u[..., None])[..., 0]
        return self.drift(t, x, w, xp=xp) + driven

    @abstractmethod
    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        """The part without input `(*batch, n)`."""

    @abstractmethod
    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        """The input matrix, `(*batch, n, m)` or constant `(n, m)`, of the dtype and device of `x`."""


class Mechanical(ControlAffine):
    """A plant `H(q) q'' + C(q, q') q' + g(q) = B(q) u + force(t, x, w)` with state `x = (q, q')`.

    `H' − 2 C` is skew-symmetric.
    """

    @property
    def degrees(self) -> int:
        """Number of coordinates `q`."""
        return self.state_dim // 2

    @abstractmethod
    def H(self, q: Array, *, xp: Any = None) -> Array:
        """Inertia matrix `(*batch, d, d)`."""

    @abstractmethod
    def C(self, q: Array, velocity: Array, *, xp: Any = None) -> Array:
        """Coriolis matrix `(*batch, d, d)`."""

    @abstractmethod
    def g(self, q: Array, *, xp: Any = None) -> Array:
        """Gravity `(*batch, d)`."""

    @abstractmethod
    def B(self, q: Array, *, xp: Any = None) -> Array:
        """Input matrix `(*batch, d, m)`."""

    @abstractmethod
    def force(self, t: Array, x: Array, w: Array | None, *, xp: Any = None) -> Array:
        """Friction, drag and disturbance `(*batch, d)`."""

    def accelerate(self, q: Array, force: Array, *, xp: Any = None) -> Array:
        """`H⁻¹ force`; a hook for plants that know it in closed form."""
        xp = xp or namespace(q)
        return xp.linalg.solve(self.H(q, xp=xp), force[..., None])[..., 0]

    def inverse_dynamics(
        self, q: Array, velocity: Array, v: Array, acceleration: Array, *, xp: Any = None
    ) -> Array:
        """`H(q) acceleration + C(q, velocity) v + g(q)`; a hook for plants that know it in closed form."""
        xp = xp or namespace(q)
        inertial = self.H(q, xp=xp) @ acceleration[..., None] + self.C(q, velocity, xp=xp) @ v[..., None]
        return inertial[..., 0] + self.g(q, xp=xp)

    def allocate(self, q: Array, force: Array, *, xp: Any = None) -> Array:
        """The input `u` with `B(q) u = force` of a fully actuated plant; a hook for those that know it."""
        xp = xp or namespace(q)
        B = self.B(q, xp=xp)
        if hasattr(xp.linalg, "solve_ex"):  # torch: a singular B in one element is not the others' affair
            return xp.linalg.solve_ex(B, force[..., None])[0][..., 0]
        return xp.linalg.solve(B, force[..., None])[..., 0]

    def derivative(self, t: Array, x: Array, u: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        d = self.degrees
        q, velocity = x[..., :d], x[..., d:]
        force = self._free_force(t, x, w, xp) + (self.B(q, xp=xp) @ u[..., None])[..., 0]
        return xp.concatenate([velocity, self.accelerate(q, force, xp=xp)], -1)

    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        d = self.degrees
        acceleration = self.accelerate(x[..., :d], self._free_force(t, x, w, xp), xp=xp)
        return xp.concatenate([x[..., d:], acceleration], -1)

    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        xp = xp or namespace(x)
        q = x[..., : self.degrees]
        lower = xp.linalg.solve(self.H(q, xp=xp), self.B(q, xp=xp))
        return xp.concatenate([xp.zeros_like(lower), lower], -2)

    def _free_force(self, t: Array, x: Array, w: Array | None, xp: Any) -> Array:
        d = self.degrees
        q, velocity = x[..., :d], x[..., d:]
        inner = (self.C(q, velocity, xp=xp) @ velocity[..., None])[..., 0] + self.g(q, xp=xp)
        return self.force(t, x, w, xp=xp) - inner


def matrix(rows: Sequence[Sequence[Array]], like: Array, xp: Any) -> Array:
    """Entries, each a number or `(*batch)`, as a matrix `(*batch, k, l)` of the batch shape of `like`."""
    zero = xp.zeros_like(like)
    return xp.stack([xp.stack([zero + entry for entry in row], -1) for row in rows], -2)


def circle(center: Any, radius: Any, count: int = 49) -> np.ndarray:
    """Closed polyline `(count, 2)` of a circle, or of an upright ellipse for two radii."""
    angle = np.linspace(0.0, 2.0 * np.pi, count)
    return np.asarray(center) + np.asarray(radius) * np.stack([np.cos(angle), np.sin(angle)], -1)


def placed(points: Any, position: Any, angle: float) -> np.ndarray:
    """Points `(k, 2)` of a body turned by `angle` [rad] and moved to `position`."""
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(points) @ np.array([[c, s], [-s, c]]) + np.asarray(position)


def rectangle(center: Any, angle: float, width: float, height: float) -> np.ndarray:
    """Closed polyline of a turned rectangle."""
    corners = 0.5 * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1], [1, 1]]) * [width, height]
    return placed(corners, center, angle)


def arrow(position: Any, angle: float, size: float) -> np.ndarray:
    """Closed polyline of an arrowhead that points along `angle`."""
    return placed(size * np.array([[1, 0], [-0.6, 0.5], [-0.3, 0], [-0.6, -0.5], [1, 0]]), position, angle)
