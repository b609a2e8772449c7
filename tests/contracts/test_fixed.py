"""A constant set: its factor is that of its tensors as they are, and its parameters are trained."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from constrained_nn import (
    ECO,
    Box,
    Completion,
    Constrained,
    DiagonalEnergy,
    EuclideanProjection,
    Fixed,
    HardNetAffine,
    Intersection,
    Nan,
    Polyhedron,
    StrictInterior,
)
from constrained_nn.certificates import AngleEmbedding
from constrained_nn.control import AnchoredController
from tests.cases.sets import INF, tensor

LAYERS = {
    "closed form": HardNetAffine,
    "projection": EuclideanProjection,
    "interior": lambda: StrictInterior(EuclideanProjection()),
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)

ROWS = tensor([1.0, 1.0, 0.0], [0.0, 1.0, 1.0])
OTHER = tensor([1.0, -1.0, 0.5], [0.3, 0.2, -2.0])
UPPER = tensor(1.0, 0.5)


def network(make: Callable[[], nn.Module], set=None) -> Constrained:
    torch.manual_seed(0)
    set = Polyhedron(ROWS.clone(), upper=UPPER.clone()) if set is None else set
    return Constrained(nn.Linear(4, set.dim).double(), Fixed(set), make()).eval()


def expected(net: Constrained, A: Tensor, upper: Tensor, context: Tensor) -> Tensor:
    """The same without a factor."""
    return net.layer.solve(net.backbone(context), Polyhedron(A, upper=upper)).value


@pytest.fixture
def context(generator: torch.Generator) -> Tensor:
    return 5.0 * torch.randn(8, 4, generator=generator, dtype=torch.float64)


CHANGES = {
    "in place": lambda fixed: fixed.A.copy_(OTHER),
    "in place, behind its version": lambda fixed: fixed.A.data.copy_(OTHER),
    "replaced": lambda fixed: setattr(fixed, "A", OTHER.clone()),
    "loaded": lambda fixed: fixed.load_state_dict(fixed.state_dict() | {"A": OTHER}),
}


@every_layer
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_factor_follows_the_set(make, change, context: Tensor) -> None:
    net = network(make)
    before = net(context)
    change(net.constraint)
    found = net(context)
    assert not torch.allclose(found, before)
    torch.testing.assert_close(found, expected(net, OTHER, UPPER, context), rtol=1e-9, atol=1e-9)


@every_layer
def test_functional_call_with_another_set(make, context: Tensor) -> None:
    net = network(make)
    before = net(context)
    found = torch.func.functional_call(net, {"constraint.A": OTHER}, (context,))
    torch.testing.assert_close(found, expected(net, OTHER, UPPER, context), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(net(context), before, rtol=1e-12, atol=1e-12)


def test_ensemble_with_a_set_for_each_member(context: Tensor) -> None:
    net = network(HardNetAffine)
    members = torch.stack([ROWS, OTHER])
    found = torch.func.vmap(lambda A: torch.func.functional_call(net, {"constraint.A": A}, (context,)))(
        members
    )
    for A, value in zip(members, found, strict=True):
        torch.testing.assert_close(value, expected(net, A, UPPER, context), rtol=1e-9, atol=1e-9)


@pytest.mark.untyped
def test_compiled_network_flags_rows_that_changed_behind_it(context: Tensor) -> None:
    net = network(lambda: HardNetAffine(on_failure=Nan()))
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(context), net(context), rtol=1e-12, atol=1e-12)
    net.constraint.A.copy_(OTHER)
    assert compiled(context).isnan().all()
    net.constraint.prepare(net.layer)
    torch.testing.assert_close(compiled(context), net(context), rtol=1e-12, atol=1e-12)


def test_settings_of_the_layer_are_those_of_the_factor(context: Tensor) -> None:
    net = network(HardNetAffine).float()
    net.layer.compute_dtype = torch.float64
    factor = net.constraint.factor
    assert factor.A.dtype == factor.qr.Q.dtype == torch.float64
    error = factor.qr.Q.mT @ factor.qr.Q - torch.eye(2).double()
    assert error.abs().max() < 1e-14, "the factor of a rounded matrix is not a rounded factor"


@pytest.mark.parametrize("make", [HardNetAffine, EuclideanProjection])
def test_bound_that_is_a_parameter_is_trained(make, context: Tensor) -> None:
    bound = nn.Parameter(torch.ones(3).double())
    net = network(make, Box(torch.zeros(3).double(), bound)).train()
    assert dict(net.named_parameters())["constraint.upper"] is bound
    net(100.0 + context).sum().backward()
    assert bound.grad is not None
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    optimizer.step()
    assert (bound < 1.0).any()
    assert net.constraint().contains(net(context), atol=1e-9).all()


def test_matrix_that_is_a_parameter_is_trained(context: Tensor) -> None:
    A = nn.Parameter(ROWS.clone())
    net = network(HardNetAffine, Polyhedron(A, upper=UPPER)).train()
    for _ in range(3):
        A.grad = None
        net(context).square().sum().backward()
        with torch.no_grad():
            A -= 0.01 * A.grad
        assert net.constraint().contains(net(context), atol=1e-9).all()
    assert (A - ROWS).abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}], ids=["SWA", "EMA"])
@pytest.mark.parametrize("use_buffers", [True, False])
def test_averages_of_weights_keep_the_set(options, use_buffers: bool, context: Tensor) -> None:
    net = network(HardNetAffine, Polyhedron(ROWS, tensor(-INF, -1.0), tensor(1.0, INF)))
    average = AveragedModel(net, use_buffers=use_buffers, **options)
    for _ in range(3):
        with torch.no_grad():
            net.backbone.weight += 0.1
        average.update_parameters(net)
    value = average(context)
    assert value.isfinite().all()
    assert net.constraint().contains(value, atol=1e-9).all()


@pytest.mark.parametrize("options", [{}, {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}], ids=["SWA", "EMA"])
@pytest.mark.parametrize(
    "module",
    [
        Completion(tensor([1.0, 2.0, 0.5], [0.0, 1.0, 7.0])),
        AngleEmbedding(4, (1, 3)),
        AnchoredController(nn.Linear(2, 1), torch.zeros(2), torch.zeros(1)),
        ECO(nn.Linear(3, 3), DiagonalEnergy(torch.ones(3), level=4.0)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_averages_keep_indices_masks_and_limits(options, module: nn.Module) -> None:
    module = nn.Sequential(nn.Linear(1, 1), module)  # an average needs a weight
    before = copy.deepcopy(module.state_dict())
    average = AveragedModel(module, use_buffers=True, **options)
    for _ in range(3):
        average.update_parameters(module)
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, before[name], msg=name)


def test_factor_of_rows_with_a_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="AffineSubspace"):
        Completion(tensor([1.0, 2.0]).requires_grad_())


def test_nested_sets_and_copies(context: Tensor) -> None:
    set = Intersection(Box(-torch.ones(3).double(), torch.ones(3).double()), Polyhedron(ROWS, upper=UPPER))
    net = network(EuclideanProjection, set)
    assert {"constraint.sets_0_upper", "constraint.sets_1_A"} <= set_of_names(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(other(context), net(context))


def set_of_names(net: nn.Module) -> set[str]:
    return {*net.state_dict()}


@every_layer
def test_meta_device_and_back(make) -> None:
    net = network(make)
    abstract = copy.deepcopy(net).to("meta")
    if make is not LAYERS["interior"]:
        assert abstract(torch.zeros(5, 4, dtype=torch.float64, device="meta")).shape == (5, 3)
    restored = abstract.to_empty(device="cpu")
    restored.load_state_dict(net.state_dict())
    x = torch.ones(5, 4).double()
    torch.testing.assert_close(restored(x), net(x), rtol=1e-12, atol=1e-12)


@pytest.mark.once
def test_per_sample_gradients_are_those_of_a_loop(context: Tensor) -> None:
    net = network(HardNetAffine)
    weights = {name: p.detach() for name, p in net.named_parameters()}

    def loss(weights, x: Tensor) -> Tensor:
        return torch.func.functional_call(net, weights, (x,)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, context)
    for i, x in enumerate(context):
        alone = torch.autograd.grad(net(x).square().sum(), [*net.parameters()])
        for name, gradient in zip(weights, alone, strict=True):
            torch.testing.assert_close(found[name][i], gradient, rtol=1e-9, atol=1e-9)
