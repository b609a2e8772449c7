"""The kinds of rows of the registry.

Every module of this folder holds a list `ROWS`; a new public class needs one row here, and every contract then
runs on it. All tensors of a row are float64. `build(generator, batch)` draws a set whose tensors all carry
`batch` (or are shared, for a row that says so); the same generator state gives the same set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

Batch = tuple[int, ...]


@dataclass(frozen=True)
class Edge:
    """A point worked out by hand: `set.project(y)`, or what a layer returns, must be `expected`."""

    name: str
    set: Any
    y: Tensor
    expected: Tensor


@dataclass(frozen=True)
class SetCase:
    """A constraint set.

    Args:
        name: Identifier of the row.
        kind: The class.
        build: `(generator, batch) -> set`.
        violation: Independent oracle `(one element of the set, y as NumPy (n,)) -> violation`, in NumPy.
        inside: `(set) -> (*batch, n)`, points of the set, strictly inside where it has an interior.
        rows: `(one element, cvxpy variable) -> list of cvxpy constraints`; None for a set that is not convex.
        edges: Points worked out by hand (only for sets with `project`).
        atol: Tolerance of closed forms in float64, for data of size one.
        smooth: Whether `project` is twice differentiable at random points (for finite differences).
        cvxpy_atol: Distance that cvxpy's nearest point may have; at curved boundaries its solver stops early.
    """

    name: str
    kind: type
    build: Callable[[torch.Generator, Batch], Any]
    violation: Callable[[Any, np.ndarray], float]
    inside: Callable[[Any], Tensor]
    rows: Callable[[Any, Any], list] | None = None
    edges: Callable[[], list[Edge]] = list
    atol: float = 1e-10
    smooth: bool = True
    cvxpy_atol: float = 1e-6


@dataclass(frozen=True)
class LayerCase:
    """A layer, on one kind of set.

    Args:
        name: Identifier of the row.
        kind: The class.
        make: `() -> layer`.
        build: `(generator, batch) -> set`.
        oracle: Independent result `(one element of the set, y as NumPy (n,)) -> NumPy (n,)`, or None.
        inside: `(set) -> (*batch, n)`, points of the set.
        infeasible: `() -> (y, set)` with a batch of two: element 0 feasible, element 1 empty; or None.
        edges: Points worked out by hand.
        atol: Largest violation and distance to the oracle for data of size one.
        euclidean: Whether the layer is the Euclidean projection (then it is firmly nonexpansive).
        others: The same layer with other derivatives (for example `Unrolled()`), by name.
        gradient_atol: Tolerance of finite differences.
        second_order: Whether second derivatives are claimed.
        transforms: Whether vmap, forward mode and compilation are claimed.
        iterative: Whether the layer runs a solver that costs seconds to compile and to difference; finite
            differences then go along random directions.
        compiles: Whether compilation is run on this row (one row for each solver is enough: its graph is that of all
            layers that call it).
        to_compile: Sets to compile on in place of `build`, where the graph grows with the parts of a set.
    """

    name: str
    kind: type
    make: Callable[[], Any]
    build: Callable[[torch.Generator, Batch], Any]
    oracle: Callable[[Any, np.ndarray], np.ndarray] | None
    inside: Callable[[Any], Tensor]
    infeasible: Callable[[], tuple[Tensor, Any]] | None = None
    edges: Callable[[], list[Edge]] = list
    atol: float = 1e-9
    euclidean: bool = False
    others: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    gradient_atol: float = 1e-6
    second_order: bool = True
    transforms: bool = True
    iterative: bool = False
    compiles: bool = True
    to_compile: Callable[[torch.Generator, Batch], Any] | None = None


@dataclass(frozen=True)
class CertificateCase:
    """A certificate function on a plant.

    Args:
        name: Identifier of the row.
        kind: The class.
        make: `() -> certificate`.
        plant: The plant it is written for.
        states: `(generator, count) -> (count, n)`.
        value: Independent value `(x as NumPy (n,)) -> NumPy (k,)`.
        margin: `(value (k,), its time derivative (k,)) -> (k,)`, nonnegative exactly where the condition holds.
    """

    name: str
    kind: type
    make: Callable[[], Any]
    plant: Any
    states: Callable[[torch.Generator, int], Tensor]
    value: Callable[[np.ndarray], np.ndarray]
    margin: Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class PlantCase:
    """A plant.

    Args:
        name: Identifier of the row.
        kind: The class.
        make: `() -> plant`.
        derivative: Independent `dx/dt` for one element in plain Python: `(t, x, u, w) -> list`.
        scale: Typical size of the states `(n,)`, for drawing them.
    """

    name: str
    kind: type
    make: Callable[[], Any]
    derivative: Callable[..., list[float]]
    scale: tuple[float, ...]


@dataclass(frozen=True)
class FlowCase:
    """A flow, on a grid so coarse that finite differences are cheap.

    Args:
        name: Identifier of the row.
        kind: The class.
        make: `() -> flow`.
        derivative: Independent `∂w/∂t` of one state of kept modes, in NumPy, on a finer grid.
        dt: A step at which the integrators are in their asymptotic range [s].
    """

    name: str
    kind: type
    make: Callable[[], Any]
    derivative: Callable[[Any, np.ndarray], np.ndarray]
    dt: float


@dataclass(frozen=True)
class ControllerCase:
    """A controller.

    Args:
        name: Identifier of the row.
        kind: The class.
        make: `() -> controller`.
        states: `(generator, count) -> (count, n)`.
        oracle: Independent input for one state `(x as NumPy (n,)) -> NumPy (m,)`; for a controller with a state `z`,
            input and rate of `z` in one array, at `z = 0.1`.
        reference: What a controller with a state tracks `(k, p)`.
        atol: Tolerance against the oracle.
    """

    name: str
    kind: type
    make: Callable[[], Any]
    states: Callable[[torch.Generator, int], Tensor]
    oracle: Callable[[np.ndarray], np.ndarray]
    reference: Any = None
    atol: float = 1e-8


@dataclass(frozen=True)
class BadCall:
    """One entry of a `Raises:` section, triggered.

    Args:
        where: Qualified name of the class, method or function with that section, such as `"Polyhedron.merged"`.
        error: The exception class.
        call: `() -> Any`, which must raise it.
        says: A part of the message: the bad value, or the remedy.
    """

    where: str
    error: type[Exception]
    call: Callable[[], Any]
    says: str
