"""A second simulator: a torque-limited seven-joint arm in MuJoCo; needs the extra `mujoco`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from control_envs.envs.interface import ACTION_ATOL
from control_envs.errors import ActionError, EpisodeError, MissingExtraError, NonFiniteError

_MODEL = Path(__file__).parent / "models" / "arm7.xml"
JOINTS = 7
JOINT_LIMIT = np.array([2.8, 1.8, 2.8, 2.2, 2.8, 2.0, 2.9])  # [rad]
SPEED_LIMIT = np.array([2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0])  # [rad/s]
HOME = np.array([-0.6, 0.6, 0.0, 1.2, 0.0, 0.4, 0.0])  # [rad]
SPEED_REGION = 60.0  # [rad/s], beyond it the episode is truncated


@dataclass(frozen=True)
class ArmLimits:
    """What a safety filter needs to know of the actuators; the brake is damping on top of gravity."""

    env: ArmEnv
    input_low: np.ndarray
    input_high: np.ndarray
    dt: float

    def brake(self, t: Any, x: Any) -> Any:
        """Torques `(batch, 7)` that hold the arm against gravity and slow it down."""
        model = self.env.equations(x[0].detach().cpu().numpy())
        return x.new_tensor(model["bias"])[None] - 8.0 * x[:, JOINTS:]


@dataclass(frozen=True)
class ArmInterface:
    """Scaling of actions."""

    center: np.ndarray
    half: np.ndarray


class ArmEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A seven-joint arm moves its tip to a point, past a ball that it may not enter.

    Action: torques in [-1, 1], scaled to ±(60, 60, 40, 40, 15, 15, 8) N m and held for 0.02 s (ten steps of the
    simulator). Observation, float32: joint angles [rad], joint speeds [rad/s], tip position [m]. Reward: minus
    `dt (10 |tip − goal|² + 0.01 |q'|² + 1e-5 |τ|²)`. 200 intervals; joint speeds beyond 60 rad/s truncate.

    Constraints, worst over the ten steps: `joint-limit` [rad], `speed-limit` [rad/s], `keep-out` (the tip and a ball
    of 0.12 m around (0.6, 0.02, 0.52)) [m]. `info` as in `ControlEnv`, the state being `(q, q')` in float64.

    Args:
        render_mode: None, `"rgb_array"`, or `"human"` (draws; shows nothing). Frames come from MuJoCo where it
            finds OpenGL, else from Matplotlib.
        horizon: Control intervals after which the episode is truncated.

    Raises:
        MissingExtraError: MuJoCo is not installed.
        ActionError: An action has the wrong shape, is NaN, or lies outside the box.
        EpisodeError: `step` before `reset`, or after the episode ended.
        NonFiniteError: The simulation became NaN or infinite.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self, *, render_mode: str | None = None, horizon: int = 200) -> None:
        self._mujoco = _import_mujoco()
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"render_mode: expected one of {self.metadata['render_modes']} or None, got '{render_mode}'."
            )
        self.render_mode, self.horizon = render_mode, horizon
        self.model = self._mujoco.MjModel.from_xml_path(str(_MODEL))
        self.data = self._mujoco.MjData(self.model)
        self._scratch = self._mujoco.MjData(self.model)
        self.steps_per_action = 10
        self.dt = self.steps_per_action * self.model.opt.timestep
        high = self.model.actuator_ctrlrange[:, 1].copy()
        self.task = ArmLimits(self, -high, high, self.dt)
        self.interface = ArmInterface(np.zeros(JOINTS), high)
        self._tip = self.model.site("tip").id
        self.goal, self.center = (self.model.site(name).pos.copy() for name in ("goal", "keep_out"))
        self.radius = float(self.model.site("keep_out").size[0])
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (JOINTS,), np.float32)
        bound = np.array([4 * np.pi] * JOINTS + [SPEED_REGION] * JOINTS + [1.5] * 3, dtype=np.float32)
        self.observation_space = gymnasium.spaces.Box(-bound, bound, dtype=np.float32)
        self._seed: int | None = None
        self._episode, self._steps, self._running = -1, 0, False
        self._renderer: Any = None

    @property
    def state(self) -> np.ndarray:
        """`(q, q')` `(14,)` in float64, a copy."""
        return np.concatenate([self.data.qpos, self.data.qvel])

    @property
    def measurement(self) -> np.ndarray:
        """The state as controllers and filters see it; here without disturbance."""
        return self.state

    @property
    def time(self) -> float:
        """Time since the start of the episode [s]."""
        return self._steps * self.dt

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin at the home pose ±0.1 rad, drawn by (seed, episode); `options={"state": x}` begins at x."""
        super().reset(seed=seed)
        if seed is not None or self._seed is None:
            self._seed = int(self.np_random.integers(2**63)) if seed is None else int(seed)
            self._episode = -1
        self._episode += 1
        key = np.array([self._seed % 2**64, self._episode], dtype=np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key))
        start = np.concatenate([HOME + rng.uniform(-0.1, 0.1, JOINTS), np.zeros(JOINTS)])
        if options and "state" in options:
            start = np.asarray(options["state"], dtype=float)
        self._mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = start[:JOINTS], start[JOINTS:]
        self._mujoco.mj_forward(self.model, self.data)
        self._steps, self._running = 0, True
        info = self._info(self._constraints(), np.full(JOINTS, np.nan))
        if self.render_mode == "human":
            self.render()
        return self._observe(), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if not self._running:
            raise EpisodeError("ArmEnv.step: the episode has not begun or is over. Call `reset()`.")
        u = self.interface.half * self._checked(action)
        reach = self.data.site_xpos[self._tip] - self.goal
        cost = 10.0 * reach @ reach + 0.01 * self.data.qvel @ self.data.qvel + 1e-5 * u @ u
        self.data.ctrl[:] = u
        worst: dict[str, float] = {}
        for _ in range(self.steps_per_action):
            self._mujoco.mj_step(self.model, self.data)
            self._mujoco.mj_kinematics(self.model, self.data)  # positions of the new state
            now = self._constraints()
            worst = {name: max(g, worst.get(name, -np.inf)) for name, g in now.items()}
        self._steps += 1
        if not np.isfinite(self.state).all():
            self._running = False
            raise NonFiniteError(
                f"ArmEnv.step: the simulation is not finite after t = {self.time:g} s. Call `reset()`."
            )
        left = bool(
            (np.abs(self.data.qvel) > SPEED_REGION).any() or (np.abs(self.data.qpos) > 4 * np.pi).any()
        )
        truncated = left or self._steps >= self.horizon
        self._running = not truncated
        if self.render_mode == "human":
            self.render()
        return self._observe(), -self.dt * float(cost), False, truncated, self._info(worst, u)

    def equations(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Equations of motion at a state `(14,)`: `M q'' + bias = τ`, and of the tip: `tip'' = J q'' + J' q'`.

        Returns:
            `M` `(7, 7)`, `bias` `(7,)` (with damping), `tip` `(3,)`, `J` `(3, 7)`, `J_dot_v` `(3,)`.
        """
        mj, data = self._mujoco, self._scratch
        J, moved, h = np.zeros((3, JOINTS)), np.zeros((3, JOINTS)), 1e-6
        rate = np.array(x[JOINTS:])
        data.qpos[:], data.qvel[:] = x[:JOINTS] + h * rate, rate
        mj.mj_forward(self.model, data)
        mj.mj_jacSite(self.model, data, moved, None, self._tip)
        data.qpos[:] = x[:JOINTS]
        mj.mj_forward(self.model, data)
        mj.mj_jacSite(self.model, data, J, None, self._tip)
        M = np.zeros((JOINTS, JOINTS))
        for row, unit in zip(M, np.eye(JOINTS), strict=True):
            mj.mj_mulM(self.model, data, row, unit)  # the same call in every version of MuJoCo
        bias = data.qfrc_bias - data.qfrc_passive
        return {
            "M": M,
            "bias": bias.copy(),
            "tip": data.site_xpos[self._tip].copy(),
            "J": J,
            "J_dot_v": (moved - J) @ rate / h,
        }

    def safe_torques(
        self, x: np.ndarray, *, margin: float = 0.05
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows `lower <= A τ <= upper` `(15, 7)` that keep limits and keep-out, and the torque limits.

        Joint accelerations keep the speed after one interval within `min(limit, 4 (angle limit − |q|))`; the tip
        obeys a barrier of relative degree 2 around the ball; limits are drawn in by `margin` (5 %).
        """
        model = self.equations(x)
        q, rate = x[:JOINTS], x[JOINTS:]
        inverse = np.linalg.inv(model["M"])
        free = -inverse @ model["bias"]
        near = 1.0 - margin
        top = np.minimum(near * SPEED_LIMIT, 4.0 * (near * JOINT_LIMIT - q))
        bottom = np.maximum(-near * SPEED_LIMIT, -4.0 * (near * JOINT_LIMIT + q))
        gap, velocity = model["tip"] - self.center, model["J"] @ rate
        h = gap @ gap - ((1.0 + 2.0 * margin) * self.radius) ** 2
        slope, bend = 2.0 * gap @ velocity, 2.0 * velocity @ velocity
        push = 2.0 * gap @ model["J"]  # h'' = push q'' + bend + 2 gap J' q'
        rest = bend + 2.0 * gap @ model["J_dot_v"] + push @ free + 16.0 * slope + 64.0 * h
        A = np.concatenate([inverse, (push @ inverse)[None], np.eye(JOINTS)])
        lower = np.concatenate([(bottom - rate) / (2 * self.dt) - free, [-rest], self.task.input_low])
        upper = np.concatenate([(top - rate) / (2 * self.dt) - free, [np.inf], self.task.input_high])
        return A, lower, upper

    def nominal(self, t: Any, x: Any) -> Any:
        """Torques `(1, 7)` that pull the tip straight to the goal, blind to every constraint."""
        state = x[0].detach().cpu().numpy()
        model = self.equations(state)
        pull = np.clip(120.0 * (self.goal - model["tip"]), -60.0, 60.0)
        return x.new_tensor(model["bias"] + model["J"].T @ pull - 4.0 * state[JOINTS:])[None]

    def render(self) -> np.ndarray | None:
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() without a render_mode: build the env with render_mode='rgb_array'."
            )
            return None
        if self._renderer is None:
            self._renderer = _GLPictures(self) if _has_gl(self) else _LinePictures(self)
        frame = self._renderer.frame()
        return frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None, "_mujoco": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._mujoco = _import_mujoco()

    def _constraints(self) -> dict[str, float]:
        away = float(np.linalg.norm(self.data.site_xpos[self._tip] - self.center))
        return {
            "joint-limit": float((np.abs(self.data.qpos) - JOINT_LIMIT).max()),
            "speed-limit": float((np.abs(self.data.qvel) - SPEED_LIMIT).max()),
            "keep-out": self.radius - away,
        }

    def _checked(self, action: Any) -> np.ndarray:
        a = np.asarray(action, dtype=np.float64)
        if a.shape != (JOINTS,):
            raise ActionError(f"ArmEnv.step: expected action of shape ({JOINTS},), got {a.shape}.")
        if not (np.abs(a) <= 1.0 + ACTION_ATOL).all():
            raise ActionError(
                f"ArmEnv.step: expected action in [-1, 1], got {a.tolist()}; nothing was simulated. Wrap the env in "
                f"gymnasium.wrappers.ClipAction, or repair the policy if it is NaN."
            )
        return np.clip(a, -1.0, 1.0)

    def _observe(self) -> np.ndarray:
        values = np.concatenate([self.state, self.data.site_xpos[self._tip]]).astype(np.float32)
        return np.clip(values, self.observation_space.low, self.observation_space.high)  # pyright: ignore

    def _info(self, values: dict[str, float], u: np.ndarray) -> dict[str, Any]:
        worst = max(values.values())
        return {
            "cost": sum(max(g, 0.0) for g in values.values()),
            "cost_indicator": float(worst > 0.0),
            "constraints": values,
            "margin": -worst,
            "violation": worst > 0.0,
            "state": self.state,
            "measurement": self.measurement,
            "input": u.copy(),
            "time": self.time,
        }


class _GLPictures:
    """Frames by MuJoCo's own renderer."""

    def __init__(self, env: ArmEnv) -> None:
        self._env = env
        self._renderer = env._mujoco.Renderer(env.model, 360, 480)

    def frame(self) -> np.ndarray:
        self._renderer.update_scene(self._env.data, camera="side")
        return self._renderer.render().copy()

    def close(self) -> None:
        self._renderer.close()


class _LinePictures:
    """Frames by Matplotlib, where there is no OpenGL: the arm seen from the side."""

    def __init__(self, env: ArmEnv) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._env, self._figure = env, Figure(figsize=(4.8, 3.6), dpi=100)
        FigureCanvasAgg(self._figure)

    def frame(self) -> np.ndarray:
        env = self._env
        self._figure.clear()
        ax = self._figure.add_subplot()
        points = np.concatenate([env.data.xpos[1:], env.data.site_xpos[env._tip][None]])
        ax.plot(points[:, 0], points[:, 2], "o-", linewidth=3)
        ax.add_patch(_disc(env.center[[0, 2]], env.radius))
        ax.plot(*env.goal[[0, 2]], "g*")
        ax.set(xlim=(-0.8, 1.2), ylim=(-0.2, 1.3), aspect="equal", title=f"t = {env.time:.2f} s")
        self._figure.canvas.draw()
        return np.asarray(self._figure.canvas.buffer_rgba())[..., :3].copy()  # pyright: ignore

    def close(self) -> None:
        self._figure.clear()


def _disc(center: np.ndarray, radius: float) -> Any:
    from matplotlib.patches import Circle

    return Circle((float(center[0]), float(center[1])), radius, color="tab:red", alpha=0.4)


def _has_gl(env: ArmEnv) -> bool:
    try:
        _GLPictures(env).close()
    except Exception:  # whatever the driver raises
        return False
    return True


def _import_mujoco() -> Any:
    if "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")  # read once, when MuJoCo is first imported
    try:
        import mujoco  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError("ArmEnv needs MuJoCo: pip install 'constrained-nn[mujoco]'.") from error
    return mujoco
