"""Disturbances and random parameters: drawn once for an episode, from a generator, as a table.

A disturbance is drawn for every control interval and held over it, so that every method meets the same numbers. The
same processes serve three channels: the dynamics (`w` of the plant), the input (added to what is commanded, in SI
units) and the measurement (added to the state that is observed).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Values = float | tuple[float, ...]


class Distribution(ABC):
    """A law of a physical parameter."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> float:
        """One value."""


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform on `[low, high]`."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        return self.low + (self.high - self.low) * rng.random()


@dataclass(frozen=True)
class ScaledBeta(Distribution):
    """`scale` times a Beta(a, b) value: the wind law of control-oriented meta-learning."""

    scale: float
    a: float
    b: float

    def draw(self, rng: np.random.Generator) -> float:
        return self.scale * rng.beta(self.a, self.b)


class Disturbance(ABC):
    """A process `w` with `k` channels, held constant over each control interval."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, steps: int, dt: float, channels: int) -> np.ndarray:
        """Table `(steps, channels)`; a longer table begins with the shorter one."""


@dataclass(frozen=True)
class Constant(Disturbance):
    """The same value in every interval, the same or another for each channel."""

    value: Values = 0.0

    def draw(self, rng: np.random.Generator, steps: int, dt: float, channels: int) -> np.ndarray:
        return np.broadcast_to(np.asarray(self.value, dtype=float), (steps, channels)).copy()


@dataclass(frozen=True)
class Drawn(Disturbance):
    """One value for the whole episode, drawn from a law for each channel."""

    law: Distribution

    def draw(self, rng: np.random.Generator, steps: int, dt: float, channels: int) -> np.ndarray:
        return np.broadcast_to(
            np.array([self.law.draw(rng) for _ in range(channels)]), (steps, channels)
        ).copy()


@dataclass(frozen=True)
class White(Disturbance):
    """Independent normal values of standard deviation `std` in every interval."""

    std: Values

    def draw(self, rng: np.random.Generator, steps: int, dt: float, channels: int) -> np.ndarray:
        return rng.standard_normal((steps, channels)) * np.asarray(self.std, dtype=float)


@dataclass(frozen=True)
class Gust(Disturbance):
    """Ornstein-Uhlenbeck process of standard deviation `std` and correlation time `tau` [s], started at rest."""

    std: Values
    tau: float = 1.0

    def draw(self, rng: np.random.Generator, steps: int, dt: float, channels: int) -> np.ndarray:
        keep = np.exp(-dt / self.tau)
        kicks = rng.standard_normal((steps, channels)) * np.sqrt(1.0 - keep * keep)
        table = np.empty((steps, channels))
        w = np.zeros(channels)
        for k in range(steps):
            w = keep * w + kicks[k]
            table[k] = w
        return table * np.asarray(self.std, dtype=float)


@dataclass(frozen=True)
class Step(Disturbance):
    """Zero before `time` [s], `value` from then on."""

    value: Values
    time: float

    def draw(self, rng: np.random.Generator, steps: int, dt: float, channels: int) -> np.ndarray:
        on = np.arange(steps)[:, None] * dt >= self.time - 1e-9 * dt
        return np.broadcast_to(on * np.asarray(self.value, dtype=float), (steps, channels)).copy()


@dataclass(frozen=True)
class Impulse(Disturbance):
    """`value` in the one interval that holds `time` [s], zero elsewhere."""

    value: Values
    time: float

    def draw(self, rng: np.random.Generator, steps: int, dt: float, channels: int) -> np.ndarray:
        on = np.arange(steps)[:, None] == int(np.floor(self.time / dt + 1e-9))
        return np.broadcast_to(on * np.asarray(self.value, dtype=float), (steps, channels)).copy()


@dataclass(frozen=True)
class Periodic(Disturbance):
    """Sine of `frequency` [Hz]; its phase is drawn once for the episode and each channel."""

    amplitude: Values
    frequency: float

    def draw(self, rng: np.random.Generator, steps: int, dt: float, channels: int) -> np.ndarray:
        phase = 2.0 * np.pi * rng.random(channels)
        angle = 2.0 * np.pi * self.frequency * dt * np.arange(steps)[:, None] + phase
        return np.asarray(self.amplitude, dtype=float) * np.sin(angle)


@dataclass(frozen=True)
class Ramp(Disturbance):
    """Zero until `start` [s], then growing evenly to `value` at `end` [s], where it stays."""

    value: Values
    start: float
    end: float

    def draw(self, rng: np.random.Generator, steps: int, dt: float, channels: int) -> np.ndarray:
        share = np.clip((dt * np.arange(steps)[:, None] - self.start) / (self.end - self.start), 0.0, 1.0)
        return np.broadcast_to(share * np.asarray(self.value, dtype=float), (steps, channels)).copy()


@dataclass(frozen=True)
class Bump(Disturbance):
    """One swell on `(0, end)`: `peak (t/time)^rise ((end − t)/(end − time))^fall`, zero elsewhere.

    `fall = rise (end − time)/time` puts the largest value `peak` at `time` [s]. The defaults are the wind of the
    loop test of control-oriented meta-learning.
    """

    peak: Values = 8.0
    time: float = 15.0
    end: float = 20.0
    rise: float = 2.0

    def draw(self, rng: np.random.Generator, steps: int, dt: float, channels: int) -> np.ndarray:
        t = dt * np.arange(steps)[:, None]
        fall = self.rise * (self.end - self.time) / self.time
        left = np.clip((self.end - t) / (self.end - self.time), 0.0, None)
        swell = (t / self.time) ** self.rise * left**fall
        return np.broadcast_to(swell * np.asarray(self.peak, dtype=float), (steps, channels)).copy()


def held(table: Any, dt: float, t0: float = 0.0) -> Callable[[float, Any], Any]:
    """A table `(*batch, steps, k)` as the `disturbance(t, x)` of a rollout: each row is held for `dt` [s].

    After its end the last row stays.
    """

    def disturbance(t: float, x: Any) -> Any:
        return table[..., min(int((t - t0) / dt + 1e-6), table.shape[-2] - 1), :]

    return disturbance
