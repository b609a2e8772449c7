"""The contract of a task: what is controlled, from where, at what cost, under which constraints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from control_envs.arrays import constant, namespace, stack
from control_envs.disturbances import Disturbance
from control_envs.dynamics import Dynamics
from control_envs.simulate import InputLimitedSubsteps, Integrator

Array = Any


@dataclass(frozen=True)
class TaskConstraint:
    """A named constraint `g(t, x, u) <= 0`.

    Args:
        name: Short name, such as `"obstacle-1"`.
        unit: Unit of `g`; `"1"` for none.
        g: Function `(t, x, u) -> (*batch)`, of any array namespace; `<= 0` is safe.
    """

    name: str
    unit: str
    g: Callable[[Array, Array, Array], Array]


class Task(ABC):
    """A control task, free of any RL interface; every array function takes NumPy or torch.

    Attributes:
        name: Name on the command line; the Gymnasium id is made from it.
        version: Raised with every change of numbers.
        plant: The dynamics.
        dt: Control interval [s].
        horizon: Number of control intervals.
        integrator, substeps: How an interval is simulated.
        input_low, input_high: Input limits in SI units that RL actions in [-1, 1] are scaled to.
        state_low, state_high: Region in which the task is meant; leaving it truncates an episode.
        constraints: Named constraints `g <= 0`.
        disturbance: What disturbs the plant in every episode unless something else is asked for, or None.
        view: Window of drawings `((left, right), (bottom, top))` [m]; None: chosen from the outlines.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 0
    summary: ClassVar[str]
    plant: Dynamics
    dt: float
    horizon: int
    integrator: Integrator
    substeps: InputLimitedSubsteps | None = None
    input_low: np.ndarray
    input_high: np.ndarray
    state_low: np.ndarray
    state_high: np.ndarray
    constraints: tuple[TaskConstraint, ...]
    disturbance: Disturbance | None = None
    view: tuple[tuple[float, float], tuple[float, float]] | None = None

    @abstractmethod
    def sample_starts(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """`count` start states `(count, n)` in float64; state i uses the i-th draws, whatever `count` is."""

    @abstractmethod
    def stage_cost(self, t: Array, x: Array, u: Array) -> Array:
        """Cost per second `(*batch)`; its time integral is the cost of a run, its negative the reward."""

    @abstractmethod
    def features(self, t: Array, x: Array) -> Array:
        """Network input and observation `(*batch, k)`, without jumps at the wrap of angles."""

    @abstractmethod
    def nominal(self, t: Array, x: Array) -> Array:
        """A simple controller that ignores the constraints `(*batch, m)`."""

    def brake(self, t: Array, x: Array) -> Array:
        """Input `(*batch, m)` of last resort of a safety filter; this hook's default is the middle of the box."""
        xp = namespace(x)
        middle = constant(0.5 * (self.input_low + self.input_high), x, xp)
        return xp.zeros_like(x[..., :1]) + middle

    def scenery(self) -> Sequence[np.ndarray]:
        """What stands still in a picture: closed polylines `(k, 2)` [m]; this hook's default is nothing."""
        return ()

    @property
    def feature_low(self) -> np.ndarray:
        """Smallest features while the state is in its region; holds for features made by `embed`."""
        return _embed_bounds(self, self.state_low, -1.0)

    @property
    def feature_high(self) -> np.ndarray:
        """Largest features while the state is in its region; holds for features made by `embed`."""
        return _embed_bounds(self, self.state_high, 1.0)


def embed(plant: Dynamics, x: Array) -> Array:
    """States in their order, each angle as its cosine and sine."""
    xp = namespace(x)
    parts = []
    for i, quantity in enumerate(plant.state):
        value = x[..., i]
        parts += [xp.cos(value), xp.sin(value)] if quantity.angle else [value]
    return stack(parts, xp)


def _embed_bounds(task: Task, bounds: np.ndarray, unit: float) -> np.ndarray:
    parts: list[float] = []
    for quantity, bound in zip(task.plant.state, bounds, strict=True):
        parts += [unit, unit] if quantity.angle else [float(bound)]
    return np.array(parts)


def _above(index: int, limit: float, t: Array, x: Array, u: Array) -> Array:
    return x[..., index] - limit


def _below(index: int, limit: float, t: Array, x: Array, u: Array) -> Array:
    return limit - x[..., index]


def _beyond(index: int, limit: float, t: Array, x: Array, u: Array) -> Array:
    return abs(x[..., index]) - limit


def _inside(
    indices: tuple[int, ...], center: tuple[float, ...], radius: float, t, x: Array, u: Array
) -> Array:
    xp = namespace(x)
    square = sum((x[..., i] - c) ** 2 for i, c in zip(indices, center, strict=True))
    return radius - xp.sqrt(square)


def _outside(index: int, low: float, high: float, t: Array, x: Array, u: Array) -> Array:
    value = x[..., index]
    return namespace(x).maximum(low - value, value - high)


def limit(
    plant: Dynamics,
    name: str,
    *,
    low: float | None = None,
    high: float | None = None,
    size: float | None = None,
) -> TaskConstraint:
    """Constraint on one named state: `x >= low`, `x <= high`, both, or `|x| <= size`.

    Raises:
        ValueError: The plant has no state of this name, or the bounds are none, crossed, or both a
            range and a size.
    """
    index = _state_index(plant, name, "limit")
    given = {k: float(v) for k, v in {"low": low, "high": high, "size": size}.items() if v is not None}
    unit = plant.state[index].unit
    if set(given) == {"low", "high"} and given["low"] < given["high"]:
        outside = partial(_outside, index, given["low"], given["high"])
        return TaskConstraint(f"{name}-range", unit, outside)
    kinds = {"low": _below, "high": _above, "size": _beyond}
    if len(given) != 1 or not given.get("size", 1.0) > 0:
        raise ValueError(
            f"limit: expected low, high with low < high, one of them, or size > 0 for '{name}', got "
            f"{', '.join(f'{k}={v:g}' for k, v in given.items()) or 'none'}. `limit(plant, "
            f"'{name}', low=0, high=20)` is a range, `size=3` means |{name}| <= 3."
        )
    ((kind, value),) = given.items()
    return TaskConstraint(f"{name}-{kind}", unit, partial(kinds[kind], index, value))


def _state_index(plant: Dynamics, name: str, where: str) -> int:
    names = [q.name for q in plant.state]
    if name not in names:
        raise ValueError(
            f"{where}: expected a state of {type(plant).__name__}, got '{name}'. Its states: "
            f"{', '.join(names)}."
        )
    return names.index(name)


def keep_out(plant: Dynamics, name: str, states: tuple[str, ...], center: tuple[float, ...], radius: float):
    """Constraint that the point made of the named states stays out of a ball [m].

    Raises:
        ValueError: The plant lacks one of the states, or the center has another number of entries.
    """
    indices = tuple(_state_index(plant, state, "keep_out") for state in states)
    if len(indices) != len(center) or not radius > 0:
        raise ValueError(
            f"keep_out: expected a center with {len(indices)} entries and a radius > 0, got {center} "
            f"and {radius}. Give one coordinate for each of {', '.join(states)}."
        )
    return TaskConstraint(name, "m", partial(_inside, indices, center, radius))
