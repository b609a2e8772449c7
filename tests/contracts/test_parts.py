"""A set made of bounds and rows works wherever bounds and rows do, whoever wrote it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from constrained_nn import (
    Ball,
    Box,
    Constrained,
    EuclideanProjection,
    Fixed,
    Halfspace,
    HardNetAffine,
    HardNetPlusPlus,
    Intersection,
    NearestPoint,
    Polyhedron,
    Product,
    Simplex,
    StrictInterior,
)
from constrained_nn.errors import SetTypeError
from constrained_nn.evidence import certify_outputs, save_network
from constrained_nn.evidence.tracing import evaluate, trace_module
from constrained_nn.sets import AffineSubspace, take_apart
from constrained_nn.verify.arithmetic import parse
from tests.contracts.composed import Budget, Last

LAYERS = {
    "projection": EuclideanProjection,
    "interior": lambda: StrictInterior(EuclideanProjection()),
    "hardnet": HardNetAffine,
    "nearest": NearestPoint,
    "plus plus": HardNetPlusPlus,
}


def budget(*batch: int) -> tuple[Budget, Intersection]:
    """The set, and the same as an intersection."""
    weights = 0.5 + torch.rand(*batch, 3, dtype=torch.float64)
    limit = torch.full(batch, 1.2, dtype=torch.float64)
    box = Box(torch.zeros_like(weights), torch.ones_like(weights))
    rows = Polyhedron(weights.unsqueeze(-2), upper=limit.unsqueeze(-1))
    return Budget(weights, limit), Intersection(rows, box)


@pytest.mark.parametrize("batch", [(), (6,)], ids=["shared", "batched"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_every_layer_takes_it_apart(make, batch: tuple[int, ...], generator: torch.Generator) -> None:
    torch.manual_seed(0)
    own, same = budget(*batch)
    y = 2.0 * torch.randn(6, 3, generator=generator, dtype=torch.float64)
    layer = make()
    solution, expected = layer.solve(y, own), layer.solve(y, same)
    assert solution.ok.all(), solution.describe_failures()
    assert torch.equal(solution.value, expected.value)
    if not batch:
        kept = layer.solve(y, own, factor=layer.factor(own))
        torch.testing.assert_close(kept.value, expected.value, rtol=1e-12, atol=1e-12)


def test_sets_of_the_package_say_what_they_are_made_of() -> None:
    box = Box(torch.zeros(2), torch.ones(2))
    ball, one = Ball(torch.zeros(2), torch.tensor(1.0)), torch.ones(2)
    set = Product(Intersection(box, ball, Halfspace(one, torch.tensor(1.0))), Simplex(torch.zeros(2), one[0]))
    found = [(start, type(part).__name__) for start, part in take_apart(set)]
    assert found == [(0, "Box"), (0, "Ball"), (0, "Polyhedron"), (2, "Box"), (2, "Polyhedron")]


@pytest.mark.parametrize(
    "set",
    [
        Simplex(torch.zeros(3).double(), torch.ones(()).double()),
        AffineSubspace(torch.ones(1, 3).double(), torch.ones(1).double()),
        Product(
            Halfspace(torch.ones(2).double(), torch.ones(()).double()),
            Box(torch.zeros(1).double(), torch.ones(1).double()),
        ),
        budget(4)[0],
    ],
    ids=lambda set: type(set).__name__,
)
def test_rows_of_a_set_are_the_set(set, generator: torch.Generator) -> None:
    y = 2.0 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(Polyhedron.of(set).residual(y), set.residual(y))


def test_curved_set_has_no_rows() -> None:
    with pytest.raises(SetTypeError, match="Ball"):
        Polyhedron.of(Ball(torch.zeros(2), torch.tensor(1.0)))
    with pytest.raises(SetTypeError, match="HardNetAffine"):
        HardNetAffine().solve(torch.zeros(2), Intersection(Ball(torch.zeros(2), torch.tensor(1.0))))


def test_a_proof_about_it(tmp_path) -> None:
    torch.manual_seed(0)
    set, _ = budget()
    path = save_network(tmp_path, "budget", Inside(), set, lower=[0.0, 0.0], upper=[1.0, 1.0])
    found = certify_outputs(path, command="test", seconds=60.0)
    assert found["claims"][0]["verdict"] == "holds"


class Inside(nn.Sequential):
    """A network that stays in the budget by itself."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 3).double(), nn.Sigmoid(), nn.Linear(3, 3).double())
        with torch.no_grad():
            self[2].weight.copy_(0.2 * torch.eye(3))
            self[2].bias.fill_(0.05)


def test_tracer_writes_the_closed_form_of_its_rows() -> None:
    torch.manual_seed(0)
    first = Halfspace(torch.tensor([1.0, 1.0, 0.0]).double(), torch.tensor(0.5).double())
    second = AffineSubspace(torch.tensor([[0.0, 1.0, 1.0]]).double(), torch.tensor([0.2]).double())
    net = Constrained(nn.Linear(2, 3).double(), Fixed(Intersection(first, second)), HardNetAffine()).eval()
    x = torch.randn(20, 2, dtype=torch.float64)
    found = evaluate(parse(trace_module(net, 2), "network"), x.numpy())
    torch.testing.assert_close(torch.from_numpy(found), net(x).detach(), rtol=1e-9, atol=1e-9)


def test_bound_on_some_components_leaves_the_others_free() -> None:
    """A single part is not the whole set where it reaches only some of the components."""
    set = Last(torch.ones(()).double())
    y = torch.tensor([[3.0, 4.0, 5.0], [0.5, 0.5, 0.5]]).double()
    expected = torch.tensor([[3.0, 4.0, 1.0], [0.5, 0.5, 0.5]]).double()
    for make in LAYERS.values():
        torch.testing.assert_close(make().solve(y, set).value, expected, rtol=1e-6, atol=1e-6)
    net = Constrained(nn.Linear(2, 3).double(), Fixed(set), HardNetAffine()).eval()
    x = torch.randn(20, 2, dtype=torch.float64)
    found = evaluate(parse(trace_module(net, 2), "network"), x.numpy())
    torch.testing.assert_close(torch.from_numpy(found), net(x).detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("smoothing", [None, 0.1])
def test_blocks_are_projected_as_alone(smoothing: float | None, generator: torch.Generator) -> None:
    box = Box(torch.zeros(2).double(), torch.ones(2).double())
    row = Halfspace(torch.tensor([1.0, 2.0]).double(), torch.tensor(0.5).double())
    y = torch.randn(6, 4, generator=generator, dtype=torch.float64).requires_grad_()
    layer = EuclideanProjection(smoothing=smoothing)
    together = layer(y, Product(box, row))
    alone = torch.cat([layer(y[:, :2], box), layer(y[:, 2:], row)], -1)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    found, expected = (torch.autograd.grad(v.square().sum(), y)[0] for v in (together, alone))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
