"""The vector environment: one task, many copies, in torch on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from control_envs.disturbances import Disturbance
from control_envs.dynamics import Dynamics
from control_envs.envs.episodes import Episodes
from control_envs.envs.interface import ACTION_ATOL, Interface
from control_envs.errors import ActionError, EpisodeError, NonFiniteError
from control_envs.scenarios import Parameters, Scenarios
from control_envs.tasks import Task


class ControlVectorEnv(VectorEnv[Any, Any, Any]):
    """A task as a native Gymnasium vector environment.

    Spaces, scaling, rewards and `info` as in `ControlEnv`, with a leading dimension `num_envs` on every array.
    After `reset(seed=s)`, copy i plays the scenarios `(s + i, 0), (s + i, 1), ...` whatever `num_envs` is, as a
    `ControlEnv` that was reset with `seed=s + i` does.

    Autoreset, by Gymnasium's three modes: `NEXT_STEP` (the call after the end resets that copy, ignores its
    action and returns reward 0), `SAME_STEP` (the observation is that of the new episode; the old one's is in
    `info["final_obs"]` and `info["final_info"]` under the masks `_final_obs` and `_final_info`), `DISABLED` (call
    `reset(options={"reset_mask": mask})`).

    Args:
        task: A task, or its name.
        num_envs: Number of copies.
        autoreset_mode: An `AutoresetMode`, or its value (`"NextStep"`, `"SameStep"`, `"Disabled"`).
        device: Device of states and results.
        dtype: Type of the state; constraints are evaluated in it.
        to_numpy: Return NumPy arrays; else tensors.
        differentiable: Keep the graph through `step`, cut where a copy begins a new episode; `detach()` cuts it
            everywhere. Needs `to_numpy=False`.
        compile: Backend of `torch.compile` for the step (such as `"inductor"`), or None.
        render_mode: None or `"rgb_array"`.
        max_episode_steps: Control intervals after which an episode is truncated; default the task's horizon.
        parameters: Values or laws of parameters of the true plant, by name; they differ between copies.
        disturbance: Replaces the task's disturbance of the dynamics.
        input_disturbance: Added to the input in SI units, behind the limits of the action, or None.
        measurement_disturbance: Added to the state that is observed, one channel a state, or None.
        scenarios: Table to be played: episode e of copy i is row `i + e num_envs`, modulo its length.
        prior: The plant that controllers may know (`env.prior`); default the task's plant.

    Raises:
        ActionError: Actions have the wrong shape, are NaN, or lie outside the box.
        EpisodeError: `step` was called before `reset`, or (`DISABLED`) on an episode that is over.
        NonFiniteError: The physics of a copy became NaN or infinite.
        UnknownTaskError: No task has this name.
        ValueError: Another argument does not fit.

    Example:
        >>> envs = ControlVectorEnv("pendulum", num_envs=3)
        >>> observations, info = envs.reset(seed=0)
        >>> observations, rewards, terminated, truncated, info = envs.step(envs.action_space.sample())
        >>> observations.shape, info["cost"].shape
        ((3, 3), (3,))
    """

    def __init__(
        self,
        task: Task | str,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        to_numpy: bool = True,
        differentiable: bool = False,
        compile: str | None = None,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        parameters: Parameters | None = None,
        disturbance: Disturbance | None = None,
        input_disturbance: Disturbance | None = None,
        measurement_disturbance: Disturbance | None = None,
        scenarios: Scenarios | None = None,
        prior: Dynamics | None = None,
    ) -> None:
        self.interface = Interface(
            task,
            horizon=max_episode_steps,
            parameters=parameters,
            disturbance=disturbance,
            input_disturbance=input_disturbance,
            measurement_disturbance=measurement_disturbance,
            scenarios=scenarios,
            prior=prior,
        )
        if differentiable and to_numpy:
            raise ValueError(
                "ControlVectorEnv: differentiable=True needs to_numpy=False; NumPy has no graph."
            )
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode: expected 'rgb_array' or None, got '{render_mode}'.")
        self.task = self.interface.task
        self.prior = self.interface.prior
        self.plant = self.task.plant
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.interface.metadata(), "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.device, self.dtype = torch.device(device), dtype
        self.to_numpy, self.differentiable = to_numpy, differentiable
        self.single_action_space = self.interface.action_space
        self.single_observation_space = self.interface.observation_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        constants = {
            "center": self.interface.center,
            "half": self.interface.half,
            "state_low": self.task.state_low,
            "state_high": self.task.state_high,
        }
        self._constants = {
            k: torch.as_tensor(v, dtype=dtype, device=self.device) for k, v in constants.items()
        }
        self._feature_low = torch.as_tensor(self.interface.feature_low, device=self.device)
        self._feature_high = torch.as_tensor(self.interface.feature_high, device=self.device)
        self._backend = compile
        self._compiled: Callable[..., Any] | None = None
        self._renderer: Any = None
        self._begun = False
        self._episodes: Episodes
        self._x = torch.empty(0)

    @property
    def state(self) -> Tensor:
        """States `(num_envs, n)`; with `differentiable` they carry the graph."""
        return self._x if self.differentiable else self._x.clone()

    @property
    def measurement(self) -> Tensor:
        """States as they are observed `(num_envs, n)`."""
        noise = self._episodes.sample("measurement", self._steps)
        return self.state if noise is None else self._x + noise

    @property
    def time(self) -> Tensor:
        """Time since the start of each episode `(num_envs,)` [s]."""
        return self._steps.to(self.dtype) * self.task.dt

    def detach(self) -> None:
        """Cut the graph at the present states."""
        self._x = self._x.detach()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes, everywhere or (`options={"reset_mask": mask}`) where the mask is True.

        `options={"state": x}` begins them at states `(num_envs, n)`.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        options = options or {}
        mask = self._mask(options)
        if not self._begun:
            mask = np.ones(self.num_envs, dtype=bool)
            self._episodes = Episodes(
                self.interface,
                [int(s) for s in self.np_random.integers(2**63, size=self.num_envs)],
                dtype=self.dtype,
                device=self.device,
                differentiable=self.differentiable,
            )
            self._begun = True
            n = self.task.plant.state_dim
            self._x = torch.zeros(self.num_envs, n, dtype=self.dtype, device=self.device)
            self._steps = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
            self._done = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self._episodes.reseed(seed, mask)
        with torch.set_grad_enabled(self.differentiable):
            self._restart(np.flatnonzero(mask))
            if "state" in options:
                start = torch.as_tensor(options["state"], dtype=self.dtype, device=self.device)
                if start.shape != self._x.shape:
                    raise ValueError(
                        f"ControlVectorEnv.reset: expected options['state'] of shape {tuple(self._x.shape)}, got "
                        f"{tuple(start.shape)}."
                    )
                rows = torch.as_tensor(mask, device=self.device)[:, None]
                self._x = torch.where(rows, start, self._x)
            u = self._constants["center"].expand(self.num_envs, -1)
            observation, g = self._judge(
                self._x, self.time, u, self._episodes.sample("measurement", self._steps)
            )
        info = self._info(g, u, torch.ones_like(self._done))
        return self._out(observation), self._out(info)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        if not self._begun:
            raise EpisodeError("ControlVectorEnv.step: nothing was simulated; call `reset()` first.")
        with torch.set_grad_enabled(self.differentiable):
            return self._step(self._checked(actions))

    def _step(self, a: Tensor) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        before = self._done
        begun = torch.zeros_like(before)  # copies whose observation is that of a new episode
        if bool(before.any()):
            if self.autoreset_mode == AutoresetMode.DISABLED:
                raise EpisodeError(
                    f"ControlVectorEnv.step: the episode of copy {int(before.nonzero()[0])} is over; nothing was "
                    f"simulated. Call `reset(options={{'reset_mask': terminated | truncated}})`."
                )
            begun = before
            self._restart(before.nonzero()[:, 0].cpu().numpy())
        start, steps = self._x, self._steps
        advance = self._advance_function()
        noise = self._episodes.sample("disturbance", steps), self._episodes.sample("input", steps)
        x, reward, observation, g, u, left, finite = advance(
            start, self.time, a, *noise, self._episodes.sample("measurement", steps + 1)
        )
        self._check_finite(x, finite | begun, start, u)
        self._x, self._steps = x, steps + 1
        truncated = left | (self._steps >= self.interface.horizon)
        if bool(begun.any()):
            self._x = torch.where(begun[:, None], start, x)
            self._steps = torch.where(begun, steps, self._steps)
            truncated = truncated & ~begun
            reward = torch.where(begun, torch.zeros_like(reward), reward)
            observation, g, u = self._judge_again(begun, u)
        info = self._info(g, u, begun)
        self._done = truncated
        if self.autoreset_mode == AutoresetMode.SAME_STEP and bool(truncated.any()):
            final = {
                "final_obs": observation,
                "final_info": info,
                "_final_obs": truncated,
                "_final_info": truncated,
            }
            self._restart(truncated.nonzero()[:, 0].cpu().numpy())
            observation, g, u = self._judge_again(truncated, u)
            info = self._info(g, u, truncated) | final
        terminated = torch.zeros_like(truncated)
        return (
            self._out(observation),
            self._out(reward),
            self._out(terminated),
            self._out(truncated.clone()),
            self._out(info),
        )

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A picture of every copy, or None without a render mode."""
        if self.render_mode is None:
            return None
        if not self._begun:
            raise EpisodeError("ControlVectorEnv.render: nothing to draw before the first `reset()`.")
        if self._renderer is None:
            from control_envs.envs.rendering import Renderer

            self._renderer = Renderer(self.task)
        states, times = self._x.detach().cpu().numpy(), self.time.tolist()
        return tuple(self._renderer.frame(x, t) for x, t in zip(states, times, strict=True))

    def close_extras(self, **kwargs: Any) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None, "_compiled": None}

    def _advance_function(self) -> Callable[..., Any]:
        if self._backend is None:
            return self._advance
        if self._compiled is None:
            self._compiled = torch.compile(
                self._advance, backend=self._backend, fullgraph=True, dynamic=False
            )
        return self._compiled

    def _advance(
        self, x: Tensor, t: Tensor, a: Tensor, w: Tensor | None, push: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, ...]:
        """One control interval of every copy: a pure function of its arguments and the plant."""
        task, constants = self.task, self._constants
        u = constants["center"] + constants["half"] * a
        u = u if push is None else u + push
        reward = -task.dt * task.stage_cost(t, x, u)
        x = task.integrator.step(self.plant, t, x, u, w, task.dt, torch)
        observation, g = self._judge(x, t + task.dt, u, noise)
        left = ((x < constants["state_low"]) | (x > constants["state_high"])).any(-1)
        return x, reward, observation, g, u, left, torch.isfinite(x).all(-1)

    def _judge(self, x: Tensor, t: Tensor, u: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Observations `(num_envs, k)` and constraints `(num_envs, c)`."""
        features = self.task.features(t, x if noise is None else x + noise).to(torch.float32)
        observation = torch.minimum(torch.maximum(features, self._feature_low), self._feature_high)
        values = [c.g(t, x, u) for c in self.task.constraints]
        return observation, torch.stack(values, -1) if values else x[:, :0]

    def _judge_again(self, begun: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Observation, constraints and input after some copies began a new episode."""
        u = torch.where(begun[:, None], self._constants["center"], u)
        observation, g = self._judge(self._x, self.time, u, self._episodes.sample("measurement", self._steps))
        return observation, g, u

    def _info(self, g: Tensor, u: Tensor, begun: Tensor) -> dict[str, Any]:
        worst = g.amax(-1) if g.shape[-1] else torch.full_like(u[:, 0], -torch.inf)
        violation = worst > 0
        return {
            "cost": g.clamp(min=0.0).sum(-1),
            "cost_indicator": violation.to(self.dtype),
            "constraints": {c.name: g[:, j] for j, c in enumerate(self.task.constraints)},
            "margin": -worst,
            "violation": violation,
            "state": self._x.clone(),
            "measurement": self.measurement,
            "input": torch.where(begun[:, None], torch.nan, u),
            "time": self.time,
        }

    def _checked(self, actions: Any) -> Tensor:
        a = torch.as_tensor(actions, device=self.device).to(self.dtype)
        shape = (self.num_envs, self.interface.center.size)
        if a.shape != shape:
            raise ActionError(
                f"ControlVectorEnv.step: expected actions of shape {shape}, got {tuple(a.shape)}. Entries are "
                f"scaled from [-1, 1] to {self.interface.describe_action()}."
            )
        if not self.differentiable:
            a = a.detach()
        inside = a.abs() <= 1.0 + ACTION_ATOL  # False for NaN
        if not bool(inside.all()):
            row, column = (~inside).nonzero()[0].tolist()
            raise ActionError(
                f"ControlVectorEnv.step: expected actions in [-1, 1], got {float(a[row, column])} for "
                f"'{self.task.plant.input[column].name}' of copy {row}; nothing was simulated. Clip the actions "
                f"(`ClipAction`), or repair the policy if it is NaN."
            )
        return a.clamp(-1.0, 1.0)

    def _check_finite(self, x: Tensor, finite: Tensor, start: Tensor, u: Tensor) -> None:
        if bool(finite.all()):
            return
        i = int((~finite).nonzero()[0])
        column = int((~torch.isfinite(x[i])).nonzero()[0])
        time = float(self.time[i]) + self.task.dt
        raise NonFiniteError(
            f"ControlVectorEnv.step: state '{self.task.plant.state[column].name}' of copy {i} is not finite after "
            f"t = {time:g} s (from state {start[i].tolist()} under input {u[i].tolist()}); {int((~finite).sum())} of "
            f"{self.num_envs} copies. The step was not taken. Use a smaller dt, or more substeps of the integrator."
        )

    def _mask(self, options: dict[str, Any]) -> np.ndarray:
        if "reset_mask" not in options:
            return np.ones(self.num_envs, dtype=bool)
        mask = options["reset_mask"]
        mask = mask.cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(
                f"ControlVectorEnv.reset: expected options['reset_mask'] of {self.num_envs} booleans with at least "
                f"one True, got {mask.dtype} of shape {mask.shape} with {int(np.sum(mask != 0))} nonzero."
            )
        return mask

    def _restart(self, rows: np.ndarray) -> None:
        """Put these copies at the start of their next scenario."""
        starts = self._episodes.begin(rows)
        index = torch.as_tensor(rows, device=self.device)
        self._x = self._x.index_copy(0, index, starts)
        self._steps = self._steps.index_fill(0, index, 0)
        self._done = self._done.index_fill(0, index, False)
        values = self._episodes.parameters
        if values and (self.differentiable or self.plant is self.task.plant):
            self.plant = replace(self.task.plant, **values)  # pyright: ignore[reportArgumentType]

    def _out(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._out(v) for key, v in value.items()}
        if not self.to_numpy or not isinstance(value, Tensor):
            return value
        return value.cpu().numpy()
