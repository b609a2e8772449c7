"""Backbones: equivariance, transfer between grids, derivatives, dtypes, and a device that is not the default."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from constrained_nn.errors import ShapeError
from constrained_nn.operators import (
    FNO,
    MLP,
    DeepONet,
    FieldIncrement,
    GatedOperator,
    Increment,
    SpectralConv,
    SpectralScaling,
    TransportOperator,
    resample,
)
from control_envs.flows import KolmogorovFlow
from tests.fake_cuda import fake_cuda, on_cuda

FIELDS = {
    "fno-1d": (lambda: FNO((5,), width=6, depth=2), (16,)),
    "fno-2d": (lambda: FNO((4, 5), width=4, depth=2), (12, 16)),
    "gated-1d": (lambda: GatedOperator(1, width=5, depth=2, kernel=5), (16,)),
    "gated-2d": (lambda: GatedOperator(2, width=4, depth=2, modes=(3, 4)), (8, 12)),
    "transport": (lambda: TransportOperator((3, 4), width=4, depth=2), (8, 12)),
    "deeponet-1d": (lambda: DeepONet((16,), channels=(4, 6), hidden=(8,), basis=5), (16,)),
    "deeponet-2d": (lambda: DeepONet((8, 12), channels=(4,), hidden=(8,), basis=5), (8, 12)),
    "spectral": (lambda: SpectralConv(1, 1, (3, 4)), (8, 12)),
    "scaling": (lambda: SpectralScaling(1, (4,)), (11,)),
}
each = pytest.mark.parametrize("name", FIELDS)


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    make, shape = FIELDS[name]
    return make().double(), shape


def smooth(generator: torch.Generator, shape: tuple[int, ...], highest: int, count: int = 3) -> torch.Tensor:
    """Random trigonometric polynomials `(count, 1, *shape)`, of which other grids hold the same ones."""
    sizes = (2 * highest + 1,) * len(shape)
    coarse = torch.randn(count, 1, *sizes, generator=generator, dtype=torch.float64)
    return resample(coarse, shape)


def test_trunk_learns_short_waves(generator: torch.Generator) -> None:
    """`w(θ) = a cos 9θ + b sin 9θ`, from its values: learned with its harmonic in the trunk."""
    torch.manual_seed(0)
    net = DeepONet((32,), channels=(16,), hidden=(32, 32), basis=16, harmonics=10)
    angle = 9.0 * 2.0 * math.pi / 32.0 * torch.arange(32.0)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(200):
        a = torch.randn(32, 2, 1, generator=generator)
        w = (a[:, :1] * angle.cos() + a[:, 1:] * angle.sin()).detach()
        loss = (net(w) - w).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05


@each
def test_keeps_the_grid_in_float32_and_float64(name: str, generator: torch.Generator) -> None:
    net, shape = build(name)
    w = torch.randn(3, 1, *shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        exact, single = net(w), net.float()(w.float())
    assert exact.shape == w.shape
    assert exact.dtype == torch.float64
    assert net(w.float()[:0]).shape == (0, *w.shape[1:])
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-4)


@each
def test_derivatives_are_those_of_finite_differences(name: str, generator: torch.Generator) -> None:
    net, shape = build(name)
    w = torch.randn(1, 1, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = dict(net.named_parameters())
    names = list(weights)

    def output(w: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (w,))

    assert torch.autograd.gradcheck(output, (w, *weights.values()), fast_mode=True, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in FIELDS if "deeponet" not in n])
def test_translation_equivariant(name: str, generator: torch.Generator) -> None:
    net, shape = build(name)
    w = torch.randn(2, 1, *shape, generator=generator, dtype=torch.float64)
    by, axes = (3, 2)[: len(shape)], tuple(range(-len(shape), 0))
    torch.testing.assert_close(net(w.roll(by, axes)), net(w).roll(by, axes), rtol=1e-10, atol=1e-10)


def test_a_layer_of_the_transport_operator_holds_the_equation(generator: torch.Generator) -> None:
    """`−u ∂x w − v ∂y w + Δw / Re`, with `u = −∂yΔ⁻¹ w`, `v = ∂xΔ⁻¹ w`, as the solver computes it."""
    flow = KolmogorovFlow(points=32, forcing=0.0)
    net = TransportOperator((11, 11), width=4, depth=1).double()
    w = smooth(generator, (32, 32), 5)
    with torch.no_grad():
        for p in (*net.lift.parameters(), *net.before.parameters(), *net.pairs.parameters()):
            p.zero_()
        net.lift.weight[0] = 1.0  # h₀ = (w, 0, 0, 0)
        net.before[0].weight[:, 0] = 1.0  # all ten maps of w
        # behind the four channels of h: ∂x/4, ∂x/4, ∂y/4, ∂y/4, Δ/16, Δ/16, −2v, −2v, 2u, 2u
        a, b = net.pairs[0].weight[:4, :, 0, 0], net.pairs[0].weight[4:, :, 0, 0]
        a[0, 4 + 8], b[0, 4 + 0] = -2.0, 1.0  # −u ∂x w
        a[1, 4 + 6], b[1, 4 + 2] = 2.0, 1.0  # −v ∂y w
        a[2, 4 + 4] = 16.0 / flow.reynolds
        net.pairs[0].bias[4 + 2] = 1.0  # Δw / Re, times one
        net.mix[0].weight.copy_(torch.eye(4)[..., None, None])
        net.mix[0].bias.zero_()
        net.drop[0].weight.fill_(1.0)
        net.drop[0].bias.zero_()
        torch.testing.assert_close(net(w)[:, 0], flow.derivative(w[:, 0]), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("shape", "finer"), [((12,), (31,)), ((12, 9), (20, 16)), ((8, 16), (16, 10))])
def test_resampling_keeps_trigonometric_polynomials(shape, finer, generator: torch.Generator) -> None:
    w = smooth(generator, shape, 3)
    torch.testing.assert_close(resample(resample(w, finer), shape), w, rtol=0, atol=1e-12)
    x = [2 * math.pi / n * torch.arange(n, dtype=torch.float64) for n in finer]
    wave = torch.cos(2 * x[0] + 1.0) if len(finer) == 1 else torch.cos(2 * x[0][:, None] - 3 * x[1] + 1.0)
    torch.testing.assert_close(resample(resample(wave, shape), finer), wave, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shape", "finer"), [((16,), (40,)), ((12, 16), (24, 18))])
def test_spectral_maps_are_the_same_on_every_grid(shape, finer, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    modes = (5, 4)[: len(shape)]
    for net in (SpectralConv(1, 1, modes).double(), SpectralScaling(1, modes).double()):
        w = smooth(generator, shape, 5)
        torch.testing.assert_close(resample(net(w), finer), net(resample(w, finer)), rtol=0, atol=1e-12)


def test_a_coarse_grid_uses_the_frequencies_that_it_resolves(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    net = SpectralConv(1, 1, (9, 9)).double()
    w = smooth(generator, (9, 11), 4)
    fine = resample(w, (32, 32))
    torch.testing.assert_close(net(w), resample(net(fine), (9, 11)), rtol=0, atol=1e-12)


def test_spectral_convolution_is_a_circular_convolution(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    net = SpectralConv(1, 1, (6,)).double()  # all frequencies of eleven points
    impulse = torch.zeros(1, 1, 11, dtype=torch.float64)
    impulse[..., 0] = 1.0
    kernel = net(impulse)[0, 0]
    w = torch.randn(11, generator=generator, dtype=torch.float64)
    by_hand = torch.stack([sum(kernel[(i - j) % 11] * w[j] for j in range(11)) for i in range(11)])
    torch.testing.assert_close(net(w[None, None])[0, 0], by_hand, rtol=0, atol=1e-12)


def test_fno_transfers_to_a_finer_grid(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    net = FNO((6, 6), width=8, depth=3).double()
    w = 0.5 * smooth(generator, (32, 32), 3)
    on_coarse, on_fine = net(w), net(resample(w, (64, 64)))[..., ::2, ::2]
    assert (on_coarse - on_fine).norm() < 1e-3 * on_fine.norm()


def test_gated_operator_holds_an_explicit_step_of_burgers(generator: torch.Generator) -> None:
    """`−u ∂u/∂x` by central differences is one layer with a kernel of three points."""
    net = GatedOperator(1, width=1, depth=1, kernel=3).double()
    with torch.no_grad():
        for weights in net.parameters():
            weights.zero_()
        net.lift.weight[0, 0, 1] = 1.0
        net.pairs[0].weight[0, 0, 1] = -1.0
        net.pairs[0].weight[1, 0, :] = torch.tensor([-0.5, 0.0, 0.5])
        net.mix[0].weight[0, 0, 0] = 1.0
        net.drop.weight[0, 0, 1] = 1.0
    u = torch.randn(1, 1, 10, generator=generator, dtype=torch.float64)
    by_hand = u - u * 0.5 * (u.roll(-1, -1) - u.roll(1, -1))
    torch.testing.assert_close(net(u), by_hand, rtol=0, atol=1e-14)


def test_deeponet_answers_at_other_points(generator: torch.Generator) -> None:
    net, shape = build("deeponet-1d")
    w = torch.randn(2, 1, *shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(net(w, points=(48,))[..., ::3], net(w), rtol=0, atol=1e-12)


# --- increments --------------------------------------------------------------------------------------------


class Zero(nn.Module):
    """No increment, and what the backbone was given."""

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        self.seen = w
        return torch.zeros_like(w[:, :1])


def test_field_increment_normalizes_and_adds(generator: torch.Generator) -> None:
    backbone = Zero()
    static = torch.arange(8.0).reshape(1, 8)
    model = FieldIncrement(backbone, (16,), inner=(8,), mean=1.0, deviation=2.0, static=static)
    w = smooth(generator, (16,), 3).reshape(3, 16)
    torch.testing.assert_close(model(w), w, rtol=0, atol=1e-12)  # the inner grid resolves three modes
    assert backbone.seen.shape == (3, 2, 8)
    torch.testing.assert_close(backbone.seen[:, 0].double(), (resample(w, (8,)) - 1) / 2, rtol=0, atol=1e-6)
    torch.testing.assert_close(backbone.seen[:, 1], static.expand(3, 8))


def test_field_increment_drops_what_the_inner_grid_does_not_resolve() -> None:
    x = 2 * math.pi / 32 * torch.arange(32, dtype=torch.float64)
    model = FieldIncrement(Zero(), (32,), inner=(16,))
    torch.testing.assert_close(model(x.cos() + (9 * x).sin()), x.cos(), rtol=0, atol=1e-12)


def test_field_increment_conserves_the_mean(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    model = FieldIncrement(FNO((4, 4), width=4, depth=1), (8, 8), conserve_mean=True)
    w = torch.randn(2, 3, 64, generator=generator, dtype=torch.float64)
    after = model(w)
    assert after.shape == w.shape
    assert after.dtype == torch.float64  # with weights in float32
    torch.testing.assert_close(after.mean(-1), w.mean(-1), rtol=0, atol=1e-14)
    assert (after - w).abs().max() > 1e-3


def test_increment_is_normalized_by_data(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    states = torch.randn(4, 20, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 5.0])
    model = Increment.from_data(MLP(3, 3, (5,)).double(), states)
    torch.testing.assert_close(model.deviation, states.flatten(0, 1).std(0, correction=0))
    torch.testing.assert_close(model.step, states.diff(dim=1).square().mean((0, 1)).sqrt())
    x = states[0]
    by_hand = x + model.step * model.backbone((x - model.mean) / model.deviation)
    torch.testing.assert_close(model(x), by_hand)


# --- errors and devices ------------------------------------------------------------------------------------


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: SpectralConv(1, 1, (3, 3))(torch.zeros(8, 8)), "Add a direction"),
        (lambda: SpectralScaling(1, (3,))(torch.zeros(8)), "Add a direction"),
        (lambda: GatedOperator(1, width=2, depth=1)(torch.zeros(4, 2, 8)), "got (4, 2, 8)"),
        (lambda: TransportOperator((3, 3), width=2, depth=1)(torch.zeros(4, 2, 8, 8)), "got (4, 2, 8, 8)"),
        (lambda: DeepONet((16,))(torch.zeros(4, 1, 8)), "resample"),
        (lambda: DeepONet((16,))(torch.zeros(4, 16)), "got (4, 16)"),
        (lambda: FNO((3,), width=2, depth=1)(torch.zeros(4, 2, 8)), "(batch, 1, *grid), got (4, 2, 8)"),
        (lambda: FNO((3, 3, 3), width=2, depth=1), "one or two directions, got 3"),
        (lambda: FieldIncrement(Zero(), (4, 4))(torch.zeros(2, 4, 4)), "Flatten"),
    ],
)
def test_wrong_shapes_are_refused(call, says: str) -> None:
    with pytest.raises(ShapeError, match=re.escape(says)):
        call()


@pytest.mark.untyped
@pytest.mark.parametrize("name", [n for n in FIELDS if n != "fno-1d"])
def test_runs_on_another_device(name: str) -> None:
    make, shape = FIELDS[name]
    with fake_cuda():
        model = make() if name in ("spectral", "scaling") else FieldIncrement(make(), shape)
        flat = isinstance(model, FieldIncrement)
        w = on_cuda(torch.zeros(3, math.prod(shape)) if flat else torch.zeros(3, 1, *shape))
        tensors = [*model.named_parameters(), *model.named_buffers()]
        state = {key: on_cuda(value) for key, value in tensors}
        assert torch.func.functional_call(model, state, (w,)).device.type == "cuda"


def test_closure_adds_small_scales_that_do_not_act_back(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    inside = FNO((4,), width=4, depth=1)
    plain = FieldIncrement(inside, (32,), inner=(12,)).double()
    closed = FieldIncrement(inside, (32,), inner=(12,), closure=GatedOperator(1, width=3, depth=1)).double()
    w = torch.randn(2, 32, generator=generator, dtype=torch.float64)
    once, with_small = plain(w), closed(w)
    assert (once - with_small).abs().max() > 1e-3
    torch.testing.assert_close(resample(with_small, (12,)), resample(once, (12,)), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        resample(closed(with_small), (12,)), resample(plain(once), (12,)), rtol=0, atol=1e-12
    )


def test_limit_keeps_the_increment_of_far_states_finite() -> None:
    torch.manual_seed(0)
    model = FieldIncrement(GatedOperator(1, width=4, depth=4), (16,), limit=4.0)
    far = 1e30 * torch.ones(1, 16, dtype=torch.float64)
    assert (model(far) - far).isfinite().all()
    assert model.backbone(torch.full((1, 1, 16), 1e30)).isfinite().logical_not().any()
