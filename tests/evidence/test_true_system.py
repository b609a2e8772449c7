"""What is shown of the plant under a learned policy: enclosures contain samples, and claims hold."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from constrained_nn.certificates import BiLipschitzLyapunov, NeuralLyapunov, QuadraticLyapunov
from constrained_nn.control import AffineModel, AnchoredController, AnchoredModel
from constrained_nn.errors import SetTypeError
from constrained_nn.evidence import bound_true_system, sample_true_system
from constrained_nn.evidence.tracing import trace_derivative
from constrained_nn.evidence.true_system.bound import _Enclosure
from constrained_nn.evidence.true_system.learned_ranges import (
    range_of_certificate,
    range_of_model,
    range_of_network,
    range_of_policy,
)
from constrained_nn.evidence.true_system.ranges import Range, join, range_of_program
from constrained_nn.models import CoILS
from constrained_nn.verify.arithmetic import parse
from control_envs.arrays import namespace, stack
from control_envs.dynamics import PathFollowing, Pendulum, VanDerPol

BOX = torch.tensor([-1.0, -1.0]).double(), torch.tensor([1.0, 1.0]).double()


def linear(rows, bias=None) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        layer.bias.copy_(torch.zeros(len(rows)) if bias is None else torch.tensor(bias))
    return layer


def oscillator(gain=(-2.0, -4.0), rate: float = 0.5) -> CoILS:
    """The oscillator's linearization as the model; its error is the cubic term `x1² x2`."""
    origin, hold = torch.zeros(2).double(), torch.zeros(1).double()
    model = AffineModel(
        linear([[0.0, 1.0], [-1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], [0.0, 0.0, 0.0, 1.0]), origin, hold
    )
    policy = AnchoredController(linear([list(gain)]), origin, hold, hold - 8, hold + 8)
    P = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).double()
    return CoILS(model, policy, QuadraticLyapunov(P, rate=rate)).double().eval()


def mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, outputs))


def boxes(generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, h = (
        torch.randn(40, 2, generator=generator).double(),
        0.3 * torch.rand(40, 2, generator=generator).double(),
    )
    return x, h, x + h * (2 * torch.rand(300, 40, 2, generator=generator).double() - 1)


def contains(found: Range, f, points: torch.Tensor) -> None:
    """Values and Jacobians at points of the boxes are inside, and the enclosure is not idle."""
    values = f(points).detach()
    assert bool(((values >= found.low - 1e-12) & (values <= found.high + 1e-12)).all())
    J = torch.func.vmap(torch.func.jacrev(f))(points[:40].reshape(-1, 2)).detach().unflatten(0, (40, -1))
    assert bool(((J - found.slope).abs() <= found.spread + 1e-10).all())
    assert bool((found.high - found.low <= 20 * (values.amax(0) - values.amin(0)) + 1e-6).all())


def test_ranges_contain_networks(generator):
    torch.manual_seed(0)
    origin, hold = torch.tensor([0.2, -0.1]).double(), torch.tensor([0.3]).double()
    policy = AnchoredController(mlp(2, 1), origin, hold, hold - 1, hold + 1).double()
    free = AnchoredController(mlp(2, 1), origin, hold).double()
    affine, anchored = (
        AffineModel(mlp(2, 4), origin, hold).double(),
        AnchoredModel(mlp(3, 2), origin, hold).double(),
    )
    x, h, points = boxes(generator)
    box = Range.boxes(x, h)
    contains(range_of_policy(policy, box), lambda y: policy(0.0, y), points)
    contains(range_of_policy(free, box), lambda y: free(0.0, y), points)
    for model in (affine, anchored):
        found = range_of_model(model, box, range_of_policy(policy, box))
        contains(found, lambda y, model=model: model(y, policy(0.0, y)), points)


@pytest.mark.parametrize("kind", ["neural", "deep", "quadratic"])
def test_ranges_contain_certificates(kind, generator):
    torch.manual_seed(1)
    origin = torch.tensor([0.2, -0.1])
    V = {
        "neural": lambda: NeuralLyapunov(2, rate=1.0, hidden=(8,), origin=origin),
        "deep": lambda: NeuralLyapunov(2, rate=1.0, hidden=(8, 6, 4), origin=origin),
        "quadratic": lambda: QuadraticLyapunov(
            torch.tensor([[2.0, 0.5], [0.5, 1.0]]), rate=1.0, origin=origin
        ),
    }[kind]().double()
    x, h, points = boxes(generator)
    value, gradient = range_of_certificate(V, Range.boxes(x, h))
    contains(value, lambda y: V.value(y).unsqueeze(-1), points)
    contains(gradient, V.gradient, points)


@pytest.mark.parametrize("plant", [VanDerPol(), Pendulum(), PathFollowing()], ids=lambda p: type(p).__name__)
def test_ranges_contain_plants(plant, generator):
    program = parse(trace_derivative(plant), "plant", inputs=3, outputs=2)
    x, h, points = boxes(generator)
    x, h, points = 0.5 * x, 0.2 * h, 0.5 * x + 0.2 * (points - x)
    found = range_of_program(program, join(Range.boxes(x, h), Range.boxes(x, h).take([0])))
    contains(found, lambda y: plant.derivative(0.0, y, y[..., :1], xp=torch), points)


def test_claim_holds_on_the_plant(generator):
    coils, plant = oscillator(), VanDerPol()
    found = bound_true_system(coils, plant, BOX, rate=0.3)
    assert found.case == "exponential"
    assert found.rate >= 0.3
    assert found.grade == "bound"
    x = (2 * torch.rand(20_000, 2, generator=generator).double() - 1) * 1.2
    value, slope = coils.certificate.value_and_gradient(x)
    inside = value <= found.level
    assert bool((x[inside].abs() < 1).all())  # a level set of the box
    assert found.share == pytest.approx(inside.double().mean().item() * 1.44, abs=0.02)
    u = coils.policy(0.0, x)
    velocity = plant.derivative(0.0, x, u)
    assert bool(((slope * velocity).sum(-1) <= -found.rate * value + 1e-12)[inside].all())
    assert (velocity - coils.model(x, u)).norm(dim=-1)[inside].max() <= found.residual
    k, L, c1 = found.constants
    near = 1e-4 * x
    true = plant.derivative(0.0, near, coils.policy(0.0, near))
    assert bool(
        ((true - coils.model(near, coils.policy(0.0, near))).norm(dim=-1) <= k * near.norm(dim=-1)).all()
    )
    assert bool((coils.certificate.gradient(near).norm(dim=-1) <= L * near.norm(dim=-1)).all())
    assert bool((coils.certificate.value(near) >= c1 * near.square().sum(-1)).all())
    assert f"dV/dt <= -{found.rate:.3g} V" in str(found)


def test_velocities_at_points_and_a_lipschitz_constant_give_an_ultimate_bound(generator):
    coils, plant = oscillator(), VanDerPol()
    found = bound_true_system(coils, plant, BOX, plant_lipschitz=8.0)
    assert found.case == "ultimate bound"
    assert 0 < found.inner < 0.2 * found.level
    x = 2 * torch.rand(20_000, 2, generator=generator).double() - 1
    value, slope = coils.certificate.value_and_gradient(x)
    ring = (value <= found.level) & (value > found.inner)
    falls = (slope * plant.derivative(0.0, x, coils.policy(0.0, x))).sum(-1)
    assert bool((falls <= -found.rate * value)[ring].all())
    assert bound_true_system(coils, plant, BOX, plant_lipschitz=1e3, most=2_000).case == "nothing"


def test_nothing_is_claimed_of_another_plant():
    coils = oscillator()
    wild = VanDerPol(damping=8.0)
    found = bound_true_system(coils, wild, BOX, most=5_000)
    assert found.case == "nothing"
    assert "Nothing is shown" in str(found)
    drawn = sample_true_system(coils, wild, BOX, rate=0.1, count=2_000)
    assert drawn.case == "nothing"
    assert drawn.failure_bound > 0.05


def test_sampled_grade_states_a_share(generator):
    coils, plant = oscillator(), VanDerPol()
    drawn = sample_true_system(coils, plant, BOX, rate=0.3, count=4_000)
    assert drawn.grade == "sampled"
    assert drawn.rate >= 0.3
    assert 0 < drawn.failure_bound < 0.01
    assert drawn.rate >= bound_true_system(coils, plant, BOX).rate


def test_kinds_that_are_not_enclosed_are_refused():
    box, origin, hold = (
        Range.boxes(*[torch.ones(1, 2).double()] * 2),
        torch.zeros(2).double(),
        torch.zeros(1).double(),
    )
    root = parse({"inputs": 1, "code": [["sqrt", 0]]}, "root")
    for call, says in (
        (lambda: range_of_program(root, box.take([0])), "got 'sqrt'"),
        (lambda: range_of_network(nn.ReLU(), box), "got ReLU"),
        (lambda: range_of_policy(nn.Linear(2, 1), box), "got Linear"),
        (lambda: range_of_model(nn.Linear(2, 1), box, box), "got Linear"),
        (lambda: range_of_certificate(BiLipschitzLyapunov(2, rate=1.0), box), "got BiLipschitzLyapunov"),
        (
            lambda: range_of_policy(
                AnchoredController(linear([[1.0, 1.0]]), origin, hold, hold - 1, hold + 2).double(), box
            ),
            "equal distances",
        ),
    ):
        with pytest.raises(SetTypeError, match=says):
            call()


@dataclasses.dataclass(frozen=True)
class Poled(VanDerPol):
    """The oscillator with `tan(4 x1) / 20`, which has poles in the box."""

    def derivative(self, t, x, u, w=None, *, xp=None):
        xp = xp or namespace(x)
        pole = 0.05 * xp.tan(4.0 * x[..., 0])
        return super().derivative(t, x, u, w, xp=xp) + stack([0.0 * pole, pole], xp)


def test_nothing_is_shown_at_a_pole_of_the_plant() -> None:
    program = parse(trace_derivative(Poled()), "plant", inputs=3, outputs=2)
    x = torch.tensor([[0.39, 0.1], [0.2, 0.1]]).double()  # on the pole and far from it
    found = _Enclosure(oscillator(), Poled(), program, None)(x, torch.full((2, 2), 0.01).double())
    assert found.rate[0] == -torch.inf
    assert found.residual[0] == torch.inf
    assert found.rate[1] > 0.0
