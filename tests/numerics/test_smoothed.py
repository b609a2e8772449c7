"""Smoothed derivatives: exact values, and derivatives that are continuous across changes of the active set."""

from __future__ import annotations

import pytest
import torch
from torch.func import jacfwd, jacrev, vmap

from constrained_nn import AffineSubspace, Ball, Box, EuclideanProjection, Halfspace, Intersection, Simplex
from constrained_nn.errors import SetTypeError
from constrained_nn.solvers import Status, project_polyhedron
from tests.fake_cuda import fake_cuda

INF = float("inf")


def sample(generator, batch=6, n=5, m=7, shared=False):
    A = torch.randn(*(() if shared else (batch,)), m, n, generator=generator, dtype=torch.float64)
    inner = 0.3 * torch.randn(batch, n, generator=generator, dtype=torch.float64)
    gap = 0.1 + torch.rand(batch, m, generator=generator, dtype=torch.float64)
    upper = (A @ inner.unsqueeze(-1)).squeeze(-1) + gap
    y = inner + 1.5 * torch.randn(batch, n, generator=generator, dtype=torch.float64)
    lower = torch.where(torch.arange(m) < 1, upper, upper - 3.0)
    return y, A, lower, upper


def jacobian(y, A, lower, upper, width, box=None):
    """Derivative in one `y` `(n, n)`."""

    def value(y):
        return project_polyhedron(y, A, lower, upper, box=box, smoothing=width).value

    return torch.autograd.functional.jacobian(value, y)


def gradients(data, weight, width, box=None):
    leaves = [t.clone().requires_grad_() for t in data]
    y, A, lower, upper = leaves
    lower = torch.where(data[2] == data[3], upper, lower)  # both sides of an equality are one number
    value = project_polyhedron(y, A, lower, upper, box=box, smoothing=width).value
    return torch.autograd.grad((weight * value).sum(), leaves)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("boxed", [False, True])
def test_values_are_exact_and_a_small_width_is_the_exact_derivative(generator, shared, boxed):
    data = sample(generator, shared=shared)
    box = (torch.full((5,), -0.6).double(), torch.full((5,), 0.6).double()) if boxed else None
    exact = project_polyhedron(*data, box=box)
    smooth = project_polyhedron(data[0].clone().requires_grad_(), *data[1:], box=box, smoothing=0.1)
    ok = exact.ok
    assert (smooth.value == exact.value).all()
    assert (smooth.status == exact.status).all()
    weight = torch.randn(data[0].shape, generator=generator, dtype=torch.float64) * ok.unsqueeze(-1)
    wanted = gradients(data, weight, None, box)
    errors = []
    for width in (1e-2, 1e-3, 1e-7):
        found = gradients(data, weight, width, box)
        errors.append(max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True)))
    assert errors[1] < 0.1 * errors[0]  # of second order in the width
    assert errors[2] < 1e-7


def test_one_row_is_the_average_over_the_width():
    """Along the normal, the derivative is the share of a Student distribution that is inside."""
    normal, zero = torch.tensor([[0.6, 0.8]], dtype=torch.float64), torch.zeros(1).double()
    for offset in (-0.3, 0.0, 0.2):
        y = offset * normal[0]
        J = jacobian(y, normal, zero - INF, zero, 0.1)
        inside = 0.5 * (1 - offset / (offset**2 + 0.04) ** 0.5)
        expected = torch.eye(2).double() - (1 - inside) * normal.T @ normal
        torch.testing.assert_close(J, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("width", [1e-9, 1e-3, 1.0])
def test_degenerate_points_have_symmetric_derivatives_between_zero_and_one(width):
    eye = torch.eye(3).double()
    diagonal = torch.ones(1, 3).double() / 3**0.5
    A = torch.cat([eye, eye[:1], -eye[1:2], 5 * eye[2:], diagonal, 0 * diagonal])
    upper = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]).double()
    for y in (torch.zeros(3), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, -1e-9])):
        J = jacobian(y.double(), A, torch.full_like(upper, -INF), upper, width)
        assert J.isfinite().all()
        torch.testing.assert_close(J, J.T, rtol=0, atol=1e-6)
        values = torch.linalg.eigvalsh(0.5 * (J + J.T))
        assert values.min() > -1e-9
        assert values.max() < 1 + 1e-9


def test_the_derivative_is_continuous_across_a_kink():
    A, zero = torch.tensor([[1.0, 0.0]]).double(), torch.zeros(1).double()
    for step in (1e-3, 1e-6):
        sides = [jacobian(torch.tensor([s, 0.0]).double(), A, zero - INF, zero, 0.1) for s in (-step, step)]
        assert float((sides[0] - sides[1]).abs().max()) < 10 * step


def test_equalities_stay_equalities(generator):
    y, A, _, upper = sample(generator, batch=4, n=5, m=2)
    A = torch.cat([A, A[:, :1]], -2)  # one of them twice
    upper = torch.cat([upper, upper[:, :1]], -1)
    for i in range(4):
        J = jacobian(y[i], A[i], upper[i], upper[i], 0.5)
        assert float((A[i] @ J).abs().max()) < 1e-9


@pytest.mark.untyped
def test_second_order_and_transforms_agree(generator):
    """The derivative of the derivative, three ways; first order against a difference of a smooth function."""
    y, A, lower, upper = sample(generator, batch=3, n=3, m=4)

    def value(y, A, lower, upper):
        return project_polyhedron(y, A, lower, upper, smoothing=0.2).value

    leaves = [t.clone().requires_grad_() for t in (y, A, lower, upper)]
    weight = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    first = torch.autograd.grad((weight * value(*leaves)).sum(), leaves, create_graph=True)
    seeds = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in first]
    second = torch.autograd.grad(sum((g * s).sum() for g, s in zip(first, seeds, strict=True)), leaves)
    assert all(t.isfinite().all() for t in second)

    back = vmap(jacrev(value, argnums=(0, 1, 3)))(y, A, lower, upper)
    ahead = vmap(jacfwd(value, argnums=(0, 1, 3)))(y, A, lower, upper)
    for a, b in zip(back, ahead, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(torch.einsum("bi,bij->bj", weight, back[0]), first[0], rtol=1e-8, atol=1e-9)
    hessian = vmap(jacfwd(jacrev(value)))(y, A, lower, upper)
    torch.testing.assert_close(hessian, hessian.transpose(-1, -2), rtol=1e-7, atol=1e-8)


def test_second_derivatives_are_those_of_the_smoothed_conditions():
    """One row: the shifted conditions have the closed form `x = y − a s(a·y − offset)`."""
    normal, zero, width = torch.tensor([[0.6, 0.8]], dtype=torch.float64), torch.zeros(1).double(), 0.3

    def value(y):
        return project_polyhedron(y, normal, zero - INF, zero, smoothing=width).value.sum()

    y = torch.tensor([0.2, 0.1], dtype=torch.float64)
    found = torch.autograd.functional.hessian(value, y)
    t = float(normal[0] @ y)
    bend = 2 * width**2 / (t**2 + 4 * width**2) ** 1.5
    torch.testing.assert_close(found, -normal.sum() * bend * normal.T @ normal, rtol=1e-10, atol=1e-12)


@pytest.mark.untyped
def test_compiles_without_a_graph_break(generator):
    y, A, lower, upper = sample(generator, batch=3, n=2, m=3)
    compiled = torch.compile(
        lambda *a: project_polyhedron(*a, max_steps=4, smoothing=0.1).value,
        fullgraph=True,
        backend="aot_eager",
    )
    leaf, plain = (y.clone().requires_grad_() for _ in range(2))
    compiled(leaf, A, lower, upper).sum().backward()
    project_polyhedron(plain, A, lower, upper, smoothing=0.1).value.sum().backward()
    torch.testing.assert_close(leaf.grad, plain.grad)


def test_runs_on_a_gpu_without_reading_a_value():
    with fake_cuda():
        f = lambda *shape: torch.empty(*shape, device="cuda")  # noqa: E731
        solution = project_polyhedron(f(8, 4), f(5, 4), f(5), f(8, 5), box=(f(4), f(4)), smoothing=0.1)
        assert solution.value.device.type == "cuda"


@pytest.mark.parametrize("poison", ["y", "A", "upper", "empty"])
def test_a_bad_element_hurts_no_other(generator, poison):
    data = dict(zip(("y", "A", "lower", "upper"), sample(generator), strict=True))
    clean = {k: v.clone().requires_grad_() for k, v in data.items()}
    project_polyhedron(**clean, smoothing=0.1).value[1:].sum().backward()
    if poison == "empty":
        data["upper"][0] = data["lower"][0] - 1.0
    else:
        data[poison][0].view(-1)[0] = float("nan")
    bad = {k: v.clone().requires_grad_() for k, v in data.items()}
    solution = project_polyhedron(**bad, smoothing=0.1)
    assert solution.status[0] == (Status.INFEASIBLE if poison == "empty" else Status.NONFINITE_INPUT)
    solution.value.sum().backward()
    for name, leaf in bad.items():
        torch.testing.assert_close(leaf.grad[1:], clean[name].grad[1:], rtol=1e-12, atol=1e-12)
        assert (leaf.grad[0] == 0).all()


def test_the_layer_smooths_every_linear_set(generator):
    layer, plain = EuclideanProjection(smoothing=0.1), EuclideanProjection()
    y = torch.tensor([0.0, 1.0, 0.0]).double()
    zero, one = torch.zeros(3).double(), torch.ones(3).double()
    sets = [
        Box(zero, one),
        Halfspace(one, torch.tensor(1.0).double()),
        AffineSubspace(one.unsqueeze(0), one[:1]),
        Simplex(zero, torch.tensor(1.0).double()),
        Intersection(Box(zero, one), Halfspace(one, torch.tensor(1.0).double())),
    ]
    for set in sets:
        torch.testing.assert_close(layer(y, set), plain(y, set), rtol=1e-13, atol=1e-14)
        J = torch.autograd.functional.jacobian(lambda y, set=set: layer(y, set), y)
        assert J.isfinite().all()
        assert not torch.equal(J, J.round()) or isinstance(set, AffineSubspace)
    box = torch.autograd.functional.jacobian(lambda y: layer(y, sets[0]), y)
    share = 0.5 * (1 + 1 / (1 + 0.04) ** 0.5) - 0.5  # inside of one bound and at the other
    torch.testing.assert_close(box, share * torch.eye(3).double(), rtol=1e-12, atol=1e-13)


def test_widths_are_positive_and_sets_linear():
    zero = torch.zeros(1).double()
    with pytest.raises(ValueError, match="smoothing > 0"):
        project_polyhedron(zero, zero.unsqueeze(0), zero, zero, smoothing=0.0)
    with pytest.raises(ValueError, match="smoothing > 0"):
        EuclideanProjection(smoothing=-1.0)
    with pytest.raises(SetTypeError, match="got Ball"):
        EuclideanProjection(smoothing=1.0)(torch.zeros(2), Ball(torch.zeros(2), torch.ones(())))
