"""Other interfaces: Safety-Gymnasium's six values, flat `info` for TorchRL, and controllers as policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv, VectorWrapper
from torch import Tensor


class SafetyGymnasium(gymnasium.Wrapper):
    """`step` returns `(observation, reward, cost, terminated, truncated, info)`.

    `cost` is `info["cost"]`, or its indicator 0/1 as is that benchmark's default; `info` adds `cost_<name>` for every
    constraint and `cost_sum`.

    Args:
        env: A `ControlEnv`, wrapped or not.
        indicator: Costs as 0 or 1.
    """

    def __init__(self, env: gymnasium.Env, *, indicator: bool = True) -> None:
        super().__init__(env)
        self.indicator = indicator

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        costs = {f"cost_{name}": max(g, 0.0) for name, g in info["constraints"].items()}
        if self.indicator:
            costs = {name: float(cost > 0.0) for name, cost in costs.items()}
        total = info["cost_indicator"] if self.indicator else info["cost"]
        return (
            observation,
            reward,
            total,
            terminated,
            truncated,
            info | costs | {"cost_sum": sum(costs.values())},
        )


class FlatInfo(VectorWrapper):
    """`info["constraints"]` as one entry `info["constraint/NAME"]` a constraint, also in `final_info`.

    TorchRL's `GymWrapper` needs it in the autoreset mode `"SameStep"`; it takes no nested dictionaries there.

    Args:
        env: A `ControlVectorEnv`, wrapped or not.
    """

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.autoreset_mode = env.metadata["autoreset_mode"]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, _flat(info)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(actions)
        return observation, reward, terminated, truncated, _flat(info)


def _flat(info: dict[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in info.items() if key != "constraints"}
    if "final_info" in info:
        flat["final_info"] = _flat(info["final_info"])
    return flat | {f"constraint/{name}": g for name, g in info["constraints"].items()}


class ControllerPolicy:
    """A controller as a policy of an environment: `(observation, info) -> action` in [-1, 1].

    The controller sees the float64 measurement and the time in `info`, not the observation. A dynamic controller
    (`state_dim > 0`, `controller(t, x, reference, z) -> (u, z_dot)`) has its state `z` integrated by explicit Euler
    and set to zero where an episode begins.

    Args:
        controller: Function or module `(t, x) -> u` in SI units, `x` `(batch, n)`; or a dynamic one.
        env: The environment that it is to act in.
        reference: Passed to a dynamic controller.
    """

    def __init__(self, controller: Callable[..., Any], env: Any, *, reference: Any = None) -> None:
        self.controller, self.reference = controller, reference
        plain = env.unwrapped
        self.interface, self.task = plain.interface, plain.task
        self.state_dim = int(getattr(controller, "state_dim", 0))
        self._z: Tensor | None = None

    def __call__(self, observation: Any, info: dict[str, Any]) -> Any:
        x = torch.as_tensor(info["measurement"])
        single = x.ndim == 1
        x = x[None] if single else x
        t = torch.as_tensor(info["time"], dtype=x.dtype).reshape(-1).expand(len(x))
        u = self._input(t, x)
        center, half = (
            torch.as_tensor(b, dtype=x.dtype) for b in (self.interface.center, self.interface.half)
        )
        action = ((u - center.to(u)) / half.to(u)).clamp(-1.0, 1.0)
        action = action[0] if single else action
        return action if isinstance(info["measurement"], Tensor) else action.detach().numpy()

    def _input(self, t: Tensor, x: Tensor) -> Tensor:
        if not self.state_dim:
            return self.controller(t, x)
        if self._z is None or len(self._z) != len(x):
            self._z = x.new_zeros(len(x), self.state_dim)
        z = torch.where((t == 0.0)[:, None], torch.zeros_like(self._z), self._z)
        u, z_dot = self.controller(t, x, self.reference, z)
        self._z = z + self.task.dt * z_dot
        return u


def as_policy(controller: Callable[..., Any], env: Any, *, reference: Any = None) -> ControllerPolicy:
    """A controller as a policy `(observation, info) -> action` of `env`; see `ControllerPolicy`.

    Example:
        >>> from control_envs.envs import make
        >>> env = make("Pendulum-v0")
        >>> policy = as_policy(env.unwrapped.task.nominal, env)
        >>> observation, info = env.reset(seed=0)
        >>> bool(abs(policy(observation, info)) <= 1)
        True
    """
    return ControllerPolicy(controller, env, reference=reference)


def evaluate(
    policy: Callable[[Any, dict[str, Any]], Any], env: Any, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Play one episode in every copy of a vector environment (autoreset `Disabled`, NumPy).

    Returns:
        `return`, `cost`, `violations` (steps with a violated constraint), `margin` (smallest), `length`, each
        `(num_envs,)`.
    """
    observation, info = env.reset(seed=seed)
    n = env.num_envs
    result = {k: np.zeros(n) for k in ("return", "cost", "violations", "length")}
    result["margin"] = np.array(info["margin"])
    alive = np.ones(n, dtype=bool)
    while alive.any():
        action = policy(observation, info)
        observation, reward, terminated, truncated, info = env.step(action)
        told = {"return": reward, "cost": info["cost"], "violations": info["violation"], "length": 1.0}
        for key, gain in told.items():
            result[key] = result[key] + np.where(alive, gain, 0.0)
        result["margin"] = np.where(alive, np.minimum(result["margin"], info["margin"]), result["margin"])
        done = terminated | truncated
        alive = alive & ~done
        if done.any():
            observation, info = env.reset(options={"reset_mask": done})
    return result
