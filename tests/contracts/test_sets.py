"""What every constraint set promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from constrained_nn.sets import Box, Polyhedron, ProjectableSet
from constrained_nn.testing import check_set
from tests.cases import SetCase, every
from tests.fake_cuda import fake_cuda, on_cuda
from tests.oracles import (
    blocks_by_autograd,
    blocks_by_difference,
    element,
    nearest_point,
    numpy,
    tensor_fields,
    tensor_of,
    with_tensors,
)

BATCH = 6
projectable = every(SetCase, where=lambda row: issubclass(row.kind, ProjectableSet))


def draw(case: SetCase, generator: torch.Generator, spread: float = 3.0):
    set = case.build(generator, (BATCH,))
    return set, spread * torch.randn(BATCH, set.dim, generator=generator, dtype=torch.float64)


@every(SetCase)
def test_contract(case: SetCase) -> None:
    check_set(case.build, atol=case.atol)


@pytest.mark.once  # samples of the same functions
@projectable
def test_projection_moves_points(case: SetCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    projected = set.project(y)
    assert not torch.equal(projected, y)
    assert (set.violation(projected) <= case.atol * set.scale(projected).amax()).all()


@pytest.mark.once  # samples of the same functions
@every(SetCase)
def test_violation_is_that_of_the_oracle(case: SetCase, generator: torch.Generator) -> None:
    set, far = draw(case, generator)
    inside = case.inside(set).expand(BATCH, set.dim)
    for y in (far, inside, inside + 1e-3 * far):
        expected = [case.violation(element(set, i), numpy(y[i])) for i in range(BATCH)]
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(set.violation(y), expected, rtol=1e-9, atol=1e-12)


@every(SetCase)
def test_residual_is_zero_iff_contained(case: SetCase, generator: torch.Generator) -> None:
    set, far = draw(case, generator)
    inside = case.inside(set).expand(BATCH, set.dim)
    limit = 8 * torch.finfo(torch.float64).eps * set.scale(inside).amax()
    assert (set.violation(inside) <= limit).all()
    assert set.contains(inside, atol=float(limit)).all()
    outside = torch.tensor([case.violation(element(set, i), numpy(far[i])) > 1e-9 for i in range(BATCH)])
    assert outside.any(), "the row draws no point outside"
    assert torch.equal((set.residual(far) != 0).any(-1), outside)
    assert torch.equal(~set.contains(far, atol=1e-9), outside)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ((torch.nan, 0.0), (1.0, 1.0)),
        ((0.0, 0.0), (1.0, torch.nan)),
        ((torch.nan, torch.nan), (torch.nan, torch.nan)),
        ((-torch.inf, torch.nan), (torch.inf, 1.0)),
    ],
)
def test_a_bound_that_is_nan_holds_nowhere(lower: tuple, upper: tuple) -> None:
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (lower, upper))
    y = torch.full((2,), 0.5, dtype=torch.float64)
    for set in (Box(low, high), Polyhedron(torch.eye(2).double(), low, high)):
        assert not set.contains(y, atol=1e9)
        unknown = low.isnan() | high.isnan()
        assert torch.equal(set.residual(y).isnan(), unknown)  # the other rows are as they were


@every(SetCase)
def test_relative_violation_has_no_unit(case: SetCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    expected = (set.residual(y).abs() / set.scale(y)).amax(-1)
    torch.testing.assert_close(set.relative_violation(y), expected)
    assert (set.relative_violation(y)[set.violation(y) > 0] > 0).all()


@every(SetCase)
def test_batch_shapes_broadcast(case: SetCase, generator: torch.Generator) -> None:
    single = case.build(generator, ())
    y = torch.randn(2, 3, single.dim, generator=generator, dtype=torch.float64)
    assert single.batch_shape == ()
    assert single.violation(y).shape == (2, 3)
    batched = case.build(generator, (3,))
    assert batched.violation(y).shape == (2, 3)
    assert batched.violation(y[0, 0]).shape == batched.batch_shape
    if isinstance(batched, ProjectableSet):
        assert batched.project(y).shape == y.shape


@every(SetCase)
def test_float32_stays_float32(case: SetCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    small = with_tensors(set, **{name: tensor_of(set, name).float() for name in tensor_fields(set)})
    assert small.violation(y.float()).dtype == torch.float32
    torch.testing.assert_close(small.violation(y.float()).double(), set.violation(y), rtol=1e-4, atol=1e-4)
    if isinstance(small, ProjectableSet):
        assert small.project(y.float()).dtype == torch.float32


@pytest.mark.untyped
@every(SetCase)
def test_no_hidden_synchronization(case: SetCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    with fake_cuda():
        other, point = on_cuda(set), on_cuda(y)
        results = [other.residual(point), other.violation(point), other.scale(point)]
        if isinstance(other, ProjectableSet):
            results.append(other.project(point))
        assert all(r.device.type == "cuda" for r in results)


@pytest.mark.untyped
@every(SetCase)
def test_passes_through_vmap_and_compile(case: SetCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    single = element(set, 0)
    names = ["violation", *(["project"] if isinstance(set, ProjectableSet) else [])]
    for name in names:
        mapped = torch.func.vmap(getattr(single, name))(y)
        torch.testing.assert_close(mapped, getattr(single, name)(y), rtol=1e-12, atol=1e-13)

    def call(s, point: Tensor) -> list[Tensor]:
        return [getattr(s, name)(point) for name in names]

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    for traced, eager in zip(compiled(set, y), call(set, y), strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-12, atol=1e-13)


@pytest.mark.once  # samples of the same functions
@projectable
def test_projection_is_that_of_cvxpy(case: SetCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    projected = set.project(y)
    for i in range(3):
        single = element(set, i)
        expected = nearest_point(numpy(y[i]), lambda z, single=single: case.rows(single, z))
        torch.testing.assert_close(
            projected[i], torch.from_numpy(expected), rtol=case.cvxpy_atol, atol=case.cvxpy_atol
        )


@projectable
def test_edges(case: SetCase) -> None:
    for edge in case.edges():
        result = edge.set.project(edge.y)
        torch.testing.assert_close(result, edge.expected, rtol=1e-12, atol=1e-12, msg=edge.name)


@every(SetCase)
def test_residual_gradients(case: SetCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    names = [n for n in tensor_fields(set) if tensor_of(set, n).isfinite().all()]
    inputs = [t.clone().requires_grad_() for t in (y, *(tensor_of(set, n) for n in names))]

    def residual(y: Tensor, *tensors: Tensor) -> Tensor:
        return with_tensors(set, **dict(zip(names, tensors, strict=True))).residual(y)

    assert torch.autograd.gradcheck(residual, inputs, atol=1e-6)


@projectable
def test_gradients(case: SetCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    names = [n for n in tensor_fields(set) if tensor_of(set, n).isfinite().all()]
    inputs = [tensor_of(set, n).clone().requires_grad_() for n in names]

    def project(y: Tensor, *tensors: Tensor) -> Tensor:
        return with_tensors(set, **dict(zip(names, tensors, strict=True))).project(y)

    y = y.clone().requires_grad_()
    assert torch.autograd.gradcheck(project, (y, *inputs), atol=1e-6)
    if case.smooth:
        assert torch.autograd.gradgradcheck(project, (y, *inputs), atol=1e-5)
    jacobian = blocks_by_autograd(lambda p: project(p, *inputs), y)
    expected = blocks_by_difference(lambda p: project(p, *inputs), y)
    torch.testing.assert_close(jacobian, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.untyped
@projectable
def test_transforms_agree(case: SetCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    single = element(set, 0)
    backward = torch.func.vmap(torch.func.jacrev(single.project))(y)
    forward = torch.func.vmap(torch.func.jacfwd(single.project))(y)
    expected = blocks_by_autograd(single.project, y)
    torch.testing.assert_close(backward, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(forward, expected, rtol=1e-10, atol=1e-12)
