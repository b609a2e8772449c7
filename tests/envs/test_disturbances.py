"""Disturbances of the dynamics, the input and the measurement: the same in every shell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from control_envs.disturbances import Constant, Gust, Impulse, Periodic, White
from control_envs.envs import ControlEnv, ControlVectorEnv, SafetyFilter, as_policy
from control_envs.scenarios import Scenarios, draw_scenario
from control_envs.simulate import rollout
from control_envs.tasks import make_task

STEPS = 7
CHANNELS: dict[str, Any] = {
    "disturbance": Gust(0.3),
    "input_disturbance": Periodic(0.2, 2.0),
    "measurement_disturbance": White((0.01, 0.02)),
}


def test_channels_act_where_they_should():
    """A constant on one channel is a known change of input, of observation, or of neither."""
    task = make_task("pendulum")
    plain = ControlEnv(task, disturbance=Constant())
    pushed = ControlEnv(task, disturbance=Constant(), input_disturbance=Constant(0.5))
    blurred = ControlEnv(task, disturbance=Constant(), measurement_disturbance=Constant((0.1, -0.2)))
    for env in (plain, pushed, blurred):
        env.reset(seed=3)
    half = 0.5 * float((task.input_high - task.input_low)[0])
    a, *_, of_plain = plain.step(np.array([0.5 / half]))
    b, *_, of_pushed = pushed.step(np.array([0.0]))
    np.testing.assert_allclose(of_pushed["state"], of_plain["state"], rtol=1e-14)
    assert of_pushed["input"] == pytest.approx(0.5)
    assert of_plain["constraints"] == pytest.approx(of_pushed["constraints"])
    np.testing.assert_array_equal(a, b)
    c, *_, of_blurred = blurred.step(np.array([0.5 / half]))
    np.testing.assert_array_equal(of_blurred["state"], of_plain["state"])
    np.testing.assert_allclose(of_blurred["measurement"] - of_blurred["state"], [0.1, -0.2], rtol=1e-12)
    expected = task.features(task.dt, of_plain["state"] + np.array([0.1, -0.2]))
    np.testing.assert_allclose(c, expected.astype(np.float32), rtol=1e-6)
    assert of_blurred["constraints"] == of_plain["constraints"]  # of the true state


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_env_plays_what_the_single_env_plays(mode):
    rng = np.random.default_rng(0)
    envs = ControlVectorEnv("pendulum", 3, autoreset_mode=mode, max_episode_steps=4, **CHANNELS)
    singles = [ControlEnv("pendulum", horizon=4, **CHANNELS) for _ in range(3)]
    observation, info = envs.reset(seed=8)
    for _ in range(2):
        for i, env in enumerate(singles):
            single, report = env.reset(seed=8 + i) if env._episode < 0 else env.reset()
            np.testing.assert_allclose(observation[i], single, rtol=1e-6)
            np.testing.assert_allclose(info["measurement"][i], report["measurement"], rtol=1e-12)
        for k in range(4):
            actions = rng.uniform(-1, 1, (3, 1))
            observation, rewards, *_, truncated, info = envs.step(actions)
            told, seen = info, observation
            if mode == AutoresetMode.SAME_STEP and k == 3:
                told, seen = info["final_info"], info["final_obs"]
            for i, env in enumerate(singles):
                single, reward, *_, report = env.step(actions[i])
                np.testing.assert_allclose(seen[i], single, rtol=1e-6, atol=1e-6)
                assert rewards[i] == pytest.approx(reward, rel=1e-12)
                for key in ("state", "measurement", "input"):
                    np.testing.assert_allclose(told[key][i], report[key], rtol=1e-12, atol=1e-12)
        assert truncated.all()
        if mode == AutoresetMode.NEXT_STEP:
            observation, *_, info = envs.step(actions)
        elif mode == AutoresetMode.DISABLED:
            observation, info = envs.reset(options={"reset_mask": truncated})


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_rollouts_play_what_the_single_env_plays(library):
    task = make_task("pendulum")
    env = ControlEnv(task, horizon=STEPS, **CHANNELS)
    gain = np.array([[0.8, 0.3]])
    policy = as_policy(lambda t, x: -x @ torch.as_tensor(gain).to(x).mT, env)
    observation, info = env.reset(seed=4)
    states, inputs = [info["state"]], []
    for _ in range(STEPS):
        observation, *_, info = env.step(policy(observation, info))
        states.append(info["state"])
        inputs.append(info["input"])
    scenario = draw_scenario(task, 4, 0, steps=STEPS, **CHANNELS)
    xp: Any = np.asarray if library == "numpy" else torch.as_tensor
    tables = [xp(table) for table in (scenario.disturbance, scenario.input, scenario.measurement)]
    low, high, K = xp(task.input_low), xp(task.input_high), xp(gain)

    def play(table):
        return lambda t, x: table[round(float(t) / task.dt)]

    trajectory = rollout(
        task.plant,
        lambda t, x: (-x @ K.T).clip(low, high),
        xp(scenario.start),
        dt=task.dt,
        horizon=STEPS,
        integrator=task.integrator,
        disturbance=play(tables[0]),
        input_disturbance=play(tables[1]),
        measurement_disturbance=play(tables[2]),
    )
    np.testing.assert_allclose(trajectory.x, states, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(trajectory.u, inputs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hold", [True, False])
def test_controllers_with_a_state_meet_them_too(hold):
    """A constant on measurement and input equals a controller that adds them itself."""

    class Integral:
        state_dim = 1

        def __init__(self, noise: Any = 0.0, push: Any = 0.0):
            self.noise, self.push = noise, push

        def __call__(self, t, x, reference, z):
            x = x + self.noise
            return -0.5 * x[..., :1] - z + self.push, x[..., :1]

    task = make_task("pendulum")
    noise, push = np.array([0.1, -0.2]), np.array([0.3])
    options: Any = {"dt": task.dt, "horizon": STEPS, "hold": hold, "integrator": task.integrator}
    start = np.array([0.4, 0.0])
    disturbed = rollout(
        task.plant,
        Integral(),
        start,
        input_disturbance=lambda t, x: push,
        measurement_disturbance=lambda t, x: noise,
        **options,
    )
    expected = rollout(task.plant, Integral(noise, push), start, **options)
    np.testing.assert_allclose(disturbed.x, expected.x, rtol=1e-13)
    np.testing.assert_allclose(disturbed.u, expected.u, rtol=1e-13)
    assert abs(expected.x - rollout(task.plant, Integral(), start, **options).x).max() > 1e-3


def test_scenarios_hold_every_channel_and_channels_do_not_change_each_other(tmp_path):
    task = make_task("pendulum")
    table = Scenarios.draw(task, seed=5, count=4, steps=STEPS, **CHANNELS)
    assert table.input_disturbances is not None
    assert table.measurement_disturbances is not None
    assert table.input_disturbances.shape == (4, STEPS, 1)
    assert table.measurement_disturbances.shape == (4, STEPS + 1, 2)
    alone = Scenarios.draw(task, seed=5, count=4, steps=3, disturbance=CHANNELS["disturbance"])
    assert alone.disturbances is not None
    assert alone.input_disturbances is None
    np.testing.assert_array_equal(alone.starts, table.starts)
    assert table.disturbances is not None
    np.testing.assert_array_equal(alone.disturbances, table.disturbances[:, :3])
    noisy = Scenarios.draw(task, seed=5, count=2, steps=3, measurement_disturbance=White((0.01, 0.02)))
    assert noisy.measurement_disturbances is not None
    np.testing.assert_array_equal(noisy.measurement_disturbances, table.measurement_disturbances[:2, :4])
    table.save(tmp_path / "table.npz")
    loaded = Scenarios.load(tmp_path / "table.npz")
    envs = ControlVectorEnv("pendulum", 2, scenarios=loaded)
    _, info = envs.reset(seed=0)
    np.testing.assert_allclose(
        info["measurement"], table.starts[:2] + table.measurement_disturbances[:2, 0], rtol=1e-14
    )
    *_, info = envs.step(np.zeros((2, 1)))
    np.testing.assert_allclose(info["input"], table.input_disturbances[:2, 0], rtol=1e-14)


def test_a_compiled_step_and_gradients_meet_the_same_disturbances():
    plain, compiled = (
        ControlVectorEnv("pendulum", 3, compile=backend, **CHANNELS) for backend in (None, "aot_eager")
    )
    for envs in (plain, compiled):
        envs.reset(seed=0)
    for _ in range(3):
        a, b = (envs.step(np.full((3, 1), 0.3)) for envs in (plain, compiled))
        np.testing.assert_allclose(a[0], b[0], rtol=1e-6)
        np.testing.assert_allclose(a[4]["measurement"], b[4]["measurement"], rtol=1e-13)
    envs = ControlVectorEnv("pendulum", 3, to_numpy=False, differentiable=True, **CHANNELS)
    envs.reset(seed=0)
    actions = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    envs.step(actions)
    (slope,) = torch.autograd.grad(envs.measurement.sum(), actions)
    assert (slope != 0).all()


def test_a_filter_sees_the_measurement():
    seen = []

    def constraint(t, x):
        from constrained_nn import Box

        seen.append(x[0].numpy().copy())
        return Box(torch.full((1, 1), -9.0).double(), torch.full((1, 1), 9.0).double())

    from constrained_nn import HardNetAffine

    plain = ControlEnv("pendulum", measurement_disturbance=Impulse((0.5, 0.0), time=0.0))
    env = SafetyFilter(plain, constraint, HardNetAffine())
    _, info = env.reset(seed=0)
    env.step(np.zeros(1))
    np.testing.assert_array_equal(seen[0], info["measurement"])
    assert seen[0][0] == pytest.approx(info["state"][0] + 0.5)


def test_a_disturbance_of_the_wrong_size_is_refused():
    for name in ("input_disturbance", "measurement_disturbance", "disturbance"):
        wrong: Any = {name: White((0.1, 0.1, 0.1))}
        env = ControlEnv("pendulum", **wrong)
        with pytest.raises(ValueError, match="each channel"):
            env.reset(seed=0)
