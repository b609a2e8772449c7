"""The single environment: one task in NumPy, float64 inside, fast at batch one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from control_envs.disturbances import Disturbance
from control_envs.dynamics import Dynamics
from control_envs.envs.interface import ACTION_ATOL, Interface
from control_envs.errors import ActionError, EpisodeError, NonFiniteError
from control_envs.scenarios import Parameters, Scenarios
from control_envs.tasks import Task


class ControlEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A task as a Gymnasium environment.

    Action in `[-1, 1]^m`, scaled to the task's input limits in SI units and held for one control interval.
    Observation: the task's features as float32, in a finite box; a state that leaves its region ends the episode
    by truncation, as does the horizon. Reward: minus the cost of the interval. No state is terminal.

    `info` holds `cost` (sum of max(g, 0) over the constraints), `cost_indicator` (0 or 1), `constraints` (g by
    name, in its unit; `g <= 0` is safe), `margin` (−max g), `violation` (whether any g > 0), and, in float64,
    `state`, `measurement` (the state with its disturbance: what is observed, and what controllers and filters
    see), `input` (the SI input that was held, disturbance included; NaN after a reset) and `time` [s]. Constraints
    are evaluated in float64 on the true state at the end of the interval, never on the observation.

    Args:
        task: A task, or its name.
        render_mode: None, `"rgb_array"`, or `"human"` (a window where there is a display; headless it draws
            and shows nothing).
        horizon: Control intervals after which the episode is truncated; default the task's.
        parameters: Values or laws (`disturbances.Uniform(...)`) of parameters of the true plant, by name.
        disturbance: Replaces the task's disturbance of the dynamics (`disturbances.Constant(0.0)`: none).
        input_disturbance: Added to the input in SI units, behind the limits of the action, or None.
        measurement_disturbance: Added to the state that is observed, one channel a state, or None.
        scenarios: Table whose rows are played in turn instead of fresh draws.
        prior: The plant that controllers may know (`env.prior`); default the task's plant.

    Raises:
        ActionError: An action has the wrong shape, is NaN, or lies outside the box.
        EpisodeError: `step` was called before `reset`, or after the episode ended.
        NonFiniteError: The physics became NaN or infinite.
        UnknownTaskError: No task has this name.
        ValueError: A parameter, disturbance or table does not fit the task.

    Example:
        >>> env = ControlEnv("pendulum")
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        >>> info["cost"], info["violation"]
        (0.0, False)
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(
        self,
        task: Task | str,
        *,
        render_mode: str | None = None,
        horizon: int | None = None,
        parameters: Parameters | None = None,
        disturbance: Disturbance | None = None,
        input_disturbance: Disturbance | None = None,
        measurement_disturbance: Disturbance | None = None,
        scenarios: Scenarios | None = None,
        prior: Dynamics | None = None,
    ) -> None:
        self.interface = Interface(
            task,
            horizon=horizon,
            parameters=parameters,
            disturbance=disturbance,
            input_disturbance=input_disturbance,
            measurement_disturbance=measurement_disturbance,
            scenarios=scenarios,
            prior=prior,
        )
        self.metadata = self.interface.metadata()
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"render_mode: expected one of {self.metadata['render_modes']} or None, got '{render_mode}'."
            )
        self.render_mode = render_mode
        self.task = self.interface.task
        self.prior = self.interface.prior
        self.plant = self.task.plant
        self.action_space = self.interface.action_space
        self.observation_space = self.interface.observation_space
        self._renderer: Any = None
        self._seed: int | None = None
        self._episode = -1
        self._running = False
        self._x = np.empty(0)
        self._steps = 0

    @property
    def state(self) -> np.ndarray:
        """The state `(n,)` in float64, a copy."""
        return self._x.copy()

    @property
    def measurement(self) -> np.ndarray:
        """The state as it is observed `(n,)`, a copy."""
        table = self._noise
        return self._x.copy() if table is None else self._x + table[min(self._steps, len(table) - 1)]

    @property
    def time(self) -> float:
        """Time since the start of the episode [s]."""
        return self._steps * self.task.dt

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the next scenario of the seed; `options={"scenario": k}` begins scenario k, `{"state": x}` at x."""
        super().reset(seed=seed)
        options = options or {}
        if seed is not None or self._seed is None:
            self._seed = int(self.np_random.integers(2**63)) if seed is None else int(seed)
            self._episode = -1
        self._episode = int(options.get("scenario", self._episode + 1))
        scenario = self.interface.scenario(self._seed, self._episode)
        self.plant = self.interface.plant(scenario.parameters)
        self._disturbance = scenario.disturbance
        self._push, self._noise = scenario.input, scenario.measurement
        self._x = self._start(options["state"]) if "state" in options else scenario.start
        self._steps = 0
        self._running = True
        u = np.full(self.task.plant.input_dim, np.nan)
        info = self._info(self.interface.center)
        info["input"] = u
        if self.render_mode == "human":
            self.render()
        return self._observe(), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if not self._running:
            raise EpisodeError(
                "ControlEnv.step: the episode has not begun or is over; nothing was simulated. Call `reset()`."
            )
        interface, task = self.interface, self.task
        u = interface.center + interface.half * self._checked(action)
        if self._push is not None:
            u = u + self._push[min(self._steps, len(self._push) - 1)]
        x, t = self._x, self._steps * task.dt
        reward = -task.dt * float(task.stage_cost(t, x, u))
        table = self._disturbance
        w = None if table is None else table[min(self._steps, len(table) - 1)]
        x = task.integrator.step(self.plant, t, x, u, w, task.dt, np)
        if not np.isfinite(x).all():
            self._running = False
            bad = task.plant.state[int(np.flatnonzero(~np.isfinite(x))[0])].name
            raise NonFiniteError(
                f"ControlEnv.step: state '{bad}' of {type(self.plant).__name__} is not finite after t = "
                f"{t + task.dt:g} s (from state {self._x.tolist()} under input {u.tolist()}). Use a smaller dt, or "
                f"more substeps of the integrator; `reset()` begins a new episode."
            )
        self._x = x
        self._steps += 1
        left = bool(((x < task.state_low) | (x > task.state_high)).any())
        truncated = left or self._steps >= interface.horizon
        self._running = not truncated
        if self.render_mode == "human":
            self.render()
        return self._observe(), reward, False, truncated, self._info(u)

    def render(self) -> np.ndarray | None:
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() without a render_mode: build the env with render_mode='rgb_array'."
            )
            return None
        if not self._running and not self._x.size:
            raise EpisodeError("ControlEnv.render: nothing to draw before the first `reset()`.")
        if self._renderer is None:
            from control_envs.envs.rendering import Renderer

            self._renderer = Renderer(self.task, window=self.render_mode == "human")
        frame = self._renderer.frame(self._x, self.time, self.plant)
        return frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None}

    def _checked(self, action: Any) -> np.ndarray:
        a = np.asarray(action, dtype=np.float64)
        m = self.interface.center.size
        if a.shape != (m,):
            raise ActionError(
                f"ControlEnv.step: expected action of shape ({m},), got {a.shape}. Its entries are scaled from "
                f"[-1, 1] to {self.interface.describe_action()}."
            )
        # Written so that NaN fails; comparisons of scalars cost a tenth of those of arrays.
        for i, value in enumerate(a.tolist()):
            if not -1.0 - ACTION_ATOL <= value <= 1.0 + ACTION_ATOL:
                raise ActionError(
                    f"ControlEnv.step: expected action in [-1, 1], got {value} for "
                    f"'{self.task.plant.input[i].name}'; nothing was simulated. Wrap the env in "
                    f"gymnasium.wrappers.ClipAction, or repair the policy if it is NaN."
                )
        return np.minimum(np.maximum(a, -1.0), 1.0)

    def _start(self, state: Any) -> np.ndarray:
        x = np.array(state, dtype=np.float64)
        if x.shape != (self.task.plant.state_dim,) or not np.isfinite(x).all():
            raise ValueError(
                f"ControlEnv.reset: expected options['state'] of {self.task.plant.state_dim} finite numbers, got "
                f"{state}."
            )
        return x

    def _observe(self) -> np.ndarray:
        x = self._x if self._noise is None else self.measurement
        features = self.task.features(self._steps * self.task.dt, x).astype(np.float32)
        return np.minimum(np.maximum(features, self.interface.feature_low), self.interface.feature_high)

    def _info(self, u: np.ndarray) -> dict[str, Any]:
        t = self._steps * self.task.dt
        values = {c.name: float(c.g(t, self._x, u)) for c in self.task.constraints}
        worst = max(values.values(), default=-np.inf)
        return {
            "cost": float(sum(max(g, 0.0) for g in values.values())),
            "cost_indicator": float(worst > 0.0),
            "constraints": values,
            "margin": -worst,
            "violation": worst > 0.0,
            "state": self._x.copy(),
            "measurement": self.measurement,
            "input": u.copy(),
            "time": t,
        }
