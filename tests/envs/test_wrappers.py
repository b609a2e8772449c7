"""Wrappers on NumPy and tensors, the safety filter and what it does where nothing is safe, and the adapters."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from constrained_nn import HardNetAffine, Polyhedron
from control_envs.envs import (
    ClipAction,
    NormalizeObservation,
    NormalizeReward,
    RecordStatistics,
    RescaleAction,
    SafetyFilter,
    SafetyGymnasium,
    VectorSafetyFilter,
    as_policy,
    evaluate,
    make,
    make_vec,
)
from control_envs.errors import ActionError, InfeasibleActionError

N = 4
numpy_or_torch = pytest.mark.parametrize("to_numpy", [True, False], ids=["numpy", "torch"])
every_mode = pytest.mark.parametrize("mode", ["NextStep", "SameStep"])


def build(to_numpy=True, mode="NextStep", steps=3, name="Pendulum-v0"):
    return make_vec(name, N, to_numpy=to_numpy, autoreset_mode=mode, max_episode_steps=steps)


def action(to_numpy, value=0.5):
    a = np.full((N, 1), value)
    return a if to_numpy else torch.from_numpy(a)


@numpy_or_torch
@every_mode
def test_statistics_are_the_sums_of_every_episode(to_numpy, mode):
    env = RecordStatistics(build(to_numpy, mode, name="DoubleIntegrator-v0"))
    env.reset(seed=0, options={"state": np.array([[0.2, 0.0]] * N)})
    sums = {"r": 0.0, "cost": 0.0}
    for k in range(3):
        _, reward, _, _, info = env.step(action(to_numpy))
        final = info.get("final_info", info)
        sums = {"r": sums["r"] + np.asarray(reward), "cost": sums["cost"] + np.asarray(final["cost"])}
        assert ("episode" in info) == (k == 2)
    np.testing.assert_allclose(info["episode"]["r"], sums["r"])
    np.testing.assert_allclose(info["episode"]["cost"], sums["cost"])
    assert np.asarray(info["episode"]["l"]).tolist() == [3.0] * N
    assert np.asarray(info["episode"]["violations"]).tolist() == [3.0] * N
    for _ in range(3 + (mode == "NextStep")):  # the second episode counts its own steps only
        *_, info = env.step(action(to_numpy))
    assert np.asarray(info["episode"]["l"]).tolist() == [3.0] * N


@numpy_or_torch
def test_normalized_observations_have_the_moments_of_what_was_seen(to_numpy):
    env = NormalizeObservation(build(to_numpy, steps=50))
    plain = build(True, steps=50)
    seen = [plain.reset(seed=0)[0]]
    out = env.reset(seed=0)[0]
    for k in range(20):
        seen.append(plain.step(action(True, np.sin(k)))[0])
        out = env.step(action(to_numpy, np.sin(k)))[0]
    data = np.concatenate(seen).astype(np.float64)
    expected = (seen[-1] - data.mean(0)) / np.sqrt(data.var(0))
    np.testing.assert_allclose(np.asarray(out), expected, rtol=2e-3, atol=2e-3)
    env.frozen = True
    before = np.asarray(env.moments.mean).copy()
    env.step(action(to_numpy))
    np.testing.assert_array_equal(np.asarray(env.moments.mean), before)


@numpy_or_torch
def test_normalized_rewards_keep_their_ratios(to_numpy):
    env, plain = NormalizeReward(build(to_numpy, steps=50)), build(True, steps=50)
    env.reset(seed=0)
    plain.reset(seed=0)
    for _ in range(10):
        scaled, reward = env.step(action(to_numpy))[1], plain.step(action(True))[1]
    ratio = np.asarray(scaled) / reward
    np.testing.assert_allclose(ratio, ratio[0])
    assert ratio[0] != 1.0


@numpy_or_torch
def test_rescaled_and_clipped_actions(to_numpy):
    plain, rescaled, clipped = build(), RescaleAction(build(to_numpy), 0.0, 10.0), ClipAction(build(to_numpy))
    for env in (plain, rescaled, clipped):
        env.reset(seed=0)
    full = plain.step(action(True, 1.0))[0]
    np.testing.assert_allclose(np.asarray(rescaled.step(action(to_numpy, 10.0))[0]), full)
    np.testing.assert_allclose(np.asarray(clipped.step(action(to_numpy, 7.0))[0]), full)
    assert rescaled.single_action_space.high[0] == 10.0
    with pytest.raises(ActionError, match="nan"):
        clipped.step(action(to_numpy, np.nan))


@numpy_or_torch
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_bounds_of_rescaled_actions_are_actions(to_numpy, dtype):
    """Wherever rounding puts them; the exact value is (bound - low) / (high - low), in rationals."""
    for low, high in (
        (4000.3, 4100.7),
        (300.1, 310.3),
        (1013.2, 1013.9),
        (-0.1, 0.3),
        (1e-9, 3e-9),
        (-1e30, 1e30),
    ):
        plain, rescaled = build(to_numpy), RescaleAction(build(to_numpy), low, high)
        low, high = Fraction(low), Fraction(high)
        for value in (
            low,
            high,
            low + (high - low) / 3,
            *map(Fraction, rescaled.single_action_space.low.tolist()),
        ):
            plain.reset(seed=0)
            rescaled.reset(seed=0)
            given = dtype(float(value))
            exact = float(2 * (Fraction(float(given)) - low) / (high - low) - 1)
            expected = plain.step(action(to_numpy, np.float64(np.clip(exact, -1.0, 1.0))))[0]
            found = rescaled.step(action(to_numpy, given))[0]
            np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-5, atol=1e-6)
        for outside in (float(low - (high - low) / 100), float(high + (high - low) / 100), np.inf, np.nan):
            with pytest.raises(ActionError):
                rescaled.step(action(to_numpy, np.float64(outside)))


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.0, 1.0), (1.0, 0.0), (-np.inf, 1.0), (0.0, np.nan), (0.0, 1e39), (1e9, 1e9 + 1), ([0.0, 0.0], 1.0)],
)
def test_bounds_without_a_meaning_are_refused(low, high):
    with pytest.raises(ValueError, match="RescaleAction: expected"):
        RescaleAction(build(), low, high)


def push_at_most(limit: float):
    """Forces up to `limit` [N]; an infinite or negative one makes the actuators' box part of the question."""

    def constraint(t, x: Tensor) -> Polyhedron:
        return Polyhedron(torch.ones_like(x[..., :1])[..., None], upper=torch.full_like(x[..., :1], limit))

    return constraint


class TestSafetyFilter:
    def test_executes_the_safe_action_and_logs_both(self):
        env = SafetyFilter(make("DoubleIntegrator-v0"), push_at_most(0.25), HardNetAffine())
        env.reset(seed=0)
        *_, info = env.step(np.array([0.9], np.float32))
        assert info["input"] == pytest.approx([0.25])
        assert info["raw_action"] == pytest.approx([0.9])
        assert info["executed_action"] == pytest.approx([0.25])
        assert info["intervened"] is True
        assert info["filter_ok"] is True
        *_, info = env.step(np.array([0.1]))
        assert info["intervened"] is False
        assert info["input"] == pytest.approx([0.1])

    @numpy_or_torch
    def test_vector(self, to_numpy):
        env = VectorSafetyFilter(
            build(to_numpy, name="DoubleIntegrator-v0"), push_at_most(0.25), HardNetAffine()
        )
        env.reset(seed=0)
        *_, info = env.step(action(to_numpy, 0.9))
        assert isinstance(info["executed_action"], np.ndarray if to_numpy else Tensor)
        np.testing.assert_allclose(np.asarray(info["input"]), 0.25)
        assert np.asarray(info["intervened"]).all()

    def test_without_it_the_constraint_is_violated(self):
        """Guards against a filter whose answer is thrown away."""
        for wrap in (True, False):
            env = make_vec("DoubleIntegrator-v0", N, max_episode_steps=60)
            env = VectorSafetyFilter(env, push_at_most(0.25), HardNetAffine()) if wrap else env
            env.reset(seed=0)
            *_, info = env.step(action(True, 1.0))
            assert (info["input"] > 0.25 + 1e-9).any() != wrap

    def nothing_safe(self, on_infeasible, vector=True):
        cls, base = (
            (VectorSafetyFilter, build(name="DoubleIntegrator-v0"))
            if vector
            else (
                SafetyFilter,
                make("DoubleIntegrator-v0"),
            )
        )
        env = cls(base, push_at_most(-3.0), HardNetAffine(), on_infeasible=on_infeasible)
        env.reset(seed=0)
        return env, (action(True, 0.9) if vector else np.array([0.9]))

    @pytest.mark.parametrize("vector", [True, False])
    def test_raise(self, vector):
        env, a = self.nothing_safe("raise", vector)
        before = env.unwrapped.state.copy() if not vector else env.unwrapped.state.numpy()
        with pytest.raises(InfeasibleActionError, match="on_infeasible='brake'"):
            env.step(a)
        np.testing.assert_array_equal(np.asarray(env.unwrapped.state), before)

    @pytest.mark.parametrize("vector", [True, False])
    @pytest.mark.parametrize(("policy", "executed"), [("brake", 0.0), ("least_violation", -1.0)])
    def test_brake_and_least_violation(self, policy, executed, vector):
        env, a = self.nothing_safe(policy, vector)
        *_, info = env.step(a)
        np.testing.assert_allclose(info["input"], executed)
        assert not np.any(info["filter_ok"])
        assert np.all(info["intervened"])

    def test_a_policy_that_returns_nan_does_not_reach_the_plant(self):
        for policy, executed in (("brake", 0.0), ("least_violation", 0.0)):
            env = VectorSafetyFilter(
                build(name="DoubleIntegrator-v0"), push_at_most(0.5), HardNetAffine(), on_infeasible=policy
            )
            env.reset(seed=0)
            a = action(True, 0.25)
            a[1] = np.nan
            *_, info = env.step(a)
            np.testing.assert_allclose(info["input"][:, 0], [0.25, executed, 0.25, 0.25])
            assert info["filter_ok"].tolist() == [True, False, True, True]

    def test_a_layer_that_answers_nan_is_not_believed(self):
        @dataclass
        class Answer:
            value: Tensor
            ok: Tensor

        class Broken:
            def solve(self, y, set):
                return Answer(y * torch.nan, torch.ones(len(y), dtype=torch.bool))

        env = VectorSafetyFilter(
            build(name="DoubleIntegrator-v0"), push_at_most(0.5), Broken(), on_infeasible="least_violation"
        )
        env.reset(seed=0)
        *_, info = env.step(action(True))
        np.testing.assert_allclose(info["input"], 0.0)

    def test_gradient_passes_through_layer_and_plant(self):
        base = make_vec("DoubleIntegrator-v0", 2, to_numpy=False, differentiable=True)

        def constraint(t, x):
            return Polyhedron(torch.ones_like(x[..., :1])[..., None], upper=0.3 * x[..., :1].abs())

        env = VectorSafetyFilter(base, constraint, HardNetAffine())
        env.reset(seed=0)
        a = torch.tensor([[0.1], [0.9]], dtype=torch.float64, requires_grad=True)
        env.step(a)
        (gradient,) = torch.autograd.grad(env.unwrapped.state[:, 1].sum(), a)
        np.testing.assert_allclose(gradient[:, 0], [0.05, 0.0])  # free, and held at its bound

    def test_unknown_policy(self):
        with pytest.raises(ValueError, match="expected 'raise', 'brake'"):
            SafetyFilter(make("Pendulum-v0"), push_at_most(1.0), HardNetAffine(), on_infeasible="ignore")


def test_safety_gymnasium_returns_six_values():
    env = SafetyGymnasium(make("DoubleIntegrator-v0"), indicator=False)
    env.reset(seed=0, options={"state": [0.3, 0.9]})
    _, _, cost, terminated, truncated, info = env.step(np.zeros(1))
    assert (
        cost == info["cost"] == info["cost_sum"] == pytest.approx(info["cost_p-high"] + info["cost_v-size"])
    )
    assert not terminated
    assert not truncated
    env = SafetyGymnasium(make("DoubleIntegrator-v0"))
    env.reset(seed=0, options={"state": [0.3, 0.9]})
    assert env.step(np.zeros(1))[2] == 1.0


class TestControllers:
    def test_the_nominal_controller_reaches_the_goal(self):
        env = make_vec("CartPole-v0", 5, autoreset_mode="Disabled")
        played = evaluate(as_policy(env.task.nominal, env), env, seed=0)
        assert (played["violations"] == 0).all()
        assert (played["length"] == 250).all()
        idle = evaluate(lambda observation, info: np.zeros((5, 1)), env, seed=0)
        assert (played["return"] > idle["return"]).all()
        assert (idle["violations"] > 0).any()

    def test_single_and_vector_policies_agree(self):
        envs, env = make_vec("Pendulum-v0", 1), make("Pendulum-v0")
        observations, infos = envs.reset(seed=3)
        observation, info = env.reset(seed=3)
        one = as_policy(env.unwrapped.task.nominal, env)(observation, info)
        many = as_policy(envs.task.nominal, envs)(observations, infos)
        np.testing.assert_array_equal(many[0], one)

    def test_the_state_of_a_controller_begins_anew_with_each_episode(self):
        class Integral:
            state_dim = 1

            def __call__(self, t, x, reference, z):
                return -z, x[:, :1] - reference

        env = make_vec("DoubleIntegrator-v0", 2, autoreset_mode="SameStep", max_episode_steps=4)
        policy = as_policy(Integral(), env, reference=1.0)
        observation, info = env.reset(seed=0)
        seen = []
        for _ in range(6):
            a = policy(observation, info)
            seen.append((info["time"].copy(), a, info["state"][:, :1] - 1.0))
            observation, *_, info = env.step(a)
        z = 0.0
        for time, a, error in seen:
            z = np.where(time[:, None] == 0.0, 0.0, z)
            np.testing.assert_allclose(a, np.clip(-z, -1, 1))
            z = z + 0.05 * error
        assert [time[0] for time, *_ in seen].count(0.0) == 2
