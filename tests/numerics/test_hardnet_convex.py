"""HardNetConvex on cvxpy programs, and Completion."""

from __future__ import annotations

from typing import Any

import cvxpy
import pytest
import torch

from constrained_nn import (
    Ball,
    Completion,
    ConvexProgram,
    HardNetAffine,
    HardNetConvex,
    Polyhedron,
    Status,
)
from constrained_nn.errors import ShapeError
from constrained_nn.layers import Nan, ProjectionLayer
from tests.cases.sets import randn, tensor


@pytest.fixture(scope="module", params=["affine", "lifted"])
def half(request) -> ConvexProgram:
    """One half-space `a·y <= offset`, both given; written as a row, and so that only a solver knows it."""
    y, a, offset = cvxpy.Variable(2), cvxpy.Parameter(2), cvxpy.Parameter(1)
    row = a @ y <= offset if request.param == "affine" else cvxpy.pos(a @ y - offset) <= 0
    program = ConvexProgram(y, [row, y >= -4.0], [a, offset])
    assert program.is_affine == (request.param == "affine")
    return program


def test_values_and_gradients_are_those_of_the_closed_form(half: ConvexProgram, generator) -> None:
    y, a, offset = randn(generator, 6, 2), randn(generator, 6, 2), 0.3 * randn(generator, 6, 1)
    weight = randn(generator, 6, 2)
    results = []
    pairs: list[tuple[ProjectionLayer, Any]] = [
        (HardNetConvex(), half),
        (HardNetAffine(), lambda a, o: Polyhedron(a.unsqueeze(-2), upper=o)),
    ]
    for layer, build in pairs:
        inputs = [t.clone().requires_grad_() for t in (y, a, offset)]
        solution = layer.solve(inputs[0], build(*inputs[1:]))
        assert (solution.status == Status.OK).all()
        (solution.value * weight).sum().backward()
        results.append([solution.value.detach(), *(t.grad for t in inputs)])
    assert (results[1][0] != y).any()
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-4)


def test_a_failed_element_is_flagged_and_hurts_no_other(half: ConvexProgram) -> None:
    y = tensor([2.0, 0.0], [2.0, 0.0], [torch.nan, 0.0], [0.0, 0.5]).requires_grad_()
    a = tensor([1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0])
    offset = tensor([1.0], [-9.0], [1.0], [1.0])  # element 1 asks for y_0 <= -9, below the other bound
    solution = HardNetConvex().solve(y, half(a, offset))
    assert solution.status.tolist() == [0, int(Status.INFEASIBLE), int(Status.NONFINITE_INPUT), 0]
    torch.testing.assert_close(solution.value[[0, 3]], tensor([1.0, 0.0], [0.0, 0.5]), rtol=0, atol=1e-6)
    assert solution.violation[1] > 1.0
    Nan()(solution, "HardNetConvex")[[0, 3]].sum().backward()
    assert y.grad is not None
    torch.testing.assert_close(y.grad[[0, 3]], tensor([0.0, 1.0], [1.0, 1.0]), rtol=0, atol=1e-4)
    assert (y.grad[[1, 2]] == 0).all()


def test_a_back_end_that_is_wrong_or_has_no_derivative_hurts_no_other(monkeypatch) -> None:
    """What the first back end gets wrong is solved by the second; where neither has a derivative it is zero."""
    v, radius = cvxpy.Variable(2), cvxpy.Parameter(nonneg=True)
    disc = ConvexProgram(v, [cvxpy.norm(v) <= radius], [radius])
    exact = disc.solver("DIFFCP", 1e-6)

    class NoDerivative(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            ctx.save_for_backward(y)
            return y.clone()

        @staticmethod
        def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
            if (ctx.saved_tensors[0][:, 0] == 4.0).any():
                raise RuntimeError("factorization failed")
            return grad

    def ignores_the_constraint_left_of_zero(y, radius):
        value = exact(y, radius)[0]
        return (NoDerivative.apply(torch.where(y[:, :1] < 0, y, value) + 0.0 * value) + 0.0 * y,)

    def no_derivative_at_four(y, radius):
        return (exact(NoDerivative.apply(y), radius)[0],)

    names = {"FIRST": ignores_the_constraint_left_of_zero, "SECOND": no_derivative_at_four}
    monkeypatch.setattr(disc, "backends", lambda: tuple(names))
    monkeypatch.setattr(disc, "solver", lambda name, atol: names[name])
    y = tensor([3.0, 4.0], [-3.0, 4.0], [4.0, 3.0], [0.1, 0.2])
    expected = tensor([0.6, 0.8], [-0.6, 0.8], [0.8, 0.6], [0.1, 0.2])
    for chosen, zero in ((("FIRST", "SECOND"), None), (("SECOND",), 2)):
        monkeypatch.setattr(disc, "backends", lambda chosen=chosen: chosen)
        point = y.clone().requires_grad_()
        solution = HardNetConvex().solve(point, disc(tensor(1.0).squeeze()))
        assert (solution.status == Status.OK).all()
        torch.testing.assert_close(solution.value, expected, rtol=0, atol=1e-6)
        (grad,) = torch.autograd.grad(solution.value[:, 0].sum(), point)
        true = torch.stack([(1 - expected[:, 0] ** 2) / 5, -expected.prod(-1) / 5], -1)
        true[3] = tensor(1.0, 0.0)
        if zero is not None:
            true[zero] = 0.0
        torch.testing.assert_close(grad, true, rtol=0, atol=1e-4)


class BackEndError(Exception):
    """An exception that no library of ours knows."""


def _raises(*_: Any) -> Any:
    raise BackEndError("licence expired")


def test_a_feasible_point_that_is_not_nearest_goes_to_the_next_back_end(monkeypatch) -> None:
    """`z >= x² + y²` (RAYEN's paraboloid): back ends off by 6e-5, inwards and sideways, against one that is exact."""
    v = cvxpy.Variable(3)
    bowl = ConvexProgram(v, [v[0] ** 2 + v[1] ** 2 <= v[2]])
    exact = bowl.solver("DIFFCP", 1e-6)

    def inwards(y):
        return (exact(y)[0] + tensor(0.0, 0.0, 6e-5),)

    def sideways(y):
        x = exact(y)[0]
        turned = torch.stack([x[:, 0] - 6e-5 * x[:, 1], x[:, 1] + 6e-5 * x[:, 0], x[:, 2]], -1)
        return (torch.where((y - x).abs().amax(-1, keepdim=True) > 1e-6, turned, x),)

    names = {"INWARDS": inwards, "SIDEWAYS": sideways, "RAISES": _raises, "EXACT": exact}
    monkeypatch.setattr(bowl, "solver", lambda name, atol: names[name])
    y = tensor([3.0, 0.0, 0.0], [1.0, 2.0, -1.0], [0.0, 0.5, 4.0])  # the last is inside
    for wrong in ("INWARDS", "SIDEWAYS", "RAISES"):
        monkeypatch.setattr(bowl, "backends", lambda wrong=wrong: (wrong,))
        alone = HardNetConvex().solve(y, bowl())
        assert (alone.status[:2] == int(Status.MAX_STEPS)).all(), wrong
        monkeypatch.setattr(bowl, "backends", lambda wrong=wrong: (wrong, "EXACT"))
        both = HardNetConvex().solve(y, bowl())
        assert (both.status == int(Status.OK)).all(), wrong
        torch.testing.assert_close(both.value, exact(y)[0], rtol=0, atol=2e-6)


def test_a_back_end_that_cannot_be_made_is_passed_over(monkeypatch) -> None:
    v = cvxpy.Variable(2)
    disc = ConvexProgram(v, [cvxpy.norm(v) <= 1.0])
    exact = disc.solver("DIFFCP", 1e-6)
    monkeypatch.setattr(disc, "backends", lambda: ("GONE", "EXACT"))
    monkeypatch.setattr(disc, "solver", lambda name, atol: exact if name == "EXACT" else _raises())
    solution = HardNetConvex().solve(tensor([3.0, 4.0]), disc())
    assert solution.status.tolist() == [int(Status.OK)]


def test_a_cone_as_program_and_as_set(generator) -> None:
    y, center = cvxpy.Variable(3), cvxpy.Parameter(3)
    ball = ConvexProgram(y, [cvxpy.norm(y - center) <= 0.5], [center])
    points, centers = randn(generator, 4, 3), randn(generator, 4, 3)
    found = HardNetConvex()(points, ball(centers))
    exact = HardNetConvex()(points, Ball(centers, tensor(0.5).squeeze()))
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-4)


def test_a_program_without_parameters_and_one_element() -> None:
    y = cvxpy.Variable(2)
    simplex = ConvexProgram(y, [cvxpy.neg(y) <= 0, cvxpy.sum(y) == 1])
    assert not simplex.is_affine
    value = HardNetConvex()(tensor(3.0, 1.0), simplex())
    torch.testing.assert_close(value, tensor(1.0, 0.0), rtol=0, atol=1e-5)
    assert simplex().residual(tensor(1.0, 0.5)).tolist() == [0.0, 0.5]


def test_affine_programs_become_rows_of_their_parameters(generator) -> None:
    """Matrix, vector and scalar parameters, products with the variable, attributes of the variable, equalities."""
    y = cvxpy.Variable(3, nonneg=True)
    A, b, r, unused = (
        cvxpy.Parameter((2, 3)),
        cvxpy.Parameter(2),
        cvxpy.Parameter(nonneg=True),
        cvxpy.Parameter(),
    )
    program = ConvexProgram(
        y, [A @ y - 2.0 <= b, cvxpy.sum(y) == 2.0 * r, y[0] - r * y[1] >= -1.0], [b, unused, A, r]
    )
    assert program.is_affine
    values = (
        randn(generator, 5, 2),
        randn(generator, 1),
        randn(generator, 4, 1, 2, 3),
        torch.ones(4, 5).double(),
    )
    values = (values[0], values[1].squeeze(), values[2], 1.0 + torch.arange(20.0).reshape(4, 5).double() / 20)
    rows = program(*values).polyhedron(values[0])
    assert rows is not None
    assert rows.batch_shape == (4, 5)
    point = randn(generator, 4, 5, 3)
    b, _, A, r = values
    expected = [
        (A @ point.unsqueeze(-1)).squeeze(-1) - 2.0 - b,
        -1.0 - point[..., :1] + r.unsqueeze(-1) * point[..., 1:2],
        -point,
    ]
    excess = torch.relu(torch.cat(expected, -1))
    found = program(*values).residual(point).abs()
    torch.testing.assert_close(found[..., 0], (point.sum(-1) - 2.0 * r).abs(), rtol=0, atol=1e-13)
    torch.testing.assert_close(found[..., 1:].sort().values, excess.sort().values, rtol=0, atol=1e-13)


def test_a_constant_matrix_stays_shared_and_float32_stays(generator) -> None:
    y, upper = cvxpy.Variable(4), cvxpy.Parameter(4)
    program = ConvexProgram(y, [y <= upper, y >= -1.0], [upper])
    box = program(randn(generator, 6, 4).abs().float())
    rows = box.polyhedron(torch.zeros(4))
    assert rows is not None
    assert (rows.A.shape, rows.A.dtype) == ((8, 4), torch.float32)
    point = randn(generator, 6, 4).float()
    torch.testing.assert_close(HardNetConvex()(point, box), point.clamp(min=-1.0).minimum(box.values[0]))


def test_affine_programs_take_every_derivative(generator) -> None:
    y, a, offset = cvxpy.Variable(2), cvxpy.Parameter(2), cvxpy.Parameter(1)
    program = ConvexProgram(y, [a @ y <= offset], [a, offset])
    layer = HardNetConvex()
    inputs = [t.requires_grad_() for t in (tensor([2.0, 1.0]), tensor([1.0, 0.5]), tensor([0.5]))]
    assert torch.autograd.gradcheck(lambda y, a, o: layer(y, program(a, o)), inputs)
    assert torch.autograd.gradgradcheck(lambda y, a, o: layer(y, program(a, o)), inputs)
    points = randn(generator, 5, 2)
    mapped = torch.func.vmap(lambda y: layer(y, program(tensor(1.0, 0.5), tensor(0.5).reshape(1))))(points)
    torch.testing.assert_close(mapped, layer(points, program(tensor(1.0, 0.5), tensor(0.5).reshape(1))))


def test_bad_programs_are_refused(half: ConvexProgram) -> None:
    y, p, q = cvxpy.Variable(2), cvxpy.Parameter(), cvxpy.Parameter()
    with pytest.raises(ValueError, match="disciplined"):
        ConvexProgram(y, [p * q * y <= 1], [p, q])
    with pytest.raises(ValueError, match="also \\['p"):
        ConvexProgram(y, [y <= cvxpy.Parameter(2, name="p")])
    with pytest.raises(ValueError, match="also \\['z"):
        ConvexProgram(y, [y <= cvxpy.Variable(2, name="z")])
    with pytest.raises(ShapeError, match="Flatten"):
        ConvexProgram(cvxpy.Variable((2, 2)), [])
    with pytest.raises(ShapeError, match="expected values"):
        half(torch.zeros(3).double())


# --- completion ----------------------------------------------------------------------------------------------


def test_completion_satisfies_the_equalities(generator) -> None:
    C, d = randn(generator, 3, 7), randn(generator, 20, 3)
    complete = Completion(C)
    free = randn(generator, 20, 4)
    y = complete(free, d)
    assert torch.equal(y[:, complete.free], free)
    torch.testing.assert_close(y @ C.mT, d, rtol=0, atol=1e-12)


def test_reduced_rows_are_the_same_rows(generator) -> None:
    """A layer on the free variables, then completion: the whole decision satisfies rows and equalities."""
    C, A, d = randn(generator, 2, 6), randn(generator, 3, 6), randn(generator, 20, 2)
    rows = Polyhedron(A, upper=randn(generator, 20, 3))
    complete = Completion(C)
    free = 3.0 * randn(generator, 20, 4)
    reduced = complete.reduce(rows, d)
    torch.testing.assert_close(reduced.residual(free), rows.residual(complete(free, d)), rtol=1e-9, atol=1e-9)
    y = complete(HardNetAffine()(free, reduced), d)
    assert rows.violation(y).max() < 1e-9
    assert (y @ C.mT - d).abs().max() < 1e-12
    # the same set by stacked rows
    both = Polyhedron(
        torch.cat([A, C]), torch.cat([rows.lower.expand(20, 3), d], -1), torch.cat([rows.upper, d], -1)
    )
    assert both.violation(y).max() < 1e-9


def test_completion_avoids_dependent_columns_and_refuses_dependent_rows() -> None:
    C = tensor([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0])
    assert 3 in Completion(C).dependent.tolist()
    with pytest.raises(ValueError, match="dependent rows"):
        Completion(torch.cat([C, C[:1]]))
    with pytest.raises(ShapeError, match="k <= n"):
        Completion(C.mT)


def test_free_variables_can_be_chosen() -> None:
    C, d = tensor([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0]), tensor(3.0, 4.0)
    complete = Completion(C, [2, 0])
    assert (complete.free.tolist(), complete.dependent.tolist()) == ([0, 2], [1, 3])
    torch.testing.assert_close(complete(tensor(1.0, 7.0), d), tensor(1.0, 2.0, 7.0, 2.0))
    for free, message in (([0], "2 different indices"), ([0, 0], "2 different"), ([1, 0], "determined")):
        with pytest.raises(ValueError, match=message):
            Completion(C, free)
