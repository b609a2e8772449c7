"""ECO: the lemma, the theorem, the derivatives, and what goes wrong without them."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from constrained_nn.certificates import (
    DenseEnergy,
    DiagonalEnergy,
    FourierEnergy,
    LowRankEnergy,
    NeuralEnergy,
    energy_report,
)
from constrained_nn.control import StableDynamics
from constrained_nn.layers import (
    ECO,
    AbsoluteGate,
    BlendedProjection,
    EuclideanProjection,
    Nan,
    Ray,
    RayProjection,
    RelativeGate,
    Transformed,
)
from constrained_nn.sets import Halfspace, WeightedEllipsoid
from constrained_nn.solvers import Status
from tests.cases.energies import diagonal, low_rank, spectral
from tests.cases.sets import randn
from tests.cases.sets_convex import ellipsoid, number
from tests.fake_cuda import fake_cuda, on_cuda
from tests.oracles import finite_difference

SETS = {"diagonal": diagonal, "low-rank": low_rank, "fourier": spectral(2, 4), "dense": ellipsoid}


class Given(torch.nn.Module):
    """A backbone that proposes whatever it is told."""

    def __init__(self, proposal: torch.Tensor) -> None:
        super().__init__()
        self.proposal = proposal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proposal


def energies(generator: torch.Generator) -> list:
    """One energy of each kind on 16 components, fitted to the same data."""
    x = 0.5 + randn(generator, 300, 16) @ randn(generator, 16, 16) / 4
    points = torch.linspace(0, 1, 17, dtype=torch.float64)[:-1].unsqueeze(-1)
    quadrature = torch.full((16,), 1 / 16, dtype=torch.float64)
    return [
        DiagonalEnergy.from_data(x),
        DenseEnergy.from_data(x),
        LowRankEnergy.from_data(x, rank=3),
        FourierEnergy.from_data(x, 16),
        FourierEnergy.from_data(x, (4, 4)),
        NeuralEnergy.from_data(x, points, quadrature, hidden=(16,)),
    ]


# --- derivatives -------------------------------------------------------------------------------------------


def test_ray_has_the_derivatives_that_are_stated(generator: torch.Generator) -> None:
    """`s (g − Q d dᵀg / V)`, `dᵀg / (2 √(b V))`, `−s dᵀg dᵢ² / (2 V)` and, for the center, `g` less the first."""
    set = diagonal(generator, (5,))
    leaves = [t.requires_grad_() for t in (set.center, set.weights, set.level)]
    y = (set.center + 5.0 * randn(generator, 5, 4)).detach().requires_grad_()
    g = randn(generator, 5, 4)
    found = torch.autograd.grad((RayProjection().solve(y, set).value * g).sum(), (y, *leaves))
    d, q, b = (y - set.center).detach(), set.weights.detach(), set.level.detach().unsqueeze(-1)
    V, dg = (q * d * d).sum(-1, keepdim=True), (d * g).sum(-1, keepdim=True)
    s = (b / V).sqrt()
    of_d = s * (g - q * d * dg / V)
    expected = (of_d, g - of_d, -s * dg * d * d / (2 * V), (dg / (2 * (b * V).sqrt())).squeeze(-1))
    for a, e in zip(found, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-13)


def test_nearest_point_has_the_derivatives_that_are_stated(generator: torch.Generator) -> None:
    """The implicit derivative of the secular equation."""
    set = diagonal(generator, (5,))
    leaves = [t.requires_grad_() for t in (set.center, set.weights, set.level)]
    y = (set.center + 5.0 * randn(generator, 5, 4)).detach().requires_grad_()
    g = randn(generator, 5, 4)
    value = EuclideanProjection().solve(y, set).value
    found = torch.autograd.grad((value * g).sum(), (y, *leaves))
    q, e, d = set.weights.detach(), (value - set.center).detach(), (y - set.center).detach()
    nu = ((d - e) * q * e).sum(-1, keepdim=True) / (q * e).square().sum(-1, keepdim=True)
    h, a = 1 / (1 + nu * q), q * e
    r = h * g
    mu = (a * r).sum(-1, keepdim=True) / (a * h * a).sum(-1, keepdim=True)
    of_d = r - mu * h * a
    expected = (of_d, g - of_d, -nu * e * of_d - 0.5 * mu * e * e, (0.5 * mu).squeeze(-1))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("gate", [RelativeGate(), AbsoluteGate()], ids=["relative", "absolute"])
@pytest.mark.parametrize("target", [Ray(), Transformed()], ids=["ray", "transformed"])
@pytest.mark.parametrize("name", SETS)
def test_blend_has_the_derivatives_of_finite_differences(name, gate, target, generator) -> None:
    set = SETS[name](generator, ())
    layer = BlendedProjection(3.0, gate, target)
    y = (set.center + randn(generator, set.dim)).requires_grad_()
    level = set.level.clone().requires_grad_()

    def map(y: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return layer.solve(y, type(set)(**{**vars(set), "level": level})).value

    assert torch.autograd.gradcheck(map, (y, level), atol=1e-6)
    assert torch.autograd.gradgradcheck(map, (y, level), atol=1e-5)


@pytest.mark.parametrize(
    "layer", [RayProjection(), BlendedProjection(), BlendedProjection(target=Transformed())]
)
def test_derivatives_are_finite_where_something_is_zero(layer) -> None:
    for center, y, level in ((0.0, 0.0, 1.0), (0.0, 0.0, 0.0), (1.0, 3.0, 0.0), (0.0, 1e200, 1.0)):
        point = torch.full((2,), y, dtype=torch.float64, requires_grad=True)
        bound = number(level).requires_grad_()
        set = WeightedEllipsoid(torch.full((2,), center).double(), torch.tensor([1.0, 4.0]).double(), bound)
        value = layer.solve(point, set).value
        assert value.isfinite().all()
        assert all(g.isfinite().all() for g in torch.autograd.grad(value.sum(), (point, bound)))


# --- the lemma and the theorem -----------------------------------------------------------------------------


@pytest.mark.parametrize("gate", [RelativeGate(), AbsoluteGate()], ids=["relative", "absolute"])
@pytest.mark.parametrize("target", [Ray(), Transformed()], ids=["ray", "transformed"])
def test_lemma_3_bounds_the_excess_and_is_not_far_from_it(gate, target, generator) -> None:
    """The supremum of the excess is about 0.3 of the bound at `k b = 100`."""
    set = WeightedEllipsoid(
        torch.zeros(4).double(), torch.tensor([1.0, 2.0, 5.0, 30.0]).double(), torch.ones(()).double()
    )
    layer = BlendedProjection(100.0, gate, target)
    direction = randn(generator, 400, 4)
    direction = direction / set.value(direction).sqrt()
    size = torch.linspace(0.9, 1.2, 400, dtype=torch.float64).unsqueeze(-1)
    solution = layer.solve(size * direction, set)
    assert solution.ok.all()
    excess = float(set.value(solution.value).max()) - 1.0
    bound = float(layer.excess(set.level)) - 1.0
    assert 0.2 * bound < excess <= bound
    assert bound == pytest.approx((1 + 1 / (200 + 2 * math.sqrt(200))) ** 2 - 1, rel=1e-12)


def test_relative_gate_does_not_depend_on_the_unit_and_the_absolute_one_saturates(generator) -> None:
    y, unit = 1.00001 * torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    moved = {}
    for gate in (RelativeGate(), AbsoluteGate()):
        for scale in (1.0, 3025.0):
            set = WeightedEllipsoid(torch.zeros(1).double(), scale * unit, number(scale))
            moved[type(gate), scale] = float((y - BlendedProjection(100.0, gate).solve(y, set).value)[0])
    assert moved[RelativeGate, 1.0] == pytest.approx(moved[RelativeGate, 3025.0], rel=1e-6)
    assert moved[AbsoluteGate, 3025.0] > 1.8 * moved[AbsoluteGate, 1.0]


def test_published_map_is_no_retraction_and_the_ray_is_one(generator: torch.Generator) -> None:
    """On the boundary `w + √b L⁻ᵀ d/|d|` is another point unless `d` is an eigenvector."""
    weights = torch.logspace(0, 2, 16, dtype=torch.float64)
    set = WeightedEllipsoid(torch.zeros(16).double(), weights, number(1.0))
    y = randn(generator, 200, 16)
    y = y / set.value(y).sqrt()
    energy = set.value(y).squeeze(-1)
    jump = (Transformed()(y, energy, set) - y).norm(dim=-1) / y.norm(dim=-1)
    assert jump.median() > 0.5
    torch.testing.assert_close(set.value(Transformed()(y, energy, set)), torch.ones(200, 1).double())
    torch.testing.assert_close(RayProjection().solve(y, set).value, y, rtol=1e-12, atol=0)


def test_ball_makes_all_maps_the_same(generator: torch.Generator) -> None:
    set = WeightedEllipsoid(randn(generator, 5), torch.full((5,), 0.7).double(), number(2.0))
    y = set.center + 4.0 * randn(generator, 20, 5)
    ray = RayProjection().solve(y, set).value
    torch.testing.assert_close(EuclideanProjection().solve(y, set).value, ray, rtol=1e-10, atol=1e-10)
    sharp = BlendedProjection(1e9, target=Transformed()).solve(y, set).value
    outside = set.value(y).squeeze(-1) > 2.0
    torch.testing.assert_close(sharp[outside], ray[outside], rtol=1e-10, atol=1e-10)


def test_ray_is_nonexpansive_in_its_norm_and_nearest_there(generator: torch.Generator) -> None:
    set = low_rank(generator, ())
    a, b = (set.center + 3.0 * randn(generator, 200, 4) for _ in range(2))
    pa, pb = (RayProjection().solve(y, set).value for y in (a, b))

    def norm(d: torch.Tensor) -> torch.Tensor:
        return set.value(set.center + d).squeeze(-1).sqrt()

    inside = set.center + 0.7 * (pb - set.center)
    assert (norm(pa - a) <= norm(inside - a) + 1e-12).all()
    assert (
        norm(pa - pb) <= 2.0 * norm(a - b)
    ).all()  # a norm's radial map is 2-Lipschitz, 1 where it is Euclidean


LAYERS = {
    "ray": RayProjection,
    "nearest": EuclideanProjection,
    "relative blend": BlendedProjection,
    "published": lambda: BlendedProjection(100.0, AbsoluteGate(), Transformed()),
}


@pytest.mark.parametrize("name", LAYERS)
def test_theorem_4(name: str, generator: torch.Generator) -> None:
    """The level set is reached within `log(V₀/c) / log(1/α')` steps, and kept, whatever the backbone proposes."""
    for energy in energies(generator):
        energy.set_level(2.0)  # the published theorem asks for c > 1 / alpha
        model = ECO(torch.nn.Linear(16, 16).double(), energy, LAYERS[name](), alpha=0.8).eval()
        alpha = model.effective_alpha()
        assert 0.8 <= alpha < 1.0
        with torch.no_grad():
            model.backbone.weight.copy_(100.0 * randn(generator, 16, 16))
            start = 30.0 * randn(generator, 6, 16)
            first = energy.value(start)
            needed = int(torch.log(first.max() / 2.0) / math.log(1 / alpha)) + 2
            run = model.rollout(start, needed + 10)
        assert run.ok.all(), run.describe_failures()
        assert (run.energy[1:] <= alpha * run.energy[:-1].clamp_min(2.0) * (1 + 1e-9)).all()
        assert (run.energy[needed:] <= 2.0).all()
        assert (run.active > 0).all()


def test_linearized_condition_does_not_bound_a_discrete_step(generator: torch.Generator) -> None:
    """Outside of the level set `∇V·(x⁺ − x) + V − c <= 0` lets `V` grow in most large steps: why ECO is quadratic."""
    energy = DiagonalEnergy(torch.ones(4).double(), level=1.0, rate=1.0)
    x = 3.0 * randn(generator, 4000, 4)
    x = x[energy.value(x) > 1.0]
    proposed = x + 5.0 * randn(generator, *x.shape)
    row = energy.condition(0.0, x)
    assert isinstance(row, Halfspace)
    step = row.project(proposed - x)
    grown = energy.value(x + step) > energy.value(x)
    assert 0.4 < grown.double().mean() < 0.9
    bound = energy.next_condition(x, alpha=0.99)
    assert (
        energy.value(RayProjection().solve(proposed, bound).value) <= energy.value(x).clamp_min(1.0)
    ).all()


def test_predecessor_bounds_the_differential_equation_and_not_large_steps(generator: torch.Generator) -> None:
    """The half-space on the velocity, the row that CoILS uses; Runge-Kutta steps that are too long break it."""
    network = torch.nn.Linear(3, 3).double()
    with torch.no_grad():
        network.weight.copy_(6.0 * torch.eye(3))
    energy = DenseEnergy.from_data(randn(generator, 500, 3), rate=2.0)
    model = StableDynamics(network, energy)
    x = 4.0 * randn(generator, 50, 3)
    value, gradient = energy.value_and_gradient(x)
    slack = (gradient * model(x)).sum(-1) + 2.0 * (value - energy.level)
    assert (slack <= 1e-9 * (1 + value)).all()

    def after(step: float, count: int) -> torch.Tensor:
        z = x
        with torch.no_grad():
            for _ in range(count):
                k1 = model(z)
                k2 = model(z + 0.5 * step * k1)
                k3 = model(z + 0.5 * step * k2)
                z = z + step * (k1 + 2 * k2 + 2 * k3 + model(z + step * k3)) / 6
        return energy.value(z) / energy.level

    assert (after(0.01, 400) <= 1.02).all()
    assert (after(2.0, 400) > 1.02).any() or not after(2.0, 400).isfinite().all()


# --- energies ----------------------------------------------------------------------------------------------


def test_coordinates_and_determinants(generator: torch.Generator) -> None:
    for energy in energies(generator):
        x = 3.0 * randn(generator, 7, 16)
        z = energy.coordinates(x)
        torch.testing.assert_close(z.square().sum(-1), energy.value(x), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(energy.state(z), x, rtol=1e-9, atol=1e-9)
        hessian = torch.autograd.functional.hessian(lambda x, e=energy: e.value(x), x[0])
        torch.testing.assert_close(torch.logdet(0.5 * hessian) / 16, energy.log_det(), rtol=1e-9, atol=1e-9)
        wild = energy.sublevel(energy.level).from_coordinates(3.0 * randn(generator, 7, z.shape[-1]))
        assert wild.isfinite().all()


def test_volume_is_per_dimension_where_determinants_overflow() -> None:
    small = DiagonalEnergy(torch.full((2,), 4.0).double(), level=1.0)
    assert small.log_volume().item() == pytest.approx(0.5 * math.log(math.pi / 4.0), rel=1e-12)
    for scale in (1e-3, 1e3):
        large = DiagonalEnergy(torch.full((4096,), scale), level=1.0)
        gradient = torch.autograd.grad(large.log_volume(), large.log_weights)[0]
        assert large.log_volume().isfinite()
        torch.testing.assert_close(gradient, torch.full((4096,), -0.5 / 4096))


def test_data_are_covered_and_forbidden_transitions_counted(generator: torch.Generator) -> None:
    x = randn(generator, 2000, 6) * torch.linspace(1, 3, 6).double()
    before, after = x[:-1], x[1:]
    energy = DiagonalEnergy.from_data(x, quantile=0.9, headroom=1.0)
    report = energy_report(energy, before, after, alpha=0.99)
    values = energy.value(x)
    level = float(energy.level)
    assert report.coverage == pytest.approx(0.9, abs=2e-3)
    expected = values[1:] > 0.99 * values[:-1].clamp_min(level)
    assert report.forbidden == pytest.approx(float(expected.double().mean()))
    assert "true transitions forbidden" in str(report)
    energy.set_level(report.level_without * (1 + 1e-9))
    assert energy_report(energy, before, after, alpha=0.99).forbidden == 0.0
    energy.set_level(report.level_without * 0.99)
    assert energy_report(energy, before, after, alpha=0.99).forbidden > 0.0


def test_fourier_energy_is_the_same_for_translated_fields_and_fits_their_spectrum(generator) -> None:
    for shape in ((1, 12), (1, 9), (4, 6), (3, 5)):
        n = shape[0] * shape[1]
        noise = torch.fft.rfft2(randn(generator, 4000, *shape), norm="ortho")
        size = 1.0 / (1.0 + torch.arange(shape[1] // 2 + 1).double())
        fields = torch.fft.irfft2(noise * size, s=shape, norm="ortho")
        energy = FourierEnergy.from_data(fields.reshape(-1, n), shape if shape[0] > 1 else shape[1])
        moved = fields.roll((1, 2), (-2, -1)).reshape(-1, n)
        torch.testing.assert_close(
            energy.value(moved), energy.value(fields.reshape(-1, n)), rtol=1e-10, atol=1e-12
        )
        assert energy.value(moved).mean().item() == pytest.approx(1.0, abs=0.02)


def test_neural_energy_is_the_same_function_on_a_finer_grid(generator: torch.Generator) -> None:
    def grid(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        points = torch.arange(n, dtype=torch.float64).unsqueeze(-1) / n
        return points, torch.full((n,), 1.0 / n, dtype=torch.float64)

    def fields(n: int) -> torch.Tensor:
        angle = 2 * math.pi * grid(n)[0].squeeze(-1)
        amplitude = torch.randn(50, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return angle.sin() + amplitude * (1.5 + angle.cos())

    def waves(points: torch.Tensor) -> torch.Tensor:
        return torch.cat([(2 * math.pi * points).sin(), (2 * math.pi * points).cos()], -1)

    coarse = NeuralEnergy.from_data(fields(64), *grid(64), features=waves, hidden=(32,))
    fine = coarse.on(*grid(128))
    torch.testing.assert_close(fine.value(fields(128)), coarse.value(fields(64)), rtol=1e-6, atol=1e-6)
    assert fine.density_net is coarse.density_net
    assert fine.log_level is coarse.log_level
    variance = fields(64).var(0, correction=0)
    weights = coarse.log_weights().exp() * variance
    assert float(weights.std() / weights.mean()) < 0.05  # the density follows the inverse of the variance


# --- the model ---------------------------------------------------------------------------------------------


def adversary(generator: torch.Generator, n: int, size: float) -> torch.nn.Module:
    """Two layers with weights of random signs and sizes over six decades."""
    network = torch.nn.Sequential(torch.nn.Linear(n, 32), torch.nn.GELU(), torch.nn.Linear(32, n)).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(
                size * randn(generator, *p.shape) * 10.0 ** (6 * torch.rand(p.shape, generator=generator) - 3)
            )
    return network


def never_leaves(
    generator: torch.Generator, dtype: torch.dtype, steps: int, alpha: float, energy, sizes
) -> None:
    """From states of norm up to 100 times the data's, for hostile weights, no bound is missed at any step."""
    n = energy.dim
    for size in sizes:
        model = ECO(adversary(generator, n, size), energy, alpha=alpha).to(dtype).eval()
        start = torch.logspace(-1, 2, 8, dtype=torch.float64).unsqueeze(-1) * randn(generator, 8, n)
        with torch.no_grad():
            run = model.rollout(start.to(dtype), steps, every=steps)
        assert run.ok.all(), run.describe_failures()
        assert (run.violation <= 0).all()
        assert (run.energy[1:] <= alpha * run.energy[:-1].clamp_min(float(energy.level))).all()
        entered = run.energy <= float(energy.level)
        assert entered[-1].all()
        assert (entered.int().diff(dim=0) >= 0).all(), "a trajectory left the level set"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_hostile_weights_never_leave_the_set(dtype: torch.dtype, generator: torch.Generator) -> None:
    for energy in energies(generator)[:1] + energies(generator)[3:4]:
        never_leaves(generator, dtype, 300, 0.95, copy.deepcopy(energy), (1.0,))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_hostile_weights_never_leave_the_set_in_ten_thousand_steps(dtype, generator: torch.Generator) -> None:
    for energy in energies(generator):
        never_leaves(generator, dtype, 10_000, 0.99, copy.deepcopy(energy), (1e-2, 1.0, 1e6))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_bound_holds_in_random_steps(dtype: torch.dtype, generator: torch.Generator) -> None:
    """`bench energy` does ten million of each."""
    from constrained_nn.bench.energy import violations

    found = violations(str(dtype).removeprefix("torch."), "float64", 50_000)
    assert found["violated"] == 0
    assert found["active"] > 25_000
    assert -found["room"] < found["worst"] < 0.0


def test_infinite_proposals_are_flagged_and_hurt_nobody_else(generator: torch.Generator) -> None:
    energy = DiagonalEnergy(torch.ones(3).double(), level=1.0)
    proposal = 5.0 * randn(generator, 4, 3)
    healthy = ECO(Given(proposal), energy).eval().solve(torch.zeros(4, 3).double())
    for poison in (torch.inf, torch.nan):
        bad = proposal.clone()
        bad[2, 1] = poison
        model = ECO(Given(bad), energy, on_failure=Nan())
        found = model.solve(torch.zeros(4, 3).double())
        assert found.status.tolist() == [0, 0, int(Status.NONFINITE_INPUT), 0]
        assert torch.equal(found.value[[0, 1, 3]], healthy.value[[0, 1, 3]])
        assert found.violation[2] == torch.inf
        assert model(torch.zeros(4, 3).double())[2].isnan().all()
        run = model.rollout(torch.zeros(4, 3).double(), 3)
        assert run.states[1:, 2].isnan().all()
        assert run.status.tolist() == [0, 0, int(Status.NONFINITE_INPUT), 0]
        assert run.states[:, [0, 1, 3]].isfinite().all()


def test_states_of_any_shape_and_further_inputs(generator: torch.Generator) -> None:
    class Forced(torch.nn.Module):
        def forward(self, x: torch.Tensor, force: torch.Tensor) -> torch.Tensor:
            return 9.0 * x + force

    model = ECO(Forced(), FourierEnergy(torch.ones(4, 3).double(), (4, 4), level=3.0), shape=(4, 4)).eval()
    x, force = randn(generator, 2, 5, 4, 4), randn(generator, 2, 5, 4, 4)
    assert model(x, force).shape == x.shape
    assert model.solve(x, force).value.shape == (2, 5, 16)


def test_counts_how_often_the_condition_acts(generator: torch.Generator) -> None:
    energy = DiagonalEnergy(torch.ones(2).double(), level=1.0)
    proposal = torch.tensor([[0.1, 0.0], [3.0, 0.0], [0.0, 9.0], [0.5, 0.5]], dtype=torch.float64)
    model = ECO(Given(proposal), energy, alpha=1.0)
    assert model.activation_rate() == 0.0
    model(torch.zeros(4, 2).double())
    assert model.activation_rate() == 0.5
    model.reset_counts()
    assert model.activation_rate() == 0.0
    assert "seen" not in model.state_dict()
    assert model.rollout(torch.zeros(4, 2).double(), 6).active.tolist() == [0, 6, 6, 0]


def test_gradients_reach_center_level_and_weights(generator: torch.Generator) -> None:
    energy = DiagonalEnergy(torch.ones(3).double(), level=0.5, learn_level=True)
    model = ECO(Given(4.0 * randn(generator, 6, 3)), energy)
    loss = model.rollout(0.1 * randn(generator, 6, 3), 2).states.square().sum() + energy.log_volume()
    gradients = torch.autograd.grad(loss, list(energy.parameters()))
    assert len(gradients) == 3
    assert all(g.abs().max() > 0 for g in gradients)

    def of_level(log_level: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(
            model, {"energy.log_level": log_level}, (torch.zeros(6, 3).double(),)
        ).sum(-1)

    level = energy.log_level.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(of_level(level).sum(), level)
    assert float(found) == pytest.approx(float(finite_difference(of_level, level).sum()), rel=1e-6)


@pytest.mark.untyped
def test_model_compiles_and_does_not_synchronize(generator: torch.Generator) -> None:
    for energy in (energies(generator)[0], energies(generator)[3]):
        model = ECO(torch.nn.Linear(16, 16).double(), energy).eval()
        x = 5.0 * randn(generator, 4, 16)
        if isinstance(energy, DiagonalEnergy):
            compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-12, atol=1e-12)
        mapped = torch.func.vmap(model)(x)
        torch.testing.assert_close(mapped, model(x), rtol=1e-12, atol=1e-12)
        with fake_cuda():
            tensors = {n: on_cuda(t) for n, t in [*model.named_parameters(), *model.named_buffers()]}
            found = torch.func.functional_call(model, tensors, (on_cuda(x),))
        assert found.device.type == "cuda"


def test_model_survives_its_state_dict(generator: torch.Generator) -> None:
    first, second = energies(generator)[5], energies(torch.Generator().manual_seed(9))[5]
    x = 5.0 * randn(generator, 4, 16)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.value(x), second.value(x))
    assert torch.equal(copy.deepcopy(first).value(x), first.value(x))
