"""What every layer promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from constrained_nn.errors import InfeasibleError, SetTypeError
from constrained_nn.layers import LeastViolation, Nan, Raise
from constrained_nn.solvers import Status
from constrained_nn.testing import check_layer
from tests.cases import LayerCase, every
from tests.contracts.derivatives import check_first_derivatives, check_second_derivatives
from tests.fake_cuda import fake_cuda, on_cuda
from tests.oracles import (
    blocks_by_autograd,
    element,
    is_shared,
    numpy,
    tensor_fields,
    tensor_of,
    with_tensors,
)

BATCH = 6
can_fail = every(LayerCase, where=lambda row: row.infeasible is not None)


def one_a_solver(row: LayerCase) -> bool:
    """Rows whose solver is quick, and one for each of the others."""
    return row.compiles or not row.iterative


def draw(case: LayerCase, generator: torch.Generator, build=None):
    set = (build or case.build)(generator, (BATCH,))
    return set, 3.0 * torch.randn(BATCH, set.dim, generator=generator, dtype=torch.float64)


def finite_tensors(set) -> list[str]:
    """Tensors of a set without infinite entries, and not empty: those that finite differences can move."""
    names = [name for name in tensor_fields(set) if tensor_of(set, name).numel()]
    return [name for name in names if tensor_of(set, name).isfinite().all()]


def as_function(layer, set, names: list[str]):
    """`(y, *tensors) -> enforced y`, for derivative checks."""

    def function(y: Tensor, *tensors: Tensor) -> Tensor:
        return layer.solve(y, with_tensors(set, **dict(zip(names, tensors, strict=True)))).value

    return function


@every(LayerCase)
def test_contract(case: LayerCase, generator: torch.Generator) -> None:
    check_layer(case.make(), case.build, atol=case.atol)
    set, y = draw(case, generator)
    assert (set.violation(y) > 1e-3).any(), "the row draws no point outside"


@pytest.mark.once  # samples of the same functions
@every(LayerCase, where=lambda row: row.oracle is not None)
def test_equals_the_oracle(case: LayerCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    value = case.make().solve(y, set).value
    for i in range(BATCH):
        expected = torch.from_numpy(case.oracle(element(set, i), numpy(y[i])))
        torch.testing.assert_close(value[i], expected, rtol=case.atol, atol=case.atol)


@every(LayerCase)
def test_edges(case: LayerCase) -> None:
    for edge in case.edges():
        value = case.make().eval()(edge.y, edge.set)
        torch.testing.assert_close(value, edge.expected, rtol=case.atol, atol=case.atol, msg=edge.name)


@pytest.mark.once  # samples of the same functions
@every(LayerCase)
def test_leaves_points_of_the_set_alone(case: LayerCase, generator: torch.Generator) -> None:
    set, _ = draw(case, generator)
    inside = case.inside(set).expand(BATCH, set.dim)
    value = case.make().solve(inside, set).value
    torch.testing.assert_close(value, inside, rtol=0, atol=case.atol)


@pytest.mark.once  # samples of the same functions
@every(LayerCase)
def test_idempotent(case: LayerCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    layer = case.make()
    once = layer.solve(y, set).value
    torch.testing.assert_close(layer.solve(once, set).value, once, rtol=0, atol=10 * case.atol)


@pytest.mark.once  # samples of the same functions
@every(LayerCase, where=lambda row: row.euclidean)
def test_firmly_nonexpansive(case: LayerCase, generator: torch.Generator) -> None:
    set, x = draw(case, generator)
    y = x + torch.randn(x.shape, generator=generator, dtype=torch.float64)
    px, py = (case.make().solve(point, set).value for point in (x, y))
    moved, gap = (px - py).square().sum(-1), ((px - py) * (x - y)).sum(-1)
    assert (moved <= gap + 100 * case.atol).all()
    assert (moved > 0).any()


@every(LayerCase)
def test_poisoned_element_leaves_the_others_alone(case: LayerCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    names = finite_tensors(set)
    healthy = torch.arange(BATCH) != 2
    tensors = [y, *(tensor_of(set, name) for name in names)]
    weights = torch.randn(BATCH, set.dim, generator=generator, dtype=torch.float64)
    layer = case.make()
    reference = layer.solve(y, set)

    def gradients(tensors: list[Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
        leaves = [t.clone().requires_grad_() for t in tensors]
        other = with_tensors(set, **dict(zip(names, leaves[1:], strict=True)))
        solution = layer.solve(leaves[0], other)
        # every element enters the sum: a NaN of the bad one would spread through 0 * NaN
        total = (solution.value * weights)[healthy].sum() + 0.0 * solution.value[2].sum().detach()
        total = torch.where(solution.ok.unsqueeze(-1), solution.value * weights, 0.0).sum() + 0.0 * total
        return solution.value, list(torch.autograd.grad(total, leaves)), solution.status

    def healthy_only() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in tensors]
        other = with_tensors(set, **dict(zip(names, leaves[1:], strict=True)))
        value = layer.solve(leaves[0], other).value
        return list(torch.autograd.grad((value * weights)[healthy].sum(), leaves))

    expected = healthy_only()
    poisons = [0, *(k + 1 for k, name in enumerate(names) if not is_shared(set, name))]
    for k in poisons:
        for poison in (torch.nan, torch.inf):
            bad = [t.clone() for t in tensors]
            bad[k][2] = poison
            if k and poison == torch.inf and names[k - 1].rpartition(".")[2] in ("lower", "upper", "offset"):
                continue  # an infinite bound is meant
            value, found, status = gradients(bad)
            assert status[2] == Status.NONFINITE_INPUT
            assert (status[healthy] == reference.status[healthy]).all()
            torch.testing.assert_close(value[healthy], reference.value[healthy], rtol=1e-12, atol=1e-12)
            for name, a, b in zip(["y", *names], found, expected, strict=True):
                if name == "y" or not is_shared(set, name):
                    a, b = a[healthy], b[healthy]
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@can_fail
def test_infeasible_element_is_reported_for_itself_alone(case: LayerCase) -> None:
    y, set = case.infeasible()
    layer = case.make()
    solution = layer.solve(y, set)
    alone = layer.solve(y[:1], element_slice(set, 1))
    assert solution.status[1] == Status.INFEASIBLE
    assert solution.ok[0]
    assert solution.violation[1] > 1e-6
    torch.testing.assert_close(solution.value[:1], alone.value, rtol=1e-12, atol=case.atol)
    assert solution.value.isfinite().all()


def element_slice(set, count: int):
    """The first elements of a batched set."""
    picked = {n: tensor_of(set, n)[:count] for n in tensor_fields(set) if not is_shared(set, n)}
    return with_tensors(set, **picked)


@every(LayerCase)
def test_decision_or_set_has_the_batch_of_the_other(case: LayerCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    layer = case.make()
    for point, other in ((y[0], set), (y, element(set, 0)), (y[:1], set)):
        found = layer.solve(point, other)
        expected = [
            layer.solve(point.expand_as(y)[i], element(set, i) if other is set else other)
            for i in range(BATCH)
        ]
        assert found.status.tolist() == [int(s.status) for s in expected]
        assert found.violation.shape == (BATCH,)
        values = torch.stack([s.value for s in expected])
        torch.testing.assert_close(found.value, values, rtol=1e-9, atol=case.atol)


@can_fail
def test_policies(case: LayerCase) -> None:
    y, set = case.infeasible()
    layer = case.make()
    with pytest.raises(InfeasibleError, match=r"index \[1\]"):
        layer.eval()(y, set)
    layer.train()(y, set)
    assert layer.counts[Status.INFEASIBLE] == 1
    assert layer.counts.sum() == 2
    layer.on_failure = Nan()
    assert layer(y, set)[1].isnan().all()
    assert layer(y, set)[0].isfinite().all()
    layer.on_failure = LeastViolation()
    assert layer(y, set).isfinite().all()
    layer.on_failure = Raise()
    with pytest.raises(InfeasibleError):
        layer(y, set)


@pytest.mark.untyped
@every(LayerCase)
def test_refuses_other_sets(case: LayerCase) -> None:
    with pytest.raises(SetTypeError, match=case.kind.__name__):
        case.make()(torch.zeros(2), object())


@every(LayerCase)
def test_computes_in_float64_on_request(case: LayerCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    small = with_tensors(set, **{name: tensor_of(set, name).float() for name in tensor_fields(set)})
    layer = case.make()
    layer.compute_dtype = torch.float64
    solution = layer.solve(y.float(), small)
    assert solution.value.dtype == torch.float32
    wide = with_tensors(small, **{name: tensor_of(small, name).double() for name in tensor_fields(small)})
    expected = case.make().solve(y.float().double(), wide).value
    torch.testing.assert_close(solution.value.double(), expected, rtol=1e-6, atol=1e-6)


@every(LayerCase, typed=one_a_solver)
def test_first_derivatives(case: LayerCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    names = finite_tensors(set)
    reference = as_function(case.make(), set, names)
    check_first_derivatives(reference, set, names, y, atol=case.gradient_atol)
    inputs = [t.clone().requires_grad_() for t in (y, *(tensor_of(set, name) for name in names))]
    for name, make in case.others.items():
        other = as_function(make(), set, names)
        for gradient, same in zip(
            torch.autograd.grad(reference(*inputs).square().sum(), inputs),
            torch.autograd.grad(other(*inputs).square().sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(same, gradient, rtol=1e-5, atol=1e-6, msg=name)


@every(LayerCase, where=lambda row: row.second_order, typed=one_a_solver)
def test_second_derivatives(case: LayerCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    names = finite_tensors(set)
    function = as_function(case.make(), set, names)
    check_second_derivatives(function, set, names, y, generator, atol=10 * case.gradient_atol)


@pytest.mark.untyped
@every(LayerCase, where=lambda row: row.transforms)
def test_transforms_agree(case: LayerCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    layer, single = case.make(), element(set, 0)

    def enforce(point: Tensor) -> Tensor:
        return layer.solve(point, single).value

    expected = layer.solve(y, single).value
    torch.testing.assert_close(torch.func.vmap(enforce)(y), expected, rtol=1e-9, atol=case.atol)
    jacobians = blocks_by_autograd(enforce, y)
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        mapped = torch.func.vmap(jacobian(enforce))(y)
        torch.testing.assert_close(mapped, jacobians, rtol=1e-6, atol=case.gradient_atol)


@pytest.mark.untyped
@every(LayerCase, where=lambda row: row.transforms and row.compiles)
def test_compiles_to_one_graph(case: LayerCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator, case.to_compile)
    layer = case.make()
    layer.on_failure = LeastViolation()
    names = finite_tensors(set)

    def loss(y: Tensor, *tensors: Tensor) -> Tensor:
        return layer(y, with_tensors(set, **dict(zip(names, tensors, strict=True))))

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    results = []
    for function in (loss, compiled):
        inputs = [t.clone().requires_grad_() for t in (y, *(tensor_of(set, name) for name in names))]
        value = function(*inputs)
        results.append((value.detach(), *torch.autograd.grad(value.square().sum(), inputs)))
    for eager, traced in zip(*results, strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-6, atol=case.gradient_atol)


@pytest.mark.untyped
@every(LayerCase, where=lambda row: row.transforms and one_a_solver(row))
def test_no_hidden_synchronization(case: LayerCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator, case.to_compile)
    layer = case.make()
    with fake_cuda():
        solution = layer.solve(on_cuda(y), on_cuda(set))
        assert solution.value.device.type == solution.status.device.type == "cuda"
