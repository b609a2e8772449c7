"""The MuJoCo arm: its equations, the safety filter on it, and pictures with and without OpenGL."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from constrained_nn import HardNetAffine, Polyhedron
from control_envs.envs import SafetyFilter, as_policy, make
from control_envs.envs.mujoco_arm import ArmEnv, _LinePictures
from control_envs.errors import ActionError, EpisodeError


def filtered(env):
    def constraint(t, x):
        return Polyhedron(*(torch.as_tensor(a)[None] for a in env.unwrapped.safe_torques(x[0].numpy())))

    return SafetyFilter(env, constraint, HardNetAffine(), on_infeasible="brake")


def test_equations_are_those_of_the_simulator():
    env = ArmEnv()
    rng = np.random.default_rng(0)
    for _ in range(5):
        state = np.concatenate([rng.uniform(-1, 1, 7), rng.uniform(-2, 2, 7)])
        env.reset(seed=0, options={"state": state})
        torque = 0.5 * env.interface.half * rng.uniform(-1, 1, 7)
        model = env.equations(state)
        expected = np.linalg.solve(model["M"], torque - model["bias"])
        env.data.ctrl[:] = torque
        env._mujoco.mj_forward(env.model, env.data)
        np.testing.assert_allclose(env.data.qacc, expected, rtol=1e-6, atol=1e-6)
        h, q, rate = 1e-5, state[:7], state[7:]
        ahead, behind = (
            env.equations(
                np.concatenate([q + s * h * rate + 0.5 * h * h * expected, rate + s * h * expected])
            )
            for s in (1, -1)
        )
        velocity = (ahead["tip"] - behind["tip"]) / (2 * h)
        np.testing.assert_allclose(velocity, model["J"] @ rate, atol=1e-8)
        acceleration = (ahead["tip"] - 2 * model["tip"] + behind["tip"]) / h**2
        np.testing.assert_allclose(
            acceleration, model["J"] @ expected + model["J_dot_v"], rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("driver", ["nominal", "random"])
def test_filter_keeps_limits_and_keep_out_where_the_plain_policy_does_not(driver):
    worst = {}
    for wrap in (False, True):
        env = filtered(make("Arm7-v0")) if wrap else make("Arm7-v0")
        rng = np.random.default_rng(1)
        observation, info = env.reset(seed=1)
        policy = as_policy(env.unwrapped.nominal, env)
        margins = [info["margin"]]
        for _ in range(100):
            a = policy(observation, info) if driver == "nominal" else rng.uniform(-1, 1, 7)
            observation, _, _, truncated, info = env.step(a)
            margins.append(info["margin"])
            if truncated:
                break
        worst[wrap] = min(margins)
    assert worst[False] < 0
    assert worst[True] > 0


def test_pictures_without_opengl():
    env = ArmEnv()
    env.reset(seed=0)
    pictures = _LinePictures(env)
    first = pictures.frame()
    for _ in range(10):
        env.step(np.full(7, 0.5))
    assert first.shape == (360, 480, 3)
    assert (pictures.frame() != first).any()


def test_bad_input():
    env = ArmEnv()
    with pytest.raises(EpisodeError, match=r"reset\(\)"):
        env.step(np.zeros(7))
    env.reset(seed=0)
    with pytest.raises(ActionError, match=r"shape \(7,\), got \(6,\)"):
        env.step(np.zeros(6))
    with pytest.raises(ActionError, match="nan"):
        env.step(np.full(7, np.nan))
    with pytest.raises(ValueError, match="render_mode"):
        ArmEnv(render_mode="film")
