"""`Constrained` as a network: saved, copied, traced, exported, moved."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from constrained_nn import (
    Box,
    Constrained,
    EuclideanProjection,
    Fixed,
    HardNetAffine,
    LeastViolation,
    Report,
    Status,
)
from constrained_nn.errors import SetTypeError
from constrained_nn.sets import Polyhedron
from constrained_nn.solvers import Solution
from tests.cases import layers
from tests.fake_cuda import fake_cuda, on_cuda

NETWORKS = {"fixed": layers.constrained_fixed, "context": layers.constrained_by_context}
every_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def boxed(make) -> Constrained:
    """The same network in a box, by a closed form: to trace the solver of polyhedra takes ten seconds."""
    network = make()

    def box_of_context(context: torch.Tensor) -> Box:
        upper = 0.1 * torch.tanh(context[..., 1:])
        return Box(upper - 0.2, upper)

    fixed = Fixed(Box(torch.full((4,), -0.1).double(), torch.full((4,), 0.1).double()))
    constraint = fixed if make is layers.constrained_fixed else box_of_context
    return Constrained(network.backbone, constraint, EuclideanProjection(on_failure=LeastViolation()))


@pytest.fixture
def context(generator: torch.Generator) -> torch.Tensor:
    return 3.0 * torch.randn(7, 5, generator=generator, dtype=torch.float64)


@every_network
def test_output_satisfies_its_constraints(make, context: torch.Tensor) -> None:
    network = make()
    set = network.constraint(context)
    assert (set.violation(network.backbone(context)) > 1e-3).any()
    assert set.contains(network(context), atol=1e-9).all()


@every_network
def test_exposes_raw_and_enforced_output(make, context: torch.Tensor) -> None:
    network = make()
    enforced = network.solve(context)
    torch.testing.assert_close(enforced.value, network(context))
    torch.testing.assert_close(enforced.raw, network.backbone(context))
    torch.testing.assert_close(enforced.distance, (enforced.value - enforced.raw).square().sum(-1).sqrt())
    set = network.constraint(context)
    on_value = torch.autograd.grad(set.violation(enforced.value).sum(), [*network.parameters()])
    assert max(g.abs().max() for g in on_value) < 1e-9, "a penalty on the enforced output teaches nothing"
    enforced = network.solve(context)
    on_distance = torch.autograd.grad(enforced.distance.sum(), [*network.parameters()])
    assert max(g.abs().max() for g in on_distance) > 1e-3
    assert all(g.isfinite().all() for g in on_distance)


def test_distance_has_a_derivative_inside() -> None:
    network = Constrained(torch.nn.Linear(1, 1), Fixed(Box(-torch.ones(1), torch.ones(1))), HardNetAffine())
    torch.nn.init.zeros_(network.backbone.weight)
    torch.nn.init.zeros_(network.backbone.bias)
    distance = network.solve(torch.ones(3, 1)).distance
    (gradient,) = torch.autograd.grad(distance.sum(), [network.backbone.weight])
    assert torch.equal(gradient, torch.zeros(1, 1))


@every_network
def test_forward_returns_the_report_that_is_asked_for(make, context: torch.Tensor) -> None:
    network = make()
    plain = network(context)
    network.returns = Report()
    report = network(context)
    assert isinstance(report, Solution)
    torch.testing.assert_close(report.value, plain)
    torch.testing.assert_close(report.raw, network.backbone(context))
    assert report.ok.all()
    assert network.layer.counts[Status.OK] == 2 * len(context)


def test_report_reaches_the_loss_through_a_wrapper(context: torch.Tensor) -> None:
    """`DistributedDataParallel` calls `forward` alone, and takes the result apart to find what was used."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        base = layers.constrained_fixed()
        network = Constrained(base.backbone, base.constraint, base.layer, returns=Report())
        wrapped = torch.nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)
        report = wrapped(context)
        (report.distance.sum() + report.value.sum()).backward()
    finally:
        torch.distributed.destroy_process_group()
    gradients = [p.grad for p in network.parameters()]
    assert max(g.abs().max() for g in gradients) > 1e-3
    assert network.layer.counts[Status.OK] == len(context)


@every_network
def test_copies_and_pickles(make, context: torch.Tensor) -> None:
    network = make()
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(context), network(context))


@every_network
def test_state_dict_round_trip(make, context: torch.Tensor) -> None:
    network, other = make(), make()
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    assert not torch.equal(other(context), network(context))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(context), network(context))


def test_fixed_set_is_saved_and_its_factor_used(context: torch.Tensor) -> None:
    network = layers.constrained_fixed()
    names = {name for name in network.state_dict() if name.startswith("constraint.")}
    assert names == {"constraint.A", "constraint.lower", "constraint.upper"}
    assert network.constraint.factor is not None
    unfactored = Constrained(network.backbone, lambda _: network.constraint(), HardNetAffine())
    torch.testing.assert_close(network(context), unfactored(context), rtol=1e-12, atol=1e-12)


def test_moves_to_another_dtype(context: torch.Tensor) -> None:
    network = copy.deepcopy(layers.constrained_fixed()).float()
    assert network(context.float()).dtype == torch.float32
    assert network.constraint().contains(network(context.float()), atol=1e-4).all()


@pytest.mark.untyped
@pytest.mark.parametrize(
    "make",
    [layers.constrained_fixed, lambda: boxed(layers.constrained_by_context)],
    ids=["fixed", "box of context"],
)
def test_exports(make, context: torch.Tensor) -> None:
    network = make().eval()
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(network, (context,), dynamic_shapes=({0: batch},))
    for inputs in (context, 5.0 * context[:3]):
        torch.testing.assert_close(program.module()(inputs), network(inputs), rtol=1e-9, atol=1e-9)


@pytest.mark.untyped
@pytest.mark.parametrize(
    "make",
    [layers.constrained_by_context, lambda: boxed(layers.constrained_fixed)],
    ids=["context", "fixed box"],
)
def test_compiles_and_trains(make, context: torch.Tensor) -> None:
    network = make()
    assert (network.constraint(context).violation(network.backbone(context)) > 1e-3).any()
    network.layer.on_failure = LeastViolation()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    for function in (compiled, network):
        network.zero_grad()
        function(context).square().sum().backward()
        gradients = [p.grad.clone() for p in network.parameters()]
        if function is compiled:
            traced = gradients
    for a, b in zip(traced, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.untyped
@every_network
def test_no_hidden_synchronization(make, context: torch.Tensor) -> None:
    network = make()
    with fake_cuda():
        tensors = {n: on_cuda(t) for n, t in network.state_dict(keep_vars=True).items()}
        output = torch.func.functional_call(network, tensors, (on_cuda(context),))
        assert output.device.type == "cuda"


def test_training_counts_failures() -> None:
    empty = Polyhedron(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]), torch.tensor([-1.0]))
    network = Constrained(torch.nn.Linear(3, 2), Fixed(empty), HardNetAffine())
    assert network(torch.ones(4, 3)).isfinite().all()
    assert network.layer.counts.sum() == 4
    assert network.layer.counts[0] == 0


@pytest.mark.untyped  # the hook refuses them first
def test_set_in_place_of_a_function_and_class_in_place_of_a_layer_are_refused():
    box = Box(torch.zeros(2), torch.ones(2))
    with pytest.raises(SetTypeError, match=r"Fixed\(set\)"):
        Constrained(torch.nn.Linear(2, 2), box, HardNetAffine())
    with pytest.raises(TypeError, match=r"HardNetAffine\(\)"):
        Constrained(torch.nn.Linear(2, 2), Fixed(box), HardNetAffine)
