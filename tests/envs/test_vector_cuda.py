"""The vector environment on a GPU that is not there: reset and step mix no devices and read no value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from control_envs.disturbances import Uniform, White
from control_envs.envs import ControlVectorEnv
from control_envs.tasks import TASKS
from tests.fake_cuda import fake_cuda

pytestmark = pytest.mark.once  # control_envs has no annotations that are checked


@pytest.mark.untyped
@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("disturbed", [False, True], ids=["plain", "disturbed"])
def test_reset_and_step_on_the_device(name, disturbed):
    plant = ControlVectorEnv(name, 1).task.plant
    options: dict[str, Any] = {}
    if disturbed:
        options = {"input_disturbance": White(0.1), "measurement_disturbance": White(0.1)}
        options |= {"parameters": {"mass": Uniform(0.9, 1.1)}} if hasattr(plant, "mass") else {}
    with fake_cuda():
        envs = ControlVectorEnv(name, 3, device="cuda", to_numpy=False, **options)
        observation, info = envs.reset(seed=0)
        arrays = [observation, *(v for v in info.values() if isinstance(v, torch.Tensor))]
        observation, info = envs.reset(options={"reset_mask": np.array([True, False, True])})
        arrays += [observation, *info["constraints"].values(), envs.measurement]
        a = torch.zeros(3, len(plant.input), dtype=torch.float64, device="cuda")
        w = envs._episodes.sample("disturbance", envs._steps), envs._episodes.sample("input", envs._steps)
        x, reward, seen, g, u, left, finite = envs._advance(
            envs._x, envs.time, a, *w, envs._episodes.sample("measurement", envs._steps + 1)
        )
        arrays += [x, reward, seen, g, u, left, finite, *envs._judge_again(left, u)]
    assert {array.device.type for array in arrays} == {"cuda"}
    assert observation.shape == (3, *envs.single_observation_space.shape)
