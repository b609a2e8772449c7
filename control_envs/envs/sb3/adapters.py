"""The vector environment and a policy with a layer, as Stable-Baselines3 wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from control_envs.envs.safety import Layer
from control_envs.errors import MissingExtraError

try:
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:  # pragma: no cover
    raise MissingExtraError(
        "control_envs.envs.sb3 needs stable-baselines3: pip install 'constrained-nn[rl]'."
    ) from error


class Sb3VecEnv(VecEnv):
    """A `ControlVectorEnv`, wrapped or not, as a Stable-Baselines3 `VecEnv`.

    Each `infos[i]` holds `cost`, `violation` and what wrappers report for every copy (such as `intervened`); where an
    episode ends also `terminal_observation`, `TimeLimit.truncated` and `episode` (return `r`, length `l`, `cost` and
    number of `violations`).

    Args:
        env: A vector environment with `autoreset_mode="SameStep"` and `to_numpy=True`.

    Raises:
        ValueError: The environment resets in another way, or returns tensors.
    """

    def __init__(self, env: VectorEnv) -> None:
        if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"Sb3VecEnv: expected autoreset_mode='SameStep', got {env.metadata.get('autoreset_mode')}. Stable-"
                f"Baselines3 wants the observation of the new episode in the step that ends the old one."
            )
        if not getattr(env.unwrapped, "to_numpy", True):
            raise ValueError("Sb3VecEnv: expected to_numpy=True; Stable-Baselines3 takes NumPy arrays.")
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.render_mode = env.render_mode
        self._totals = {key: np.zeros(env.num_envs) for key in ("r", "l", "cost", "violations")}

    def reset(self) -> np.ndarray:
        seeds = self._seeds if any(seed is not None for seed in self._seeds) else None
        observation, _ = self.env.reset(seed=seeds)  # pyright: ignore[reportArgumentType]
        self._reset_seeds()
        self._reset_options()
        for total in self._totals.values():
            total[:] = 0.0
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observation, reward, terminated, truncated, info = self.env.step(self._actions)
        done = terminated | truncated
        told = info.get("final_info", info)
        told = {
            k: np.where(done, told[k], info[k]) if told is not info else info[k]
            for k in ("cost", "violation")
        }
        n = self.num_envs
        told |= {k: v for k, v in info.items() if k in ("intervened", "filter_ok") and len(v) == n}
        gains = {"r": reward, "l": np.ones(n), "cost": told["cost"], "violations": told["violation"]}
        for key, gain in gains.items():
            self._totals[key] += gain
        keys, columns = list(told), [v.tolist() for v in told.values()]
        infos: list[dict[str, Any]] = [
            dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)
        ]
        for i in np.flatnonzero(done):
            infos[i]["terminal_observation"] = info["final_obs"][i]
            infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
            infos[i]["episode"] = {k: float(v[i]) for k, v in self._totals.items()} | {"t": 0.0}
        for total in self._totals.values():
            total[done] = 0.0
        return observation, reward.astype(np.float32), done, infos

    def close(self) -> None:
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        return self.env.render() or [None] * self.num_envs  # pyright: ignore[reportReturnType]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        source = self.env if hasattr(self.env, attr_name) else self.env.unwrapped
        return [getattr(source, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError("Sb3VecEnv.set_attr: the copies share their attributes; leave `indices` out.")
        setattr(self.env.unwrapped, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        result = getattr(self.env.unwrapped, method_name)(*args, **kwargs)
        return [result] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        env: Any = self.env
        while not isinstance(env, wrapper_class) and hasattr(env, "env"):
            env = env.env
        return [isinstance(env, wrapper_class)] * len(list(self._get_indices(indices)))


class LayerPolicy(ActorCriticPolicy):
    """A Stable-Baselines3 policy whose mean action passes through a constraint layer, with gradient.

    The layer sits inside the network, so that learning sees it; exploration noise is added behind it. Put a
    `VectorSafetyFilter` in front of the plant as well to bound what is executed.

    Args:
        constraint: Function `observation -> set` of actions in [-1, 1], for observations `(batch, k)`.
        layer: Anything with `solve(y, set)` that returns `value`.
        args, kwargs: Those of `ActorCriticPolicy`; `constraint` and `layer` come by `policy_kwargs`.
    """

    def __init__(self, *args: Any, constraint: Callable[[Tensor], Any], layer: Layer, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.constraint, self.layer = constraint, layer
        self._observation: Any = None

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        self._observation = obs
        return super().forward(obs, deterministic)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> Any:
        self._observation = obs
        return super().evaluate_actions(obs, actions)

    def get_distribution(self, obs: Any) -> Any:
        self._observation = obs
        return super().get_distribution(obs)

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Any:
        raw = self.action_net(latent_pi)
        mean = self.layer.solve(raw, self.constraint(self._observation)).value
        return self.action_dist.proba_distribution(mean, self.log_std)  # pyright: ignore[reportCallIssue]
