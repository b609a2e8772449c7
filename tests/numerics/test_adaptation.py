"""Adaptive control: Lyapunov functions along fine rollouts, the PID identity, the laws and their discrete forms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from constrained_nn import Box, EuclideanProjection
from constrained_nn.control import (
    AdaptiveController,
    ConstantFeature,
    DeadZone,
    Gradient,
    MirrorPotential,
    NoAdaptation,
    PositiveDefinite,
    ProjectionToBall,
    SafetyFilter,
    SaturatedCascade,
    SigmaModification,
    TanhFeatures,
    flat_state,
)
from control_envs.dynamics import PVTOL, Dynamics, Manipulator, PlanarRotorcraft
from control_envs.references import Loops
from control_envs.simulate import RK4, rollout
from tests.fake_cuda import fake_cuda, on_cuda

ARM = Manipulator(lengths=(0.6, 0.5, 0.4), masses=(1.0, 0.8, 0.5), damping=0.0)
CALM = PlanarRotorcraft(drag_x=0.0, drag_y=0.0)


@dataclass(frozen=True)
class WithForce(Dynamics):
    """A mechanical plant with a force `target y(x)` in the span of the features."""

    plant: Any
    features: Any
    target: Any

    @property
    def state_dim(self) -> int:
        return self.plant.state_dim

    @property
    def input_dim(self) -> int:
        return self.plant.input_dim

    def derivative(self, t, x, u, w=None, *, xp=None):
        d = self.plant.degrees
        force = (self.target @ self.features(x)[..., None])[..., 0]
        more = self.plant.accelerate(x[..., :d], force, xp=torch)
        return self.plant.derivative(t, x, u) + torch.cat([torch.zeros_like(more), more], -1)


@dataclass(frozen=True)
class WithInput(WithForce):
    """The PVTOL with a matched force: `B target y(x)`."""

    def derivative(self, t, x, u, w=None, *, xp=None):
        return self.plant.derivative(t, x, u + (self.target @ self.features(x)[..., None])[..., 0])


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def controller(plant, generator, law, count=4) -> AdaptiveController:
    features = TanhFeatures(6, (8, count), generator=generator)
    with torch.no_grad():
        features.layers[0].weight.mul_(8.0)
        features.layers[1].weight.mul_(10.0)
    L, K, G = (PositiveDefinite.random(3, scale=0.3, generator=generator) for _ in range(3))
    return AdaptiveController(
        plant, features, L=L, K=K, G=2.0 if isinstance(law, MirrorPotential) else G, law=law
    )


class Backwards(Gradient):
    """A mutation of the gradient law: the estimate runs away from the error."""

    def rate(self, Z, gain, s, y):
        return -super().rate(Z, gain, s, y)


def fine_rollout(plant, law, generator, dt=1e-3, horizon=400):
    """`V`, its rate and `−sᵀ K s` in the middle of every step; path and target of a force in the feature span."""
    policy = controller(plant, generator, law)
    target = draw(generator, 3, 4)
    target *= 0.3 / target.norm()  # inside of the ball
    true = WithForce(plant, policy.features, target)
    reference = Loops(roll=0.5, period=2.0).table(dt, horizon, stages=2).to(target)
    start = reference(0.0)[:2].flatten() + 0.5 * draw(generator, 5, 6)
    path = rollout(true, policy, start, dt=dt, horizon=horizon, reference=reference, hold=False)
    along = reference.values[::2]
    V = policy.value(path.x, along, path.z, target)
    q, dq = path.x[..., :3], path.x[..., 3:]
    s = dq - along[:, 1] + (q - along[:, 0]) @ policy.L()
    return V, (V[:, 1:] - V[:, :-1]) / dt, -middle(((s @ policy.K()) * s).sum(-1)), path, target


def middle(values):
    return 0.5 * (values[:, 1:] + values[:, :-1])


def check_fall(law, V, rate, bound):
    """`V` never rises, and `V' = −sᵀ K s` to the error of a difference over a step (below it where a ball acts)."""
    assert (rate <= 1e-9 * V[:, :-1].abs() + 1e-9).all()
    excess = (rate - bound) / (1.0 - bound[:, :1])
    assert (excess.max() if isinstance(law, ProjectionToBall) else excess.abs().max()) < 2e-2


PLANTS = pytest.mark.parametrize("plant", [CALM, ARM], ids=["rotorcraft", "arm"])


@PLANTS
@pytest.mark.parametrize(
    "law", [Gradient(), ProjectionToBall(0.32), MirrorPotential(1.5), MirrorPotential(3.0)], ids=str
)
@torch.no_grad()
def test_lyapunov_function_falls(plant, law, generator):
    """Along a fine rollout when the force lies in the span of the features."""
    V, rate, bound, path, _ = fine_rollout(plant, law, generator)
    check_fall(law, V, rate, bound)
    if isinstance(law, ProjectionToBall):
        assert path.z.norm(dim=-1).max() > 0.319  # the ball does act


@PLANTS
@torch.no_grad()
def test_lyapunov_function_rises_under_a_law_of_the_wrong_sign(plant, generator):
    """The check above sees it."""
    V, rate, bound, _, _ = fine_rollout(plant, Backwards(), generator)
    assert rate.max() > 0.1
    with pytest.raises(AssertionError):
        check_fall(Gradient(), V, rate, bound)


@PLANTS
@torch.no_grad()
def test_lyapunov_function_under_a_leak(plant, generator):
    """`V' = −sᵀ K s − σ A·(A − A*)`, so that it exceeds `−sᵀ K s` by at most `½ σ |A*|²`."""
    decay = 0.5
    _, rate, bound, path, target = fine_rollout(plant, SigmaModification(decay), generator)
    A = path.z.unflatten(-1, target.shape)
    leak = -decay * middle((A * (A - target)).sum((-2, -1)))
    scale = 1.0 - bound[:, :1]
    assert ((rate - bound - leak) / scale).abs().max() < 2e-2
    assert leak.abs().max() > 2e-2
    assert (leak <= 0.5 * decay * target.square().sum()).all()


@pytest.mark.parametrize("law", [Gradient(), Backwards()], ids=["gradient", "backwards"])
@torch.no_grad()
def test_cascade_cancels_a_force_in_the_span(law, generator):
    """`V + ½ tr((A − A*)ᵀ P⁻¹ (A − A*))` changes as `V` alone does without force and estimate, to the second order.

    The cascade promises no more: that rate itself is not of one sign, because roll errors push the outer loop.
    """
    policy = SaturatedCascade(
        controller(CALM, generator, law).features,
        P=PositiveDefinite.random(2, scale=0.3, generator=generator),
        law=law,
    )
    plant = PVTOL(drag_x=0.0, drag_y=0.0, drag_rotor=0.0)
    target = draw(generator, 2, 4)
    target *= 0.5 / target.norm()
    dt, horizon = 1e-3, 600
    loops = Loops(width=1.0, height=0.5, period=10.0, speed=0.1, order=4)
    table = loops.table(dt, horizon, stages=2).to(target)
    state, _ = flat_state(table.values[::2])
    start = state[0] + 0.2 * draw(generator, 5, 6)
    true = WithInput(plant, policy.features, target)
    path = rollout(true, policy, start, dt=dt, horizon=horizon, reference=table, hold=False)
    total = policy.value(path.x, table.values[::2]) + Gradient().energy(
        path.z.unflatten(-1, target.shape), target, policy.P()
    )
    rate = (total[:, 2:] - total[:, :-2]) / (2 * dt)
    nominal = _nominal_rate(policy, plant, path.x[:, 1:-1], table.values[2:-2:2])
    apart = ((rate - nominal).abs() / (1.0 + nominal.abs())).max()
    energy = (rate - _change(policy.value(path.x, table.values[::2]), dt)).abs().max()
    assert energy > 0.1  # what is cancelled is not small
    if isinstance(law, Backwards):
        assert apart > 0.1
    else:
        assert apart < 1e-3


def _change(V, dt):
    return (V[:, 2:] - V[:, :-2]) / (2 * dt)


def _nominal_rate(policy, plant, x, reference, h=1e-5):
    """`V'` along the prior under the cascade without its estimate, by differences in the direction of motion."""
    zero = torch.zeros(*x.shape[:-1], policy.state_dim, dtype=x.dtype)
    reference = reference.expand(*x.shape[:-1], *reference.shape[-2:])
    u, _ = policy(0.0, x, reference, zero)
    slope = plant.derivative(0.0, x, u)
    moves = torch.cat([reference[..., 1:, :], torch.zeros_like(reference[..., :1, :])], -2)
    up, down = (policy.value(x + d * slope, reference + d * moves) for d in (h, -h))
    return (up - down) / (2 * h)


def test_constant_feature_is_pid(generator):
    """`τ = r'' + g − (K + L) e' − (K L + G) e − G L ∫e`, with the integral worked out on the side."""
    L, K, G = (PositiveDefinite.random(3, scale=0.5, generator=generator)().detach() for _ in range(3))
    policy = AdaptiveController(CALM, ConstantFeature(), L=L, K=K, G=G)
    table = Loops(roll=0.5).table(0.005, 400, stages=2).to(L)

    class Pid:
        state_dim = 3

        def __call__(self, t, x, reference, integral):
            r, dr, ddr = reference[..., 0, :], reference[..., 1, :], reference[..., 2, :]
            e, de = x[..., :3] - r, x[..., 3:] - dr
            tau = ddr - de @ (K + L) - e @ (K @ L + G).mT - integral @ (G @ L).mT
            tau = tau + x.new_tensor([0.0, 9.81, 0.0])
            return CALM.allocate(x[..., :3], tau), e

    start = table(0.0)[:2].flatten().repeat(4, 1)
    start[:, 3:] += draw(generator, 4, 3)  # position errors at the start belong to the integral
    options = dict(
        dt=0.005, horizon=400, reference=table, hold=False, disturbance=lambda t, x: x.new_tensor([3.0])
    )
    with torch.no_grad():
        ours = rollout(PlanarRotorcraft(), policy, start, **options)
        pid = rollout(PlanarRotorcraft(), Pid(), start, z0=_integral(policy, start, table(0.0)), **options)
    torch.testing.assert_close(ours.x, pid.x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.u, pid.u, rtol=1e-9, atol=1e-9)


def _integral(policy, start, reference):
    """`A = G (e + L ∫e)` is zero at the start: `∫e = −L⁻¹ e`, zero for a start on the reference."""
    return -torch.linalg.solve(policy.L(), (start[:, :3] - reference[0]).mT).mT


def test_mirror_potential_of_two_is_the_gradient_law(generator):
    Z, s, y = draw(generator, 5, 3, 4), draw(generator, 5, 3), draw(generator, 5, 4)
    mirror, G = MirrorPotential(2.0), torch.eye(3).double()
    torch.testing.assert_close(mirror.estimate(Z), Z)
    torch.testing.assert_close(mirror.rate(Z, G, s, y), Gradient().rate(Z, G, s, y))
    for p in (1.3, 4.0):  # the estimate is the gradient of the dual potential, and inverts |a|^(p-1)
        law = MirrorPotential(p, smoothing=1e-9)
        A = law.estimate(Z)
        torch.testing.assert_close(A.sign() * A.abs() ** (p - 1.0), Z, rtol=1e-6, atol=1e-6)
        zero = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(MirrorPotential(p).estimate(zero).sum(), zero)
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "law",
    [Gradient(), SigmaModification(0.5), ProjectionToBall(0.8), DeadZone(0.1), MirrorPotential(1.5)],
    ids=str,
)
@torch.no_grad()
def test_discrete_forms_agree_with_the_continuous_law(law, generator):
    """One second with a held signal: the error of the discrete form falls with the square of the step."""
    G = PositiveDefinite.random(3, generator=generator)()
    y = draw(generator, 4)

    def end(steps: int):
        Z, dt = torch.zeros(3, 4).double(), 1.0 / steps
        for k in range(steps):
            s = [torch.tensor([math.sin(3 * t), 0.5, t]).double() for t in (k * dt, (k + 1) * dt)]
            rate = law.rate(Z, G, s[0], y)
            Z = law.advance(Z, rate, law.rate(Z + dt * rate, G, s[1], y), G, dt)
        return Z

    best = end(4096)
    coarse, fine = ((end(n) - best).abs().max().item() for n in (16, 64))
    limit = 5.0 if isinstance(law, ProjectionToBall) else 12.0  # first order where the constraint switches on
    assert coarse < 0.05
    assert coarse > limit * fine or coarse < 1e-12


@torch.no_grad()
def test_laws_do_what_they_are_for(generator):
    G, y, s = 4.0 * torch.eye(3).double(), torch.ones(4).double(), torch.ones(3).double()
    Z = torch.zeros(3, 4).double()
    assert DeadZone(2.0).rate(Z, G, s, y).abs().max() == 0.0
    torch.testing.assert_close(
        DeadZone(0.5).rate(Z, G, s, y), (1 - 0.5 / 3**0.5) * Gradient().rate(Z, G, s, y)
    )
    assert NoAdaptation().rate(Z, G, s, y).abs().max() == 0.0
    leak, ball = SigmaModification(0.5), ProjectionToBall(1.0)
    Zl, Zb = Z + 10.0, Z
    for _ in range(200):  # a step of 5 s, far too long for an explicit leak
        rate = leak.rate(Zl, G, 0 * s, y)
        Zl = leak.advance(Zl, rate, leak.rate(Zl + 5.0 * rate, G, 0 * s, y), G, 5.0)
        rate = ball.rate(Zb, G, s, y)
        Zb = ball.advance(Zb, rate, ball.rate(Zb + 0.1 * rate, G, s, y), G, 0.1)
        assert Zb.norm() <= 1.0 + 1e-12
    assert Zl.abs().max() < 1e-6
    assert Zb.norm() > 0.99


@pytest.mark.parametrize(
    ("law", "value"),
    [(SigmaModification, 0.0), (ProjectionToBall, -1.0), (DeadZone, 0.0), (MirrorPotential, 1.0)],
)
def test_bad_constants_are_refused(law, value):
    with pytest.raises(ValueError, match=r"expected .* > 0, got"):
        law(value)


def test_gain_is_what_it_was_given(generator):
    X = draw(generator, 4, 4)
    X = X @ X.mT + torch.eye(4)
    gain = PositiveDefinite(X)
    torch.testing.assert_close(gain(), X)
    assert gain.raw.shape == (10,)
    first = PositiveDefinite(torch.eye(1).double())
    with torch.no_grad():
        first.raw.fill_(0.6394)  # of the published weights
    assert abs(first().item() - 3.5922) < 1e-3
    with pytest.raises(ValueError, match="symmetric positive definite"):
        PositiveDefinite(-torch.eye(2))


@torch.no_grad()
def test_cascade_follows_and_its_lyapunov_function_falls_without_wind(generator):
    """No wind, no adaptation: from a start off the reference, `V` falls and the error vanishes."""
    calm = PVTOL(drag_x=0.0, drag_y=0.0, drag_rotor=0.0)
    policy = SaturatedCascade(ConstantFeature(), law=NoAdaptation())
    table = Loops(width=1.0, height=0.5, period=20.0, speed=0.1, order=4).table(0.04, 500, stages=2)
    table = table.to(torch.zeros(1).double())
    state, push = flat_state(table.values[::2])
    start = state[0] + 0.15 * torch.cat([torch.zeros(1, 6).double(), draw(generator, 5, 6)])
    path = rollout(calm, policy, start, dt=0.04, horizon=500, reference=table, hold=False)
    torch.testing.assert_close(path.x[0], state, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(path.u[0], push[:-1], rtol=1e-6, atol=1e-6)
    V = policy.value(path.x, table.values[::2])[1:]
    assert path.complete.all()
    assert (V[:, -1] < 1e-2 * V[:, 0]).all()


@torch.no_grad()
def test_layer_behind_an_adaptive_controller(generator):
    """Every held input lies in the box; the controller keeps its state; a box too large to act changes nothing."""
    policy = controller(CALM, generator, Gradient())
    table = Loops(roll=0.5, period=3.0).table(0.01, 100).to(torch.zeros(1).double())
    start = table(0.0)[:2].flatten() + 0.5 * draw(generator, 4, 6)

    def run(size: float):
        middle = torch.tensor([9.81, 0.0, 0.0]).double()
        box = SafetyFilter(
            policy, lambda t, x: Box(middle - size, middle + size), EuclideanProjection()
        ).eval()
        return rollout(PlanarRotorcraft(), box, start, dt=0.01, horizon=100, reference=table)

    tight, loose = run(1.0), run(1e6)
    free = rollout(PlanarRotorcraft(), policy, start, dt=0.01, horizon=100, reference=table)
    middle = torch.tensor([9.81, 0.0, 0.0]).double()
    assert (tight.u - middle).abs().max() <= 1.0 + 1e-12
    assert (free.u - middle).abs().max() > 2.0
    torch.testing.assert_close(loose.x, free.x)
    torch.testing.assert_close(loose.z, free.z)
    assert tight.z.shape == (4, 101, 12)


def test_gradients_flow_through_the_closed_loop(generator):
    """Of features and gains, against finite differences."""
    policy = controller(CALM, generator, Gradient())
    table = Loops(roll=0.5, period=3.0).table(0.05, 10, stages=2).to(torch.zeros(1).double())
    start = table(0.0)[:2].flatten() + 0.5 * draw(generator, 3, 6)

    def cost():
        wind = start.new_tensor([3.0])
        path = rollout(
            PlanarRotorcraft(),
            policy,
            start,
            dt=0.05,
            horizon=10,
            reference=table,
            hold=False,
            disturbance=lambda t, x: wind,
        )
        return path.x[..., :3].square().sum()

    parameters = dict(policy.named_parameters())
    gradients = torch.autograd.grad(cost(), list(parameters.values()))
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        with torch.no_grad():
            flat, i, h = parameter.view(-1), parameter.numel() // 2, 1e-6
            old = flat[i].item()
            flat[i] = old + h
            up = cost()
            flat[i] = old - h
            numerical = (up - cost()) / (2 * h)
            flat[i] = old
        assert abs(gradient.view(-1)[i] - numerical) < 1e-6 * (1 + abs(numerical)), name


class InALoop(torch.nn.Module):
    """The rollout as a module, so that the weights can be swapped for fake ones."""

    def __init__(self, plant, policy, hold):
        super().__init__()
        self.plant, self.policy, self.hold = plant, policy, hold

    def forward(self, x, reference):
        look = lambda t: reference  # noqa: E731
        return rollout(self.plant, self.policy, x, dt=0.1, horizon=2, reference=look, hold=self.hold).z


@pytest.mark.untyped
@pytest.mark.parametrize("hold", [True, False])
def test_no_hidden_synchronization(generator, hold):
    cases = [
        (PlanarRotorcraft(), controller(CALM, generator, ProjectionToBall(1.0)), (3, 3)),
        (PVTOL(), SaturatedCascade(TanhFeatures(6, generator=generator)), (5, 2)),
    ]
    for plant, policy, shape in cases:
        loop = InALoop(plant, policy, hold)
        x, reference = torch.zeros(4, 6).double(), torch.zeros(4, *shape).double()
        with fake_cuda():
            tensors = {n: on_cuda(t) for n, t in loop.state_dict(keep_vars=True).items()}
            z = torch.func.functional_call(loop, tensors, (on_cuda(x), on_cuda(reference)))
            assert z.device.type == "cuda"


def test_numpy_controller_with_a_state():
    """Rollouts know nothing of torch: a plain object with a state, in NumPy, held by the trapezoid rule."""

    class Integral:
        state_dim = 1

        def __call__(self, t, x, reference, z):
            return -2.0 * x[..., 2:3] * np.ones(3) - z, x[..., :1] - reference

    path = rollout(CALM, Integral(), np.ones((2, 6)), dt=0.1, horizon=3, reference=lambda t: t)
    expected = np.zeros(2)
    for k in range(3):
        expected = expected + 0.05 * (path.x[:, k, 0] - 0.1 * k + path.x[:, k + 1, 0] - 0.1 * (k + 1))
        np.testing.assert_allclose(path.z[:, k + 1, 0], expected, rtol=1e-12)


def test_wrong_uses_are_named():
    policy = AdaptiveController(CALM, ConstantFeature())
    x = torch.zeros(6, dtype=torch.float64)
    reference = lambda t: torch.zeros(3, 3, dtype=torch.float64)  # noqa: E731
    with pytest.raises(ValueError, match="expected sub-steps only"):
        rollout(CALM, lambda t, x: x[:3], x, dt=0.1, horizon=1, hold=False)
    with pytest.raises(ValueError, match="expected z0 of shape"):
        rollout(CALM, policy, x, dt=0.1, horizon=1, reference=reference, z0=torch.zeros(2))
    table = Loops(roll=0.1).table(0.1, 4)
    with pytest.raises(ValueError, match="expected a time"):
        table(0.05)
    rollout(CALM, policy, x, dt=0.1, horizon=2, integrator=RK4(), reference=reference, hold=False)
