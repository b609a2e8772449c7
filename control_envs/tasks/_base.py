"""The contract of a task: what is controlled, from where, at what cost, under which constraints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

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
