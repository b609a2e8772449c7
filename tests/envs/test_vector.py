"""The vector environment: the same numbers as single environments, in three autoreset modes, and derivatives."""

from __future__ import annotations

import pickle
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from control_envs.disturbances import Uniform, White
from control_envs.envs import ControlEnv, ControlVectorEnv, ids, make_vec
from control_envs.errors import ActionError, EpisodeError, NonFiniteError, UnknownTaskError
from control_envs.scenarios import Scenarios
from control_envs.tasks import TASKS, make_task

pytestmark = pytest.mark.once  # control_envs has no annotations that are checked

every_task = pytest.mark.parametrize("name", sorted(TASKS))
N = 3


def play(envs, steps=11, seed=4, manual=False):
    """Observations, rewards, flags and costs of random actions; `manual` resets by mask."""
    rng = np.random.default_rng(0)
    observation, info = envs.reset(seed=seed)
    log = [(observation, info["cost"])]
    for _ in range(steps):
        actions = rng.uniform(-0.3, 0.3, envs.action_space.shape).astype(np.float32)
        observation, reward, terminated, truncated, info = envs.step(actions)
        log.append((observation, reward, terminated, truncated, info["cost"], info.get("final_obs")))
        done = terminated | truncated
        if manual and done.any():
            observation, info = envs.reset(options={"reset_mask": done})
            log.append((observation,))
    return log


@every_task
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_equals_gymnasiums_own_vectorization_of_the_single_env(name, mode):
    # unequal ends: every copy has its own parameters, and one region is left early
    ours = ControlVectorEnv(name, N, autoreset_mode=mode, max_episode_steps=4)
    theirs = SyncVectorEnv([lambda: ControlEnv(name, horizon=4)] * N, autoreset_mode=mode)
    manual = mode == AutoresetMode.DISABLED
    for a, b in zip(play(ours, manual=manual), play(theirs, manual=manual), strict=True):
        for x, y in zip(a, b, strict=True):
            if y is None:
                assert x is None
            elif y.dtype == object:  # final observations, where there are any
                for i in range(N):
                    if y[i] is not None:
                        np.testing.assert_allclose(x[i], y[i], rtol=1e-6, atol=1e-6)
            else:
                tolerance = 1e-12 if y.dtype == np.float64 else 1e-6
                np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)
                assert x.dtype == y.dtype


def test_three_modes_agree_after_masking():
    actions = np.random.default_rng(0).uniform(-1, 1, (30, N, 1))
    paths = {}
    for mode in AutoresetMode:
        envs = ControlVectorEnv("pendulum", N, autoreset_mode=mode, max_episode_steps=5)
        _, info = envs.reset(seed=1)
        states, k, dead = [info["state"]], 0, False
        while k < 19:
            if mode == AutoresetMode.NEXT_STEP and dead:
                *_, info = envs.step(np.zeros((N, 1)))
                states.append(info["state"])
                dead = False
                continue
            *_, truncated, info = envs.step(actions[k])
            k += 1
            if mode == AutoresetMode.SAME_STEP and truncated.any():
                states.append(info["final_info"]["state"])
            states.append(info["state"])
            dead = truncated.any()
            if mode == AutoresetMode.DISABLED and dead:
                _, info = envs.reset(options={"reset_mask": truncated})
                states.append(info["state"])
        paths[mode] = np.array(states)
    np.testing.assert_array_equal(paths[AutoresetMode.NEXT_STEP], paths[AutoresetMode.SAME_STEP])
    np.testing.assert_array_equal(paths[AutoresetMode.NEXT_STEP], paths[AutoresetMode.DISABLED])


def test_copy_i_does_not_depend_on_the_number_of_copies():
    law = {"mass": Uniform(0.5, 1.5)}
    few, many = (
        ControlVectorEnv("pendulum", n, parameters=law, disturbance=White(0.3), max_episode_steps=3)
        for n in (2, 7)
    )
    few.reset(seed=5)
    many.reset(seed=5)
    for _ in range(10):
        a = few.step(np.full((2, 1), 0.5))[0]
        b = many.step(np.full((7, 1), 0.5))[0]
        np.testing.assert_array_equal(a, b[:2])
    assert len(set(many.plant.mass.tolist())) == 7
    assert many.prior.mass == 1.0


@pytest.mark.parametrize("id", [i for i in ids() if gymnasium.spec(i).vector_entry_point])
def test_made_by_gymnasium_without_a_warning(id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gymnasium.make_vec(f"control_envs.envs:{id}", num_envs=2)
    observation, info = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)
    assert all(v.shape == (2,) for v in info["constraints"].values())
    again = pickle.loads(pickle.dumps(envs))
    action = envs.action_space.sample()
    np.testing.assert_array_equal(again.step(action)[0], envs.step(action)[0])
    envs.close()


def test_wrappers_of_gymnasium_apply():
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(make_vec("Pendulum-v0", 2, max_episode_steps=3))
    envs.reset(seed=0)
    rewards = []
    for _ in range(3):
        _, reward, *_, info = envs.step(np.ones((2, 1), np.float32))
        rewards.append(reward)
    np.testing.assert_allclose(info["episode"]["r"], np.sum(rewards, 0))


def test_options_are_not_touched_and_a_masked_reset_leaves_the_others():
    envs = ControlVectorEnv("double-integrator", 3, autoreset_mode="Disabled")
    envs.reset(seed=0)
    *_, info = envs.step(np.ones((3, 1)))
    mask = np.array([False, True, False])
    options = {"reset_mask": mask, "state": np.full((3, 2), 0.05)}
    _, after = envs.reset(options=options)
    assert options["reset_mask"] is mask
    assert set(options) == {"reset_mask", "state"}
    np.testing.assert_array_equal(after["state"][[0, 2]], info["state"][[0, 2]])
    np.testing.assert_array_equal(after["state"][1], [0.05, 0.05])
    np.testing.assert_array_equal(after["time"], [0.05, 0.0, 0.05])


def test_results_do_not_share_memory_with_the_env():
    envs = ControlVectorEnv("pendulum", 2)
    _, info = envs.reset(seed=0)
    kept = info["state"].copy()
    info["state"][:] = 99.0
    envs.step(np.zeros((2, 1)))
    envs.reset(seed=0)
    _, info = envs.reset(seed=0)
    np.testing.assert_array_equal(info["state"], kept)


@pytest.mark.untyped
@every_task
def test_gradient_of_the_return_in_the_actions(name):
    def play_return(actions):
        envs = ControlVectorEnv(name, 2, to_numpy=False, differentiable=True)
        envs.reset(seed=0)
        total = 0.0
        for k in range(3):
            total = total + envs.step(actions[k])[1].sum()
        return total

    m = make_task(name).plant.input_dim
    actions = torch.full((3, 2, m), 0.1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(play_return, actions, rtol=1e-3, atol=1e-5)


def test_the_graph_is_cut_at_a_new_episode():
    envs = ControlVectorEnv(
        "pendulum", 1, autoreset_mode="SameStep", max_episode_steps=2, to_numpy=False, differentiable=True
    )
    envs.reset(seed=0)
    action = torch.zeros(1, 1, requires_grad=True)
    envs.step(action)
    envs.step(action)  # ends the first episode
    reward = envs.step(torch.zeros(1, 1))[1]
    if reward.requires_grad:
        (gradient,) = torch.autograd.grad(reward.sum(), action, allow_unused=True)
        assert gradient is None or gradient.abs().max() == 0


@pytest.mark.untyped
@pytest.mark.parametrize("name", ["pendulum", "unicycle-obstacles", "quadrotor"])
def test_compiled_step_is_the_same(name):
    plain = ControlVectorEnv(name, N, max_episode_steps=4)
    compiled = ControlVectorEnv(name, N, max_episode_steps=4, compile="aot_eager")
    for a, b in zip(play(plain), play(compiled), strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-6, atol=1e-6)


@pytest.mark.untyped
def test_compiled_step_follows_random_parameters():
    options = {"parameters": {"mass": Uniform(0.5, 2.0)}, "max_episode_steps": 3}
    plain, compiled = (ControlVectorEnv("pendulum", N, compile=c, **options) for c in (None, "aot_eager"))
    for a, b in zip(play(plain), play(compiled), strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-6, atol=1e-6)


def test_a_table_of_scenarios_is_played_once():
    task = make_task("pendulum")
    table = Scenarios.draw(task, seed=9, count=6, parameters={"mass": Uniform(0.5, 2.0)})
    envs = ControlVectorEnv(task, 3, scenarios=table, autoreset_mode="SameStep", max_episode_steps=2)
    _, info = envs.reset()
    np.testing.assert_array_equal(info["state"], table.starts[:3])
    envs.step(np.zeros((3, 1)))
    *_, info = envs.step(np.zeros((3, 1)))
    np.testing.assert_array_equal(info["state"], table.starts[3:])
    np.testing.assert_array_equal(envs.plant.mass.numpy(), table.parameters["mass"][3:])


def test_float32_states_and_tensors():
    envs = ControlVectorEnv("pendulum", 2, dtype=torch.float32, to_numpy=False)
    observation, info = envs.reset(seed=0)
    assert isinstance(observation, torch.Tensor)
    assert info["state"].dtype == torch.float32
    assert envs.step(torch.zeros(2, 1))[1].dtype == torch.float32


def test_renders_every_copy():
    envs = ControlVectorEnv("pendulum", 2, render_mode="rgb_array")
    envs.reset(seed=0)
    frames = envs.render()
    assert len(frames) == 2
    assert (frames[0] != frames[1]).any()


class TestBadInput:
    def test_actions(self):
        envs = ControlVectorEnv("unicycle-obstacles", 3)
        with pytest.raises(EpisodeError, match=r"reset\(\)"):
            envs.step(np.zeros((3, 2)))
        envs.reset(seed=0)
        with pytest.raises(ActionError, match=r"shape \(3, 2\), got \(2, 2\)"):
            envs.step(np.zeros((2, 2)))
        bad = np.zeros((3, 2))
        bad[1, 1] = np.nan
        with pytest.raises(ActionError, match="got nan for 'alpha' of copy 1"):
            envs.step(bad)
        with pytest.raises(ActionError, match=r"got 2\.0 for 'a' of copy 0"):
            envs.step(np.full((3, 2), 2.0))

    def test_arguments(self):
        with pytest.raises(UnknownTaskError, match="Did you mean"):
            make_vec("Pendulm-v0", 2)
        with pytest.raises(ValueError, match="to_numpy=False"):
            ControlVectorEnv("pendulum", 2, differentiable=True)
        with pytest.raises(ValueError, match="render_mode"):
            ControlVectorEnv("pendulum", 2, render_mode="human")
        envs = ControlVectorEnv("pendulum", 2)
        with pytest.raises(ValueError, match="expected 2 seeds, got 3"):
            envs.reset(seed=[1, 2, 3])
        for mask in (np.array([False, False]), np.array([1, 0]), np.array([True])):
            with pytest.raises(ValueError, match="2 booleans"):
                envs.reset(options={"reset_mask": mask})
        with pytest.raises(ValueError, match=r"options\['state'\] of shape \(2, 2\)"):
            envs.reset(options={"state": np.zeros(2)})

    def test_step_after_the_end_without_autoreset(self):
        envs = ControlVectorEnv("pendulum", 2, autoreset_mode="Disabled", max_episode_steps=1)
        envs.reset(seed=0)
        envs.step(np.zeros((2, 1)))
        with pytest.raises(EpisodeError, match="copy 0 is over"):
            envs.step(np.zeros((2, 1)))

    def test_physics_that_blows_up_names_the_copy_and_the_time(self):
        task = make_task("pendulum")
        starts = Scenarios.draw(task, seed=0, count=2)
        table = Scenarios(starts.task, 0, starts.starts, {"mass": np.array([1.0, 0.0])}, None)
        envs = ControlVectorEnv(task, 2, scenarios=table)
        envs.reset()
        with pytest.raises(NonFiniteError, match=r"'theta' of copy 1.*t = 0\.05 s.*1 of 2"):
            envs.step(np.zeros((2, 1)))
