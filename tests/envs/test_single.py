"""The single environment: Gymnasium's and SB3's own checks, and agreement with `rollout`."""

from __future__ import annotations

import importlib.util
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import control_envs
from control_envs.disturbances import Uniform, White
from control_envs.envs import ControlEnv, ids, make, record
from control_envs.errors import (
    ActionError,
    EpisodeError,
    MissingExtraError,
    NonFiniteError,
    UnknownTaskError,
)
from control_envs.scenarios import Scenarios
from control_envs.simulate import rollout
from control_envs.tasks import TASKS, make_task

pytestmark = pytest.mark.once  # control_envs has no annotations that are checked

every_id = pytest.mark.parametrize("id", ids())
every_task = pytest.mark.parametrize("name", sorted(TASKS))


@every_id
def test_passes_both_checkers_without_a_warning(id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(f"control_envs.envs:{id}").unwrapped)
        check_env_sb3(gymnasium.make(id).unwrapped)


@every_id
def test_spec_survives_json_and_env_survives_pickle(id):
    env = gymnasium.make(id)
    copy = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    again = pickle.loads(pickle.dumps(env.unwrapped))
    action = np.full(env.action_space.shape, 0.25, np.float32)
    first, _ = env.reset(seed=3)
    for other in (copy, again):
        np.testing.assert_array_equal(first, other.reset(seed=3)[0])
    stepped = env.step(action)[0]
    for other in (copy, again):
        np.testing.assert_array_equal(stepped, other.step(action)[0])


@every_task
def test_steps_are_a_rollout(name):
    task = make_task(name)
    env = ControlEnv(task)
    _, info = env.reset(seed=1)
    start, table = info["state"], env._disturbance
    actions = 0.1 * np.random.default_rng(0).uniform(-1, 1, (20, task.plant.input_dim))
    rewards, states = [], [start]
    for action in actions:
        _, reward, terminated, truncated, info = env.step(action)
        assert not terminated
        rewards.append(reward)
        states.append(info["state"])
        if truncated:
            break
    middle, half = 0.5 * (task.input_high + task.input_low), 0.5 * (task.input_high - task.input_low)
    trajectory = rollout(
        env.plant,
        lambda t, x: middle + half * actions[round(t / task.dt)],
        start,
        dt=task.dt,
        horizon=len(rewards),
        integrator=task.integrator,
        disturbance=None if table is None else lambda t, x: table[round(t / task.dt)],
        running={"cost": task.stage_cost},
    )
    np.testing.assert_allclose(states, trajectory.x, rtol=1e-12, atol=1e-12)
    assert -sum(rewards) == pytest.approx(float(trajectory.integrals["cost"]), rel=1e-12)


@every_task
def test_info_reports_constraints_on_the_float64_state(name):
    task = make_task(name)
    env = ControlEnv(task)
    env.reset(seed=0)
    *_, info = env.step(env.action_space.sample())
    values = {c.name: float(c.g(info["time"], info["state"], info["input"])) for c in task.constraints}
    assert info["constraints"] == values
    assert info["cost"] == pytest.approx(sum(max(g, 0.0) for g in values.values()))
    assert info["violation"] is (max(values.values(), default=-1.0) > 0)
    assert info["cost_indicator"] == float(info["violation"])
    assert info["margin"] == -max(values.values(), default=-np.inf)
    assert info["state"].dtype == np.float64


def test_a_violated_constraint_is_reported():
    env = ControlEnv("double-integrator")
    env.reset(seed=0, options={"state": [0.3, 0.9]})
    *_, info = env.step(np.zeros(1))
    assert info["violation"] is True
    assert info["cost"] == pytest.approx((0.3 + 0.05 * 0.9 - 0.1) + (0.9 - 0.7))
    assert info["margin"] == pytest.approx(-0.245)


def test_leaving_the_region_and_the_horizon_truncate():
    env = ControlEnv("double-integrator")
    env.reset(seed=0, options={"state": [2.9, 2.9]})
    observation, _, terminated, truncated, _ = env.step(np.ones(1))
    assert truncated
    assert not terminated
    assert env.observation_space.contains(observation)
    env = ControlEnv("double-integrator", horizon=3)
    env.reset(seed=0)
    assert [env.step(np.zeros(1))[3] for _ in range(3)] == [False, False, True]


def test_make_sets_the_horizon_with_the_time_limit():
    env = make("Pendulum-v0", max_episode_steps=7)
    env.reset(seed=0)
    assert [env.step(np.zeros(1, np.float32))[3] for _ in range(7)] == [False] * 6 + [True]


@every_id
def test_renders_headless(id):
    env = make(id, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert first.dtype == np.uint8
    assert first.shape[2] == 3
    for _ in range(5):
        env.step(env.action_space.sample())
    assert (env.render() != first).any()
    env.close()
    env.close()


def test_record_writes_a_film(tmp_path):
    task = make_task("pendulum")
    states = np.stack([np.linspace(0, 3, 21), np.zeros(21)], -1)
    path = record(task, states, tmp_path / "swing.gif")
    assert path.read_bytes().startswith(b"GIF89a")
    assert [p.name for p in tmp_path.iterdir()] == ["swing.gif"]
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        record(task, states, tmp_path / "swing.avi")


def test_mp4_is_written_where_the_codec_is_installed(tmp_path):
    task = make_task("pendulum")
    states = np.zeros((11, 2))
    if importlib.util.find_spec("imageio_ffmpeg"):
        assert b"ftyp" in record(task, states, tmp_path / "rest.mp4").read_bytes()[:16]
    else:
        with pytest.raises(MissingExtraError, match="imageio-ffmpeg"):
            record(task, states, tmp_path / "rest.mp4")
    assert [p.name for p in tmp_path.iterdir() if p.name != "rest.mp4"] == []


def test_scenarios_are_the_draws_of_the_env_and_survive_a_file(tmp_path):
    task = make_task("pendulum")
    law = {"mass": Uniform(0.8, 1.2)}
    table = Scenarios.draw(task, seed=5, count=4, parameters=law, disturbance=White(0.1))
    env = ControlEnv(task, parameters=law, disturbance=White(0.1))
    for k in range(4):
        _, info = env.reset(seed=5 if k == 0 else None)
        np.testing.assert_array_equal(info["state"], table.starts[k])
        assert env.plant.mass == table.parameters["mass"][k]
        assert env.prior.mass == 1.0
    table.save(tmp_path / "table.npz")
    loaded = Scenarios.load(tmp_path / "table.npz")
    np.testing.assert_array_equal(loaded.disturbances, table.disturbances)
    replay = ControlEnv(task, scenarios=loaded)
    _, info = replay.reset(options={"scenario": 2})
    np.testing.assert_array_equal(info["state"], table.starts[2])
    short = Scenarios.draw(task, seed=5, count=2, steps=9, parameters=law, disturbance=White(0.1))
    np.testing.assert_array_equal(short.disturbances, table.disturbances[:2, :9])


class TestBadInput:
    def test_actions(self):
        env = ControlEnv("unicycle-obstacles")
        with pytest.raises(EpisodeError, match=r"reset\(\)"):
            env.step(np.zeros(2))
        env.reset(seed=0)
        with pytest.raises(ActionError, match=r"shape \(2,\), got \(3,\)"):
            env.step(np.zeros(3))
        with pytest.raises(ActionError, match="got nan for 'alpha'"):
            env.step(np.array([0.0, np.nan]))
        with pytest.raises(ActionError, match=r"got 1\.5 for 'a'.*ClipAction"):
            env.step(np.array([1.5, 0.0]))

    def test_step_after_the_end(self):
        env = ControlEnv("pendulum", horizon=1)
        env.reset(seed=0)
        env.step(np.zeros(1))
        with pytest.raises(EpisodeError, match="is over"):
            env.step(np.zeros(1))

    def test_names(self, tmp_path):
        with pytest.raises(UnknownTaskError, match="Did you mean 'Ctrl/Pendulum-v0'"):
            control_envs.make("Ctrl/Pendulun-v0")
        with pytest.raises(UnknownTaskError, match="Did you mean 'pendulum'"):
            ControlEnv("pendulun")
        with pytest.raises(ValueError, match="no parameter 'mas'"):
            ControlEnv("pendulum", parameters={"mas": 1.0})
        with pytest.raises(ValueError, match="no disturbance channel"):
            ControlEnv("unicycle-obstacles", disturbance=White(0.1)).reset(seed=0)
        with pytest.raises(ValueError, match="render_mode"):
            ControlEnv("pendulum", render_mode="rgb")
        with pytest.raises(ValueError, match="at least 1"):
            ControlEnv("pendulum", horizon=0)
        (tmp_path / "broken.npz").write_bytes(b"PK")
        for name in ("broken.npz", "missing.npz"):
            with pytest.raises(ValueError, match=name):
                Scenarios.load(tmp_path / name)
        with pytest.raises(ValueError, match="expected a table of task 'pendulum-v0'"):
            ControlEnv("pendulum", scenarios=Scenarios.draw(make_task("double-integrator"), seed=0, count=1))
        with pytest.raises(ValueError, match="finite numbers"):
            ControlEnv("pendulum").reset(options={"state": [np.nan, 0.0]})

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_physics_that_blows_up_is_named(self):
        env = ControlEnv("pendulum", parameters={"mass": 0.0})
        env.reset(seed=0)
        with pytest.raises(NonFiniteError, match=r"state 'theta' of Pendulum.*t = 0\.05 s"):
            env.step(np.zeros(1))
