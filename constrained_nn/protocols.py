"""Structural types by which plants, barriers and controllers meet; nothing here imports an environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class ControlAffine(Protocol):
    """A plant `dx/dt = drift(t, x, w) + actuation(t, x) u`."""

    @property
    def state_dim(self) -> int: ...

    @property
    def input_dim(self) -> int: ...

    def drift(self, t: Any, x: Tensor, w: Tensor | None = None) -> Tensor: ...

    def actuation(self, t: Any, x: Tensor) -> Tensor: ...


@runtime_checkable
class Linearizable(Protocol):
    """A plant that knows its Jacobian: `∂/∂x (drift(x) + actuation(x) u)` `(*batch, n, n)`; `u` broadcasts."""

    def jacobian(self, x: Tensor, u: Tensor) -> Tensor: ...


@runtime_checkable
class Mechanical(Protocol):
    """A fully actuated plant `H(q) q'' + C(q, q') q' + g(q) = B(q) u + force`, state `(q, q')`."""

    @property
    def degrees(self) -> int: ...

    def H(self, q: Tensor) -> Tensor: ...

    def inverse_dynamics(self, q: Tensor, velocity: Tensor, v: Tensor, acceleration: Tensor) -> Tensor:
        """`H(q) acceleration + C(q, velocity) v + g(q)`."""
        ...

    def allocate(self, q: Tensor, force: Tensor) -> Tensor:
        """The input with `B(q) u = force`."""
        ...


@runtime_checkable
class BarrierFunction(Protocol):
    """`h(x)` `(*batch, k)` with gradient `(*batch, k, n)`; `h >= 0` is safe."""

    def value(self, x: Tensor) -> Tensor: ...

    def gradient(self, x: Tensor) -> Tensor: ...


@runtime_checkable
class FusedBarrierFunction(BarrierFunction, Protocol):
    """A barrier that also knows the rows `A u <= upper` of its condition, in fewer operations."""

    def safe_rows(self, x: Tensor, rate: float) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class Clearance(Protocol):
    """`e(x) >= 0` with the bound `m` of its curvature and its gains, as in `SampledBarrier`; `xp` is the namespace."""

    @property
    def gains(self) -> tuple[float, ...]: ...

    @property
    def value(self) -> Callable[[Any, Any], Any]: ...

    @property
    def curvature(self) -> Callable[[Any, Any], Any]: ...
