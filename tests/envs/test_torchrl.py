"""TorchRL loads every environment."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

import control_envs
from control_envs.envs import ControlEnv, ControlVectorEnv, FlatInfo, ids

pytestmark = pytest.mark.once  # control_envs has no annotations that are checked

pytest.importorskip("torchrl")


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("torchrl").setLevel(logging.ERROR)


@pytest.mark.untyped
@pytest.mark.parametrize("id", ids())
def test_gym_wrapper_loads_every_env(id):
    from torchrl.envs import GymWrapper

    plain: Any = control_envs.make(id)
    env = GymWrapper(plain)
    env.set_seed(0)
    played = env.rollout(5)
    assert 1 <= played.batch_size[0] <= 5
    assert played["next", "observation"].shape[1:] == plain.observation_space.shape
    assert played["next", "observation"].isfinite().all()
    env.close()


@pytest.mark.untyped
@pytest.mark.parametrize("mode", ["Disabled", "SameStep"])
def test_gym_wrapper_plays_the_vector_env(mode):
    """Seven steps of copies whose episodes take four: TorchRL begins new ones, and every number is that of the env."""
    from torchrl.envs import GymWrapper

    envs = ControlVectorEnv("pendulum", 3, autoreset_mode=mode, max_episode_steps=4)
    wrapped = GymWrapper(envs if mode == "Disabled" else FlatInfo(envs))
    wrapped.set_seed(5)
    act = torch.full((3, 1), 0.25)
    played = wrapped.rollout(7, policy=lambda td: td.set("action", act), break_when_any_done=False)
    assert played.batch_size == (3, 7)
    assert played["next", "truncated"].squeeze(-1).nonzero().tolist() == [[0, 3], [1, 3], [2, 3]]
    rewards = played["next", "reward"].squeeze(-1)
    for i in range(3):
        single = ControlEnv("pendulum", horizon=4)
        episodes = []  # which scenarios of its seed a copy played
        for k in range(7):
            if k in (0, 4):
                seen = played["observation"][i, k].numpy()
                starts = [
                    single.reset(seed=envs._episodes.seeds[i], options={"scenario": e})[0] for e in range(6)
                ]
                episodes.append(int(np.argmin([np.abs(start - seen).max() for start in starts])))
                start, _ = single.reset(options={"scenario": episodes[-1]})
                np.testing.assert_allclose(seen, start, rtol=1e-6)
            observation, reward, *_ = single.step(np.array([0.25]))
            np.testing.assert_allclose(played["next", "observation"][i, k].numpy(), observation, rtol=1e-6)
            assert float(rewards[i, k]) == pytest.approx(reward, rel=1e-6)
        assert episodes[1] > episodes[0]  # in SameStep TorchRL resets once more than it needs to


def test_flat_info_names_every_constraint():
    envs = FlatInfo(ControlVectorEnv("double-integrator", 2, autoreset_mode="SameStep", max_episode_steps=1))
    _, info = envs.reset(seed=0)
    names = [c.name for c in ControlEnv("double-integrator").task.constraints]
    *_, info = envs.step(np.zeros((2, 1)))
    assert "constraints" not in info
    assert "constraints" not in info["final_info"]
    for part in (info, info["final_info"]):
        assert all(part[f"constraint/{name}"].shape == (2,) for name in names)
