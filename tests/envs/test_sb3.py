"""Stable-Baselines3 on the vector environment, with the filter in front and with the layer inside."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from constrained_nn import Box, HardNetAffine
from control_envs.envs import make_vec
from control_envs.envs.sb3 import LayerPolicy, Sb3VecEnv

EXAMPLE = Path(__file__).parents[2] / "examples" / "ppo_safety_filter.py"


def build(**kwargs):
    return Sb3VecEnv(make_vec("DoubleIntegrator-v0", 4, autoreset_mode="SameStep", **kwargs))


def test_episodes_end_as_sb3_wants_them():
    env = build(max_episode_steps=2)
    plain = make_vec("DoubleIntegrator-v0", 4, autoreset_mode="Disabled", max_episode_steps=2)
    env.seed(0)
    env.reset()
    plain.reset(seed=0)
    a = np.full((4, 1), 0.5, np.float32)
    rewards = 0.0
    for _ in range(2):
        observation, reward, done, infos = env.step(a)
        final = plain.step(a)[0]
        rewards = rewards + reward
    assert done.all()
    for i, info in enumerate(infos):
        np.testing.assert_array_equal(info["terminal_observation"], final[i])
        assert info["TimeLimit.truncated"] is True
        assert info["episode"]["l"] == 2
        assert info["episode"]["r"] == pytest.approx(rewards[i], rel=1e-5)
        assert (observation[i] != final[i]).any()
    assert VecMonitor(env).reset().shape == (4, 2)


def test_refuses_what_sb3_cannot_use():
    with pytest.raises(ValueError, match="expected autoreset_mode='SameStep'"):
        Sb3VecEnv(make_vec("Pendulum-v0", 2))
    with pytest.raises(ValueError, match="to_numpy=True"):
        Sb3VecEnv(make_vec("Pendulum-v0", 2, autoreset_mode="SameStep", to_numpy=False))


def test_layer_inside_the_network_bounds_every_deterministic_action():
    half = lambda observation: Box(*(torch.full_like(observation[..., :1], s) for s in (-0.01, 0.01)))  # noqa: E731
    agent = PPO(
        LayerPolicy,
        build(),
        n_steps=8,
        batch_size=32,
        seed=0,
        policy_kwargs={"constraint": half, "layer": HardNetAffine()},
    )
    agent.learn(64)
    observation = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    assert np.abs(agent.predict(observation, deterministic=True)[0]).max() <= 0.01 + 1e-6
    torch.nn.init.constant_(agent.policy.action_net.bias, 5.0)
    assert agent.predict(observation, deterministic=True)[0] == pytest.approx(0.01, abs=1e-6)


def test_example_ppo_has_no_violation_behind_the_filter():
    spec = importlib.util.spec_from_file_location("ppo_safety_filter", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    results = example.main(steps=512 * 32, episodes=1000)
    assert results["with filter"]["episodes with a violation"] == 0
    assert results["with filter"]["smallest margin"] >= 0
    assert results["without filter"]["episodes with a violation"] > 100
