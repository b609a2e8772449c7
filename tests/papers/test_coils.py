"""CoILS and stable dynamics: the model's guarantee for every parameter, and a small training run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from constrained_nn.certificates import BiLipschitzLyapunov, NeuralLyapunov, QuadraticLyapunov
from constrained_nn.control import AffineModel, AnchoredController, AnchoredModel
from constrained_nn.models import CoILS, DiscreteCoILS, StableDynamics
from constrained_nn.solvers import Status
from constrained_nn.training import WorstStates, dynamics_loss, fit_dynamics, sample_dynamics
from control_envs.dynamics import VanDerPol
from control_envs.simulate import rollout

ORIGIN = torch.tensor([0.2, -0.1, 0.3, 0.0], dtype=torch.float64)
HOLD = torch.tensor([0.5, -0.2], dtype=torch.float64)


def mlp(inputs: int, outputs: int, width: int = 16) -> nn.Module:
    hidden = [nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


def policy() -> AnchoredController:
    return AnchoredController(mlp(4, 2), ORIGIN, HOLD, HOLD - 1.0, HOLD + 2.0)


CERTIFICATES = {
    "neural": lambda: NeuralLyapunov(4, rate=0.5, hidden=(16, 16), origin=ORIGIN),
    "bi-lipschitz": lambda: BiLipschitzLyapunov(4, rate=0.5, hidden=16, origin=ORIGIN),
    "quadratic": lambda: QuadraticLyapunov(torch.eye(4), rate=0.5, origin=ORIGIN),
}
MODELS = {
    "anchored": lambda: AnchoredModel(mlp(6, 4), ORIGIN, HOLD),
    "affine": lambda: AffineModel(mlp(4, 12), ORIGIN, HOLD),
}


def make(model: str, certificate: str, size: float = 1.0) -> CoILS:
    torch.manual_seed(0)
    coils = CoILS(MODELS[model](), policy(), CERTIFICATES[certificate]()).double()
    with torch.no_grad():
        for parameter in coils.parameters():
            parameter.mul_(size)
    return coils


class Outward(nn.Module):
    """An adversary: the model runs uphill along the certificate's own gradient."""

    def __init__(self, certificate, size: float) -> None:
        super().__init__()
        self.certificate, self.size = certificate, size

    def forward(self, x, u):
        return self.size * self.certificate.gradient(x) + u.sum(-1, keepdim=True)


def states(generator, count: int) -> torch.Tensor:
    """From near the equilibrium to far away."""
    direction = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return ORIGIN + direction * torch.logspace(-6, 2, count, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("certificate", CERTIFICATES)
@pytest.mark.parametrize("size", [1.0, 5.0, 30.0])
def test_model_decreases_for_every_parameter(certificate, size, generator):
    """120,000 states for each of 9 settings: more than a million in all."""
    coils = make("affine", certificate, size).eval()
    x = states(generator, 120_000)
    with torch.no_grad():
        assert coils.slack(x).max() <= 1e-12
        assert bool((coils.correction(x).abs().amax(-1) > 0).any())
        assert bool(coils.closed_loop(x).ok.all())


@pytest.mark.parametrize("certificate", CERTIFICATES)
@pytest.mark.parametrize("size", [1.0, 1e6])
def test_model_decreases_against_an_adversary(certificate, size, generator):
    coils = make("anchored", certificate)
    coils.model = Outward(coils.certificate, size)
    x = states(generator, 5_000)
    with torch.no_grad():
        assert coils.slack(x).max() <= 1e-12
        raw = coils.closed_loop(x)
        gradient = coils.certificate.gradient(x)
        assert bool(((raw.raw * gradient).sum(-1) > 0).any())


@pytest.mark.parametrize("model", MODELS)
def test_equilibrium_and_input_effect_are_kept(model, generator):
    coils = make(model, "neural").eval()
    rest = coils(ORIGIN.expand(3, 4), HOLD.expand(3, 2))
    assert rest.abs().max() < 1e-14
    x = states(generator, 50)
    u, v = (torch.randn(50, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    effect = coils.model(x, u) - coils.model(x, v)
    torch.testing.assert_close(coils(x, u) - coils(x, v), effect, rtol=1e-10, atol=1e-10)
    if model == "affine":
        half = coils(x, 0.5 * (u + v))
        torch.testing.assert_close(half, 0.5 * (coils(x, u) + coils(x, v)), rtol=1e-10, atol=1e-10)


def test_correction_is_the_published_formula(generator):
    coils = make("anchored", "neural").eval()
    x = ORIGIN + torch.randn(200, 4, generator=generator, dtype=torch.float64)
    V, slope = coils.certificate.value_and_gradient(x)
    raw = coils.model(x, coils.policy(0.0, x))
    c = torch.relu((slope * raw).sum(-1) + 0.5 * V) / slope.square().sum(-1)
    expected = -c.unsqueeze(-1) * slope
    torch.testing.assert_close(coils.correction(x), expected, rtol=1e-9, atol=1e-9)
    assert 0 < (c > 0).sum() <= 200


def test_policy_respects_its_limits(generator):
    pi = policy().double()
    with torch.no_grad():
        for parameter in pi.parameters():
            parameter.mul_(50.0)
    u = pi(0.0, states(generator, 5_000))
    assert bool(((u >= HOLD - 1.0) & (u <= HOLD + 2.0)).all())
    assert u.min(0).values.max() < -0.4
    torch.testing.assert_close(pi(0.0, ORIGIN), HOLD, rtol=0, atol=1e-12)


def test_gradients_reach_model_policy_and_certificate(generator):
    coils = make("affine", "neural")
    x = ORIGIN + torch.randn(20, 4, generator=generator, dtype=torch.float64)
    u = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    coils(x, u).square().sum().backward()
    for part in (coils.model, coils.policy, coils.certificate):
        assert all(bool(p.grad.isfinite().all()) for p in part.parameters() if p.grad is not None)
        assert any(bool(p.grad.abs().max() > 0) for p in part.parameters() if p.grad is not None)


def test_bad_state_harms_nobody(generator):
    coils = make("affine", "neural").train()
    x = states(generator, 6)
    bad = x.clone()
    bad[2] = torch.nan
    loop, healthy = coils.closed_loop(bad), torch.arange(6) != 2
    torch.testing.assert_close(
        loop.value[healthy], coils.closed_loop(x).value[healthy], rtol=1e-12, atol=1e-12
    )
    assert loop.status[2] == Status.NONFINITE_INPUT


@pytest.mark.parametrize("size", [1.0, 10.0])
def test_stable_dynamics_without_input(size, generator):
    torch.manual_seed(0)
    V = NeuralLyapunov(2, rate=1.0, hidden=(8, 8))
    model = StableDynamics(mlp(2, 2), V).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(size)
        x = 3 * torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
        f = model(x)
        value, slope = V.value_and_gradient(x)
        excess = (slope * f).sum(-1) + value
        assert (excess / (slope.abs() * (f.abs() + model.model(x).abs())).sum(-1)).max() <= 1e-12
        for _ in range(300):  # V along a fine path falls at least as exp(−t)
            x = x[:50] + 0.002 * model(x[:50])
        assert bool((V.value(x) <= 1.02 * np.exp(-0.6) * value[:50]).all())


@pytest.mark.parametrize("certificate", ["neural", "quadratic"])
@pytest.mark.parametrize("size", [1.0, 5.0])
def test_discrete_time(certificate, size, generator):
    torch.manual_seed(0)
    discrete = DiscreteCoILS(MODELS["anchored"](), policy(), CERTIFICATES[certificate](), decay=0.1).double()
    with torch.no_grad():
        for parameter in discrete.parameters():
            parameter.mul_(size)
        x = states(generator, 20_000)
        after, before = discrete(x, discrete.policy(0.0, x)), discrete.certificate.value(x)
        # the sum raw + shift rounds in units of raw
        rounding = 1e-12 * discrete.model(x, discrete.policy(0.0, x)).norm(dim=-1)
        slope = discrete.certificate.gradient(after).norm(dim=-1)
        assert bool(
            (discrete.certificate.value(after) <= 0.9 * before * (1 + 1e-12) + rounding * slope).all()
        )
        assert bool(discrete.correction(x).any())
    with pytest.raises(ValueError, match=r"expected decay in \[0, 1\), got 1.0"):
        DiscreteCoILS(MODELS["anchored"](), policy(), CERTIFICATES[certificate](), decay=1.0)
    with pytest.raises(ValueError, match="got BiLipschitzLyapunov"):
        DiscreteCoILS(MODELS["anchored"](), policy(), CERTIFICATES["bi-lipschitz"](), decay=0.5)


def van_der_pol_model() -> CoILS:
    torch.manual_seed(0)
    origin, hold = torch.zeros(2), torch.zeros(1)
    model = AffineModel(mlp(2, 4, 32), origin, hold)
    pi = AnchoredController(mlp(2, 1, 32), origin, hold, hold - 5.0, hold + 5.0)
    return CoILS(model, pi, NeuralLyapunov(2, rate=1.0, hidden=(32, 32))).double()


def van_der_pol_samples(count: int = 200):
    box = lambda size, n: (np.full(n, -size), np.full(n, size))  # noqa: E731
    return sample_dynamics(VanDerPol(), box(3.0, 2), box(5.0, 1), count=count, seed=0)


def test_training_on_van_der_pol_learns_a_controller_that_works_on_the_plant():
    coils, plant = van_der_pol_model(), VanDerPol()
    worst = WorstStates((np.full(2, -3.0), np.full(2, 3.0)), count=20, pool=200)
    losses = fit_dynamics(
        coils, van_der_pol_samples(), penalty=10.0, epochs=300, worst=worst, learning_rate=1e-2
    )
    assert losses[-1] < 0.05 * losses[0]
    coils.eval()
    side = torch.linspace(-3, 3, 9, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        end = rollout(plant, coils.policy, grid, dt=0.02, horizon=500).x[:, -1].abs().amax(-1)
        idle = rollout(plant, lambda t, x: 0 * x[..., :1], grid, dt=0.05, horizon=200).x[:, -1].abs().amax(-1)
        active = coils.correction(grid).abs().amax(-1) > 1e-9
        assert coils.slack(grid).max() <= 1e-12
    assert (idle < 0.3).double().mean() < 0.02  # without control only the origin stays
    assert (end < 0.3).double().mean() > 0.9
    assert active.double().mean() < 0.3


def test_interrupted_training_ends_with_the_same_weights(tmp_path):
    data = van_der_pol_samples(40)
    straight, parted = van_der_pol_model(), van_der_pol_model()
    worst = WorstStates((np.full(2, -3.0), np.full(2, 3.0)), count=5, pool=50, every=2)
    options = {"penalty": 1.0, "worst": worst, "epochs": 6, "batch": 16, "seed": 3, "every": 2}
    fit_dynamics(straight, data, **options)

    def stop(epoch, loss):
        if epoch == 4:
            raise KeyboardInterrupt

    file = tmp_path / "fit.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit_dynamics(parted, data, **options, checkpoint=file, progress=stop)
    again = van_der_pol_model()
    fit_dynamics(again, data, **options, checkpoint=file)
    for a, b in zip(again.parameters(), straight.parameters(), strict=True):
        assert torch.equal(a, b)


def test_penalty_moves_policy_and_certificate_and_leaves_the_model_alone():
    coils, data = van_der_pol_model(), van_der_pol_samples(40)
    scale = data.velocity.std(0)
    found = {}
    for penalty in (5.0, 0.0):
        coils.zero_grad()
        dynamics_loss(coils, scale, penalty)(1, *data).backward()
        found[penalty] = {name: p.grad.clone() for name, p in coils.named_parameters() if p.requires_grad}
    moved = {
        name.split(".")[0] for name, grad in found[5.0].items() if not torch.equal(grad, found[0.0][name])
    }
    assert moved == {"policy", "certificate"}
    assert found[0.0]["model.backbone.0.weight"].abs().max() > 0


def test_worst_states_are_the_worst_of_the_pool():
    coils = van_der_pol_model()
    low, high = np.array([-3.0, -2.0]), np.array([3.0, 2.0])
    worst, scale = WorstStates((low, high), count=10, pool=200), torch.ones(2, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = worst.draw(coils, scale)
        torch.manual_seed(0)
        pool = torch.from_numpy(low) + torch.from_numpy(high - low) * torch.rand(200, 2, dtype=torch.float64)
    size = coils.correction(pool).square().sum(-1).detach()
    assert x.shape == (10, 2)
    assert coils.correction(x).square().sum(-1).min() >= size.sort().values[-10] * (1 - 1e-12) > 0
