"""ECO: the lemma, the theorem, the derivatives, and what goes wrong without them."""

from __future__ import annotations

import math

import pytest
import torch

from constrained_nn.certificates import (
    DenseEnergy,
    DiagonalEnergy,
)
from constrained_nn.layers import (
    AbsoluteGate,
    BlendedProjection,
    EuclideanProjection,
    Ray,
    RayProjection,
    RelativeGate,
    Transformed,
)
from constrained_nn.models import ECO, StableDynamics
from constrained_nn.sets import Halfspace, WeightedEllipsoid
from tests.cases.energies import diagonal, fitted, low_rank, spectral
from tests.cases.sets import randn
from tests.cases.sets_convex import ellipsoid, number

SETS = {"diagonal": diagonal, "low-rank": low_rank, "fourier": spectral(2, 4), "dense": ellipsoid}


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
    for energy in fitted(generator):
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
        network.bias.zero_()
    energy = DenseEnergy.from_data(randn(generator, 500, 3), rate=2.0)
    model = StableDynamics(network, energy)
    x = 4.0 * randn(generator, 50, 3)
    value, gradient = energy.value_and_gradient(x)
    slack = (gradient * model(x)).sum(-1) + 2.0 * (value - energy.level)
    assert (slack <= 1e-9 * (1 + value)).all()

    def levels(step: float, count: int) -> torch.Tensor:
        """`V / level` after each step, `(count, batch)`."""
        z, seen = x, []
        with torch.no_grad():
            for _ in range(count):
                k1 = model(z)
                k2 = model(z + 0.5 * step * k1)
                k3 = model(z + 0.5 * step * k2)
                z = z + step * (k1 + 2 * k2 + 2 * k3 + model(z + step * k3)) / 6
                seen.append(energy.value(z) / energy.level)
        return torch.stack(seen)

    assert (levels(0.01, 400)[-1] <= 1.02).all()
    assert (levels(2.0, 400)[200:] > 1.5).any()  # out again, long after it was reached


# --- points that are far away, or all but the center ----------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("power", [12, 17, 30, 100, 300])
def test_nearest_point_of_the_farthest_points_is_in_the_set(name: str, power: int, generator) -> None:
    """As far away as floating point goes, the derivatives of shared tensors finite."""
    set = SETS[name](generator, ())
    leaves = [getattr(set, field).requires_grad_() for field in set.core_ndims]
    y = 10.0**power * randn(generator, 6, set.dim)
    solution = EuclideanProjection().solve(y, set)
    assert solution.ok.all()
    torch.testing.assert_close(set.value(solution.value).squeeze(-1), set.level.expand(6), rtol=1e-9, atol=0)
    slopes = torch.autograd.grad(solution.value.sum(), leaves, allow_unused=True)
    assert all(slope is None or slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize(
    "layer",
    [RayProjection(), EuclideanProjection(), BlendedProjection(), BlendedProjection(target=Transformed())],
    ids=["ray", "nearest", "blend", "published"],
)
@pytest.mark.parametrize(
    ("dtype", "size"),
    [(torch.float64, 1e-160), (torch.float64, 1e200), (torch.float32, 1e-22), (torch.float32, 1e30)],
)
def test_energies_that_are_no_normal_numbers_hurt_nobody(layer, dtype: torch.dtype, size: float) -> None:
    """An energy that under- or overflows leaves value and derivatives finite, in shared tensors as well."""
    center, weights = torch.zeros(2, dtype=dtype), torch.tensor([1.0, 2.0], dtype=dtype)
    set = WeightedEllipsoid(center, weights, torch.tensor(4.0, dtype=dtype))
    leaves = [t.requires_grad_() for t in (set.center, set.weights, set.level)]
    healthy = torch.tensor([3.0, 1.0], dtype=dtype)
    y = torch.stack([healthy, torch.full((2,), size, dtype=dtype)]).requires_grad_()
    solution = layer.solve(y, set)
    assert solution.ok.all()
    assert solution.value.isfinite().all()
    alone = torch.autograd.grad(solution.value[0].sum(), leaves, retain_graph=True)
    both = torch.autograd.grad(solution.value.sum(), [y, *leaves])
    assert all(slope.isfinite().all() for slope in both)
    torch.testing.assert_close(
        torch.autograd.grad(layer.solve(healthy, set).value.sum(), leaves), alone, rtol=1e-5, atol=1e-6
    )
