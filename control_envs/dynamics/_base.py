"""Contracts of plants: frozen parameters and pure functions of (t, x, u, w)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

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


class ControlAffine(Dynamics):
    """A plant that is affine in its input: `dx/dt = drift(t, x, w) + actuation(t, x) u`."""

    @abstractmethod
    def drift(self, t: Array, x: Array, w: Array | None = None, *, xp: Any = None) -> Array:
        """The part without input `(*batch, n)`."""

    @abstractmethod
    def actuation(self, t: Array, x: Array, *, xp: Any = None) -> Array:
        """The input matrix, `(*batch, n, m)` or constant `(n, m)`, of the dtype and device of `x`."""
