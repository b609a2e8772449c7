"""SD-LQR: exact factorizations, reduction to LQR, fallback, learning through the Riccati equation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from constrained_nn.control import (
    AffineModel,
    Linearization,
    MeanValue,
    NeuralFactorization,
    StateDependentLQR,
)
from constrained_nn.solvers import Status
from control_envs.dynamics import PVTOL, CartPole, LinearSystem, Pendulum, PlanarBirotor, Spacecraft
from control_envs.simulate import rollout
from control_envs.tasks import SpacecraftTask


def zero(n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.float64)


def unit(n: int) -> torch.Tensor:
    return torch.eye(n, dtype=torch.float64)


def regulator(factorization, n: int, m: int, **options) -> StateDependentLQR:
    return StateDependentLQR(factorization, unit(n), unit(m), zero(n), zero(m), **options)


@pytest.mark.parametrize(
    "plant", [PVTOL(drag_x=0.0, drag_y=0.0, drag_rotor=0.0), CartPole(), Spacecraft(), PlanarBirotor()]
)
def test_mean_value_factorization_is_exact(plant, generator):
    n, m = plant.state_dim, plant.input_dim
    x = 0.7 * torch.randn(30, n, generator=generator, dtype=torch.float64)
    x_ref, u_ref = (
        0.3 * torch.randn(n, generator=generator, dtype=torch.float64),
        0.5 * torch.ones(m).double(),
    )
    reference = {"reference": lambda t: (x_ref, u_ref)}
    few, many = (regulator(MeanValue(plant, nodes), n, m, **reference) for nodes in (2, 10))
    assert many.factorization_error(0.0, x).max() < 1e-9
    if not isinstance(plant, Spacecraft):  # a quadratic drift, for which two nodes are exact
        assert few.factorization_error(0.0, x).max() > 1e-6


def test_pendulum_has_the_known_factor():
    """Around the lower rest the mean of cos(s θ) is sin θ / θ."""
    plant = Pendulum(mass=0.7, length=1.3, damping=0.2)
    theta = torch.linspace(-3, 3, 7, dtype=torch.float64)
    A, B = MeanValue(plant, 12)(torch.stack([theta, 0 * theta], -1), zero(2), zero(1))
    torch.testing.assert_close(A[:, 1, 0], -9.81 / 1.3 * torch.sinc(theta / math.pi), rtol=1e-10, atol=1e-10)
    assert B.shape == (7, 2, 1)


def birotor_factor(x_ref: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    """A state-dependent factor of the birotor by hand, from the sum formulas of sine and cosine.

    `cos φ − cos φ̄ = −sin(φ̄ + e/2) sinc(e/2) e` and `sin φ − sin φ̄ = cos(φ̄ + e/2) sinc(e/2) e`; products change by
    `a b − ā b̄ = a (b − b̄) + b̄ (a − ā)`.
    """
    x, g = x_ref + e, 9.81
    half = torch.sinc(e[..., 2] / (2 * math.pi))
    dc, ds = (
        -torch.sin(x_ref[..., 2] + 0.5 * e[..., 2]) * half,
        torch.cos(x_ref[..., 2] + 0.5 * e[..., 2]) * half,
    )
    c, s = x_ref[..., 2].cos(), x_ref[..., 2].sin()
    v, w = x[..., 3], x[..., 4]
    rate = x_ref[..., 5]
    A = torch.zeros(*e.shape, 6, dtype=e.dtype)
    A[..., 0, 2], A[..., 0, 3], A[..., 0, 4] = v * dc - w * ds, c, -s
    A[..., 1, 2], A[..., 1, 3], A[..., 1, 4] = v * ds + w * dc, s, c
    A[..., 2, 5] = 1.0
    A[..., 3, 2], A[..., 3, 4], A[..., 3, 5] = -g * ds, rate, w
    A[..., 4, 2], A[..., 4, 3], A[..., 4, 5] = -g * dc, -rate, -v
    return A


def test_birotor_has_the_factor_by_hand(generator):
    plant, held = PlanarBirotor(), zero(2)
    draws = torch.rand(2, 40, 6, generator=generator, dtype=torch.float64)
    x_ref, e = 2.0 * draws[0] - 1.0, 4.0 * draws[1] - 2.0
    change = (birotor_factor(x_ref, e) @ e.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(change, plant.drift(0.0, x_ref + e) - plant.drift(0.0, x_ref))
    A, B = MeanValue(plant, 10)(x_ref + e, x_ref, held)
    torch.testing.assert_close((A @ e.unsqueeze(-1)).squeeze(-1), change, rtol=1e-9, atol=1e-9)
    # at the reference there is no choice: both are the Jacobian
    at = MeanValue(plant, 3)(x_ref, x_ref, held)[0]
    torch.testing.assert_close(birotor_factor(x_ref, 0 * e), at, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(B[0, 4:], torch.tensor([[2.0, 2.0], [50.0, -50.0]], dtype=torch.float64))


def test_at_the_reference_both_are_lqr(generator):
    task = SpacecraftTask()
    x = 1e-7 * torch.randn(4, 6, generator=generator, dtype=torch.float64)
    expected = -x @ torch.from_numpy(task.gain).T
    for factorization in (MeanValue(task.plant), Linearization(task.plant)):
        u = regulator(factorization, 6, 3)(0.0, x)
        torch.testing.assert_close(u, expected, rtol=1e-5, atol=1e-14)


def test_fallback_where_the_frozen_pair_is_not_stabilizable():
    """`x' = (1 + y)² …`: at y = −1 the input has lost its grip."""

    class Weak(nn.Module):
        state_dim, input_dim = 2, 1

        def drift(self, t, x, w=None):
            return x.clone()

        def actuation(self, t, x):
            return torch.stack([x[..., 0] + 1.0, x[..., 1] * 0 + 0.0], -1).unsqueeze(-1)

    class Grip(Weak):
        def drift(self, t, x, w=None):
            return torch.stack([x[..., 0], -x[..., 1]], -1)

    states = torch.tensor([[0.5, 0.2], [-1.0, 0.3], [0.1, 0.0]], dtype=torch.float64)
    feedback = regulator(MeanValue(Grip()), 2, 1).solve(0.0, states)
    assert feedback.riccati.status.tolist() == [Status.OK, Status.INFEASIBLE, Status.OK]
    assert feedback.fell_back.tolist() == [False, True, False]
    gain = 1.0 + math.sqrt(2.0)  # of x' = x + u, q = r = 1
    torch.testing.assert_close(feedback.value[1], torch.tensor([gain], dtype=torch.float64))
    # nothing to fall back to: the input that holds the reference
    hopeless = regulator(MeanValue(Weak()), 2, 1).solve(0.0, states)
    assert hopeless.fell_back.all()
    assert not hopeless.value.any()
    careful = regulator(MeanValue(Grip()), 2, 1, least_margin=100.0).solve(0.0, states)
    assert careful.fell_back.all()


def test_angles_limits_and_moving_references():
    plant = Pendulum()
    plain = regulator(MeanValue(plant), 2, 1, angles=(0,), lower=-unit(1)[0], upper=unit(1)[0])
    x = torch.tensor([[0.4, -0.1], [2.0, 1.0]], dtype=torch.float64)
    turned = x + torch.tensor([2 * math.pi, 0.0], dtype=torch.float64)
    torch.testing.assert_close(plain(0.0, turned), plain(0.0, x), rtol=1e-9, atol=1e-9)
    assert plain(0.0, 100 * x).abs().max() <= 1.0
    moving = regulator(MeanValue(plant), 2, 1, reference=lambda t: (x[0] + t, torch.ones(1).double()))
    torch.testing.assert_close(moving(0.5, x[0] + 0.5), torch.ones(1).double())


def tracking_error(path, x0) -> np.ndarray:
    """`sqrt(mean of |e|² / |e(0)|²)` of each run."""
    return np.sqrt((path.x[:, :-1].square().sum(-1) / x0.square().sum(-1, keepdim=True)).mean(-1).numpy())


def test_spacecraft_known_model():
    """On the known model the state-dependent law is no worse than LQR, under the input limits of the paper."""
    task = SpacecraftTask()
    x0 = torch.from_numpy(task.sample_starts(np.random.default_rng(0), 12))
    limits = {"lower": torch.from_numpy(task.input_low), "upper": torch.from_numpy(task.input_high)}
    errors = []
    for factorization in (MeanValue(task.plant, 3), Linearization(task.plant)):
        policy = regulator(factorization, 6, 3, **limits)
        with torch.no_grad():
            path = rollout(task.plant, policy, x0, dt=0.04, horizon=125)
        assert bool((path.x[:, -1].norm(dim=-1) < x0.norm(dim=-1)).all())
        errors.append(np.median(tracking_error(path, x0)))
    assert errors[0] < 1.05 * errors[1]
    assert errors[1] < 0.7


def test_learning_through_the_riccati_equation(generator):
    """A model is fitted to the inputs of an expert alone: the gradient passes the equation."""
    torch.manual_seed(0)
    expert = regulator(
        MeanValue(LinearSystem(np.array([[0.0, 1.0], [1.5, -0.2]]), np.array([[0.0], [2.0]]))), 2, 1
    )
    backbone = nn.Linear(2, 4).double()
    model = AffineModel(backbone, zero(2), zero(1))
    policy = regulator(MeanValue(model, 1), 2, 1)
    x = torch.randn(64, 2, generator=generator, dtype=torch.float64)
    wanted = expert(0.0, x).detach()
    with torch.no_grad():
        backbone.weight.copy_(torch.tensor([[0.0, 1.0], [0.5, 0.0], [0.0, 0.0], [0.0, 0.0]]))
        backbone.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = (policy(0.0, x) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-3 * losses[0]


def test_neural_factors_and_learned_models(generator):
    torch.manual_seed(0)
    model = AffineModel(nn.Linear(3, 3 + 6), zero(3), zero(2)).double()
    factors = NeuralFactorization(nn.Linear(6, 3 * 9).double(), model)
    policy = StateDependentLQR(factors, unit(3), unit(2), zero(3), torch.ones(2).double())
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    A, B = factors(x, zero(3), torch.ones(2).double())
    parts = factors.matrices(zero(3), x)
    torch.testing.assert_close(A, parts.sum(-3))
    torch.testing.assert_close(B, model.actuation(0.0, x))
    policy(0.0, x).square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in factors.factors.parameters())
    assert any(bool(p.grad.any()) for p in factors.factors.parameters())
