"""Contract of flows: partial differential equations on a periodic grid, solved in Fourier space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from control_envs.arrays import namespace
from control_envs.errors import ShapeError
from control_envs.flows.steppers import ETDRK4, Stepper

Array = Any  # a NumPy array or a torch tensor


class Flow(ABC):
    """An equation `∂w/∂t = L w + N(w)` on a periodic grid: a frozen dataclass of its parameters.

    `L` is diagonal in Fourier space (`symbol`), `N` is evaluated on the grid (`nonlinear`). States are
    `(*batch, *shape)` in NumPy or torch, in float64 or float32. The state lives on the Fourier modes that the 2/3
    rule keeps (`3 |j| < points` in each direction), where products of two states have no aliasing error: what is
    solved is the Galerkin projection of the equation, and its energy balance holds to rounding. A batch element
    never sees another one. Everything is differentiable in torch.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one state on the grid."""

    @abstractmethod
    def symbol(self) -> np.ndarray:
        """Eigenvalues of `L` [1/s] on the kept modes, float64."""

    @abstractmethod
    def tables(self) -> tuple[np.ndarray, ...]:
        """Constant arrays that `nonlinear` multiplies by."""

    @abstractmethod
    def nonlinear(self, spectrum: Array, tables: tuple[Array, ...], xp: Any) -> Array:
        """`N(w)`, from kept modes to kept modes."""

    @abstractmethod
    def to_spectrum(self, w: Array, *, xp: Any = None) -> Array:
        """Kept Fourier modes `(*batch, *modes)` of a state `(*batch, *shape)`."""

    @abstractmethod
    def to_grid(self, spectrum: Array, *, xp: Any = None) -> Array:
        """State `(*batch, *shape)` of kept modes."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Random start states `(count, *shape)`, float64."""

    def project(self, w: Array) -> Array:
        """The part of a state `(*batch, *shape)` on the kept modes."""
        self._check(w, "project")
        return self.to_grid(self.to_spectrum(w))

    def derivative(self, w: Array) -> Array:
        """`∂w/∂t` `(*batch, *shape)` of the projected equation."""
        self._check(w, "derivative")
        xp = namespace(w)
        spectrum = self.to_spectrum(w, xp=xp)
        symbol, *tables = _like((self.symbol(), *self.tables()), spectrum, xp)
        return self.to_grid(symbol * spectrum + self.nonlinear(spectrum, tuple(tables), xp), xp=xp)

    def stepper(self, dt: float, like: Array, method: Stepper | None = None) -> Callable[[Array], Array]:
        """One step of length `dt` [s] on spectra, with its constants made once, of the kind and precision of `like`."""
        method = method or ETDRK4()
        xp = namespace(like)
        tables = _like(self.tables(), like, xp)
        coefficients = _like(method.coefficients(self.symbol(), dt), like, xp)
        return lambda spectrum: method.step(coefficients, lambda v: self.nonlinear(v, tables, xp), spectrum)

    def step(self, w: Array, dt: float, method: Stepper | None = None) -> Array:
        """State `(*batch, *shape)` after one step of `dt` [s]; for many steps take `trajectory` or `stepper`."""
        return self.trajectory(w, 1, dt, method=method)[..., 1, *(slice(None) for _ in self.shape)]

    def trajectory(
        self, w0: Array, steps: int, dt: float, *, every: int = 1, method: Stepper | None = None
    ) -> Array:
        """States `(*batch, steps / every + 1, *shape)` at times `0, every dt, ..., steps dt`.

        Args:
            w0: Start states `(*batch, *shape)`; the first row of the result is their projection on the kept modes.
            steps: Number of steps.
            dt: Length of a step [s].
            every: How many steps lie between two states that are returned; divides `steps`.
            method: Time stepping; default `ETDRK4()`.

        Raises:
            ShapeError: `w0` is not on the grid of the flow.
            ValueError: `every` does not divide `steps`.
        """
        self._check(w0, "trajectory")
        if every < 1 or steps < 0 or steps % every:
            raise ValueError(
                f"{type(self).__name__}.trajectory: expected every to divide steps, got steps {steps} and every "
                f"{every}. Take a multiple of {every} as the number of steps."
            )
        xp = namespace(w0)
        if 0 in w0.shape:  # which transforms refuse
            return xp.stack([w0] * (steps // every + 1), w0.ndim - len(self.shape))
        spectrum = self.to_spectrum(w0, xp=xp)
        advance = self.stepper(dt, spectrum, method)
        states = [self.to_grid(spectrum, xp=xp)]
        for _ in range(steps // every):
            for _ in range(every):
                spectrum = advance(spectrum)
            states.append(self.to_grid(spectrum, xp=xp))
        return xp.stack(states, w0.ndim - len(self.shape))

    def _check(self, w: Array, method: str) -> None:
        if tuple(w.shape[-len(self.shape) :]) != self.shape:
            shape = ", ".join(map(str, self.shape))
            raise ShapeError(
                f"{type(self).__name__}.{method}: expected a state of shape (*batch, {shape}), got "
                f"{tuple(w.shape)}. Sample the state on the flow's grid, or build the flow with the state's points."
            )


def _like(arrays: tuple[np.ndarray, ...], spectrum: Array, xp: Any) -> tuple[Array, ...]:
    """Constants of the precision and device of a complex spectrum; real ones stay real."""
    single = str(spectrum.dtype).endswith("complex64")
    kinds = {"c": np.complex64 if single else np.complex128, "f": np.float32 if single else np.float64}
    arrays = tuple(a.astype(kinds[a.dtype.kind], copy=False) for a in arrays)
    return arrays if xp is np else tuple(xp.as_tensor(a, device=spectrum.device) for a in arrays)
