"""Composite sets and Euclidean projection as parts of modules: copies, saved states, processes, export."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from constrained_nn.layers import Constrained, EuclideanProjection, Fixed, LeastViolation, StrictInterior
from constrained_nn.sets import Ball, Box, Halfspace, Intersection, Polyhedron, Product, SecondOrderCone
from tests.fake_cuda import fake_cuda, on_cuda


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def linear_corner() -> Intersection:
    return Intersection(
        Box(-torch.ones(2).double(), torch.ones(2).double()), Halfspace(tensor(1.0, 2.0), tensor(0.5)[0])
    )


def pair() -> Product:
    one = tensor(1.0)[0]
    return Product(SecondOrderCone(torch.zeros(3).double(), 0.5 * one), Ball(torch.zeros(2).double(), one))


def network(set, layer=None) -> Constrained:
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, set.dim)
    ).double()
    return Constrained(backbone, Fixed(set), layer or EuclideanProjection(on_failure=LeastViolation()))


CONTEXT = 5 * torch.randn(7, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("set", [linear_corner(), pair()], ids=["Intersection", "Product"])
def test_copies_pickles_and_averages(set) -> None:
    net = network(set)
    expected = net(CONTEXT)
    assert (set.violation(expected) <= 1e-12).all()
    average = AveragedModel(net)
    average.update_parameters(net)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), average):
        torch.testing.assert_close(other(CONTEXT), expected, rtol=0, atol=1e-14)


def test_state_dict_holds_every_tensor_of_every_member() -> None:
    net = network(linear_corner())
    names = {name.removeprefix("constraint.") for name in net.state_dict() if name.startswith("constraint.")}
    assert names == {"sets_0_lower", "sets_0_upper", "sets_1_normal", "sets_1_offset"}
    wide = Box(-9 * torch.ones(2).double(), 9 * torch.ones(2).double())
    other = network(Intersection(wide, Halfspace(tensor(1.0, 0.0), tensor(9.0)[0])))
    assert not torch.equal(other(CONTEXT), net(CONTEXT))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(CONTEXT), net(CONTEXT))


def test_strict_interior_is_prepared_once_and_copied() -> None:
    net = network(linear_corner(), StrictInterior(EuclideanProjection(), on_failure=LeastViolation()))
    assert net.constraint.factor is not None
    value = net(CONTEXT)
    assert (linear_corner().violation(value) == 0).all()
    assert torch.equal(pickle.loads(pickle.dumps(net))(CONTEXT), value)


def plane_in_a_box(width: float = 1.0) -> Intersection:
    rows = Polyhedron(
        tensor([1.0, 1.0, 1.0], [1.0, -2.0, 0.3]), tensor(0.3, -width), upper=tensor(0.3, width / 3.0)
    )
    return Intersection(rows, Box(-torch.ones(3).double(), torch.ones(3).double()))


def test_rows_are_factored_once_and_the_factor_follows_the_set() -> None:
    layer = EuclideanProjection(on_failure=LeastViolation())
    net = network(plane_in_a_box(), layer)
    factor = net.constraint.factor
    assert factor.equality.tolist() == [0]
    raw = net.backbone(CONTEXT)
    expected = layer(raw, plane_in_a_box())
    torch.testing.assert_close(net(CONTEXT), expected, rtol=1e-12, atol=1e-13)
    assert not any("factor" in name for name in net.state_dict())
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(other(CONTEXT), expected, rtol=1e-12, atol=1e-13)
    # another set is loaded: other rows are equalities
    other = network(plane_in_a_box(0.0), layer)
    assert other.constraint.factor.equality.tolist() == [0, 1]
    other.load_state_dict(net.state_dict())
    assert other.constraint.factor.equality.tolist() == [0]
    assert torch.equal(other(CONTEXT), net(CONTEXT))
    # rounded to single precision: the factor is that of the rounded rows, in double precision
    narrow = copy.deepcopy(net).float()
    assert narrow.constraint.factor.rows.dtype == torch.float64
    value = narrow(CONTEXT.float())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-5)
    solution = layer.solve(
        narrow.backbone(CONTEXT.float()), narrow.constraint(), factor=narrow.constraint.factor
    )
    assert solution.ok.all()
    back = narrow.double()
    torch.testing.assert_close(back(CONTEXT), expected, rtol=0, atol=1e-5)


@pytest.mark.untyped
@pytest.mark.parametrize("smoothing", [None, 0.1])
def test_a_factored_network_runs_on_a_gpu_without_reading_a_value(smoothing) -> None:
    network_ = network(plane_in_a_box(), EuclideanProjection(smoothing=smoothing))
    with fake_cuda():
        tensors = {n: on_cuda(t) for n, t in network_.state_dict(keep_vars=True).items() if t is not None}
        output = torch.func.functional_call(network_, tensors, (on_cuda(CONTEXT),))
        assert output.device.type == "cuda"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_factor_goes_with_any_compute_dtype(dtype) -> None:
    layer = EuclideanProjection(on_failure=LeastViolation(), compute_dtype=dtype)
    net = network(plane_in_a_box(), layer)
    plain = EuclideanProjection(on_failure=LeastViolation())
    expected = plain(net.backbone(CONTEXT), plane_in_a_box())
    torch.testing.assert_close(net(CONTEXT), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-13)


def _in_a_process(net: Constrained, results) -> None:
    torch.set_num_threads(1)
    results.put(net(CONTEXT).detach().numpy())


def test_another_process_gives_the_same_result() -> None:
    net = network(pair())
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_in_a_process, args=(net, results))
    process.start()
    value = results.get(timeout=120)
    process.join()
    torch.testing.assert_close(torch.from_numpy(value), net(CONTEXT).detach(), rtol=0, atol=1e-14)


@pytest.mark.untyped
def test_exports() -> None:
    net = network(pair()).eval()
    program = torch.export.export(net, (CONTEXT,))
    torch.testing.assert_close(program.module()(CONTEXT), net(CONTEXT), rtol=0, atol=1e-14)
