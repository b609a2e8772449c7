"""What every constraint set promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from constrained_nn.sets import Box, IntervalSet, Polyhedron, ProjectableSet
from constrained_nn.testing import check_set
from tests.cases import SetCase, every
from tests.contracts.derivatives import check_first_derivatives, check_second_derivatives
from tests.fake_cuda import fake_cuda, on_cuda
from tests.oracles import (
    blocks_by_autograd,
    element,
    is_shared,
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


def finite_tensors(set) -> list[str]:
    """Tensors of a set that finite differences can move."""
    tensors = {name: tensor_of(set, name) for name in tensor_fields(set)}
    return [name for name, t in tensors.items() if t.numel() and t.isfinite().all()]


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
def test_any_number_of_batch_dimensions(case: SetCase, generator: torch.Generator) -> None:
    """None, one, or two: every method gives each element what it gets alone."""
    set, y = draw(case, generator)
    if not isinstance(set, IntervalSet):
        return
    batched = {n: tensor_of(set, n) for n in tensor_fields(set) if not is_shared(set, n)}
    folded = with_tensors(set, **{n: t.unflatten(0, (2, 3)) for n, t in batched.items()})
    point = y.unflatten(0, (2, 3))
    margin = 0.01 + torch.rand(set.value(y).shape, generator=generator, dtype=torch.float64)
    methods = {
        "value": lambda s, y, _: s.value(y),
        "jacobian": lambda s, y, _: s.jacobian(y),
        "shrink": lambda s, y, margin: s.shrink(margin).residual(y),
    }
    if hasattr(set, "from_coordinates"):
        methods["coordinates"] = lambda s, y, _: s.from_coordinates(0.5 * s.coordinates(y))
    for name, method in methods.items():
        loop = torch.stack([method(element(set, i), y[i], margin[i]) for i in range(BATCH)])
        for many, at, by in ((set, y, margin), (folded, point, margin.unflatten(0, (2, 3)))):
            found = method(many, at, by).expand(*at.shape[:-1], *loop.shape[1:]).reshape(loop.shape)
            torch.testing.assert_close(found, loop, rtol=1e-11, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("as_rows", [False, True], ids=["box", "polyhedron"])
def test_shrunk_bounds(as_rows: bool) -> None:
    """Wide, thin, equal, crossed, one-sided and free, against the bounds that they must have."""
    inf = float("inf")
    lower = torch.tensor([0.0, 0.0, 2.0, 3.0, -inf, 1.0, -inf]).double()
    upper = torch.tensor([4.0, 1.0, 2.0, 1.0, 5.0, inf, inf]).double()
    set = Polyhedron(torch.eye(7).double(), lower, upper) if as_rows else Box(lower, upper)
    shrunk = set.shrink(torch.full((7,), 0.75).double())
    assert shrunk.lower.tolist() == [0.75, 0.5, 2.0, 3.0, -inf, 1.75, -inf]
    assert shrunk.upper.tolist() == [3.25, 0.5, 2.0, 1.0, 4.25, inf, inf]


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
        expected = nearest_point(numpy(y[i]), lambda z, single=single: case.rows(single, z))  # pyright: ignore
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
    names = finite_tensors(set)

    def residual(y: Tensor, *tensors: Tensor) -> Tensor:
        return with_tensors(set, **dict(zip(names, tensors, strict=True))).residual(y)

    check_first_derivatives(residual, set, names, y, atol=1e-6)


@projectable
def test_gradients(case: SetCase, generator: torch.Generator) -> None:
    set, y = draw(case, generator)
    names = finite_tensors(set)

    def project(y: Tensor, *tensors: Tensor) -> Tensor:
        return with_tensors(set, **dict(zip(names, tensors, strict=True))).project(y)

    check_first_derivatives(project, set, names, y, rtol=1e-6, atol=1e-6)
    if case.smooth:
        check_second_derivatives(project, set, names, y, generator, atol=1e-5)


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
