"""Wrappers of vector environments that work on tensors as on NumPy arrays; Gymnasium's own need NumPy."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from control_envs.arrays import constant, namespace
from control_envs.errors import ShapeError

Array = Any


class RecordStatistics(VectorWrapper):
    """Adds return, length, cost and number of violations of every finished episode.

    Where an episode ends, `info["episode"]` holds `r`, `l`, `cost` (sum of `info["cost"]`) and `violations` (steps
    with a violated constraint), with the mask `info["_episode"]`.
    """

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self._totals: dict[str, Array] | None = None

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        zero = info["cost"] * 0
        mask = (options or {}).get("reset_mask")
        if self._totals is None or mask is None:
            self._totals = {key: zero for key in ("r", "l", "cost", "violations")}
        else:
            xp = namespace(zero)
            rows = xp.asarray(mask)
            self._totals = {key: xp.where(rows, zero, total) for key, total in self._totals.items()}
        self._fresh = zero > 1  # nowhere: copies whose next step is only a reset
        return observation, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert self._totals is not None, "call reset() first"
        observation, reward, terminated, truncated, info = self.env.step(actions)
        xp = namespace(reward)
        done = terminated | truncated
        cost, violation = info["cost"], info["violation"]
        if "final_info" in info:
            final, mask = info["final_info"], info["_final_info"]
            cost = xp.where(mask, final["cost"], cost)
            violation = xp.where(mask, final["violation"], violation)
        gains = {"r": reward, "l": reward * 0 + 1, "cost": cost, "violations": violation * 1.0}
        for key, gain in gains.items():
            self._totals[key] = xp.where(self._fresh, self._totals[key] * 0, self._totals[key] + gain)
        if done.any():
            info = info | {"episode": {k: v * 1 for k, v in self._totals.items()}, "_episode": done}
            self._totals = {k: xp.where(done, v * 0, v) for k, v in self._totals.items()}
        next_step = self.env.metadata.get("autoreset_mode") == AutoresetMode.NEXT_STEP
        self._fresh = done if next_step else done & ~done
        return observation, reward, terminated, truncated, info


class RunningMoments:
    """Mean and variance of everything seen, by batches."""

    def __init__(self) -> None:
        self.count, self.mean, self.variance = 1e-4, 0.0, 1.0

    def update(self, batch: Array) -> None:
        """Take in `(size, ...)`."""
        size = batch.shape[0]
        mean = batch.mean(0)
        variance = ((batch - mean) ** 2).mean(0)
        total = self.count + size
        shift = mean - self.mean
        self.variance = (
            self.variance * self.count + variance * size + shift**2 * (self.count * size / total)
        ) / total
        self.mean = self.mean + shift * (size / total)
        self.count = total


class NormalizeObservation(VectorWrapper):
    """Observations shifted and scaled to mean 0 and variance 1 of what was seen; `frozen` stops the update."""

    def __init__(self, env: VectorEnv, *, atol: float = 1e-8) -> None:
        super().__init__(env)
        self.moments, self.atol, self.frozen = RunningMoments(), atol, False
        shape = env.single_observation_space.shape
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._normalized(observation), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(actions)
        normalized = self._normalized(observation)
        if "final_obs" in info:
            info = info | {"final_obs": self._scaled(info["final_obs"])}
        return normalized, reward, terminated, truncated, info

    def _normalized(self, observation: Array) -> Array:
        if not self.frozen:
            self.moments.update(observation.detach() if hasattr(observation, "detach") else observation)
        return self._scaled(observation)

    def _scaled(self, observation: Array) -> Array:
        return (observation - self.moments.mean) / (self.moments.variance + self.atol) ** 0.5


class NormalizeReward(VectorWrapper):
    """Rewards scaled so that their discounted sum has variance 1; `frozen` stops the update."""

    def __init__(self, env: VectorEnv, *, discount: float = 0.99, atol: float = 1e-8) -> None:
        super().__init__(env)
        self.moments, self.discount, self.atol, self.frozen = RunningMoments(), discount, atol, False
        self._sum: Array = 0.0

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(actions)
        gain = reward.detach() if hasattr(reward, "detach") else reward
        self._sum = self._sum * self.discount + gain
        if not self.frozen:
            self.moments.update(self._sum)
        self._sum = self._sum * (1 - (terminated | truncated) * 1.0)
        return observation, reward / (self.moments.variance + self.atol) ** 0.5, terminated, truncated, info


class RescaleAction(VectorWrapper):
    """Actions in `[low, high]` instead of [-1, 1].

    The bounds are kept in float64; the action space holds them in float32, as Gymnasium's do. Both kinds of bound are
    actions, and are executed as -1 and 1. What lies outside is left to the environment, which refuses it.

    Args:
        env: A vector environment with actions in [-1, 1].
        low: Lower bounds, a number or `(m,)`.
        high: Upper bounds.

    Raises:
        ShapeError: The bounds do not fit the actions of `env`.
        ValueError: They are not finite, or `low < high` fails in float32.
    """

    def __init__(self, env: VectorEnv, low: Any, high: Any) -> None:
        super().__init__(env)
        shape = env.single_action_space.shape or ()
        self.low, self.high = (self._bounds(name, b, shape) for name, b in (("low", low), ("high", high)))
        with np.errstate(over="ignore"):  # refused below
            space_low, space_high = self.low.astype(np.float32), self.high.astype(np.float32)
        if not (np.isfinite(space_low) & np.isfinite(space_high) & (space_low < space_high)).all():
            raise ValueError(
                f"RescaleAction: expected finite low < high in float32, got {self.low.tolist()} and "
                f"{self.high.tolist()}. No action could be told from another; choose a wider range or another unit."
            )
        self.single_action_space = gymnasium.spaces.Box(space_low, space_high, dtype=np.float32)
        self.action_space = batch_space(self.single_action_space, env.num_envs)

    @staticmethod
    def _bounds(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        bounds = np.asarray(value, dtype=np.float64)
        if bounds.shape not in ((), shape):
            raise ShapeError(
                f"RescaleAction: expected {name} as a number or of shape {shape}, got {bounds.shape}. Give one bound "
                f"for each input."
            )
        return np.broadcast_to(bounds, shape).copy()

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        xp = namespace(actions)
        exact = actions.astype(np.float64) if xp is np else actions.double()
        space_low, space_high = self.low.astype(np.float32), self.high.astype(np.float32)
        # a bound of either precision is an action, so that the farther of the two is the end of the box
        ends = np.minimum(self.low, space_low), np.maximum(self.high, space_high)
        low, high, least, most = (constant(b, exact, xp) for b in (self.low, self.high, *ends))
        scaled = 2.0 * (exact - low) / (high - low) - 1.0
        # rounding of the bounds and of this formula alone must not carry an action out of [-1, 1]
        inside = (exact >= least) & (exact <= most)
        return self.env.step(xp.where(inside, xp.clip(scaled, -1.0, 1.0), scaled))


class ClipAction(VectorWrapper):
    """Actions clipped to the box; NaN is left to the environment, which refuses it."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        shape = env.single_action_space.shape
        self.single_action_space = gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)
        self.action_space = batch_space(self.single_action_space, env.num_envs)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        space = self.env.single_action_space
        xp = namespace(actions)
        low, high = constant(space.low, actions, xp), constant(space.high, actions, xp)  # pyright: ignore
        return self.env.step(xp.minimum(xp.maximum(actions, low), high))
