"""Lyapunov functions: positive definite for every parameter, exact at the origin, consistent derivatives."""

from __future__ import annotations

import math

import pytest
import torch

from constrained_nn.certificates import BiLipschitzLyapunov, NeuralLyapunov, QuadraticLyapunov

KINDS = {
    "neural": lambda **more: NeuralLyapunov(3, rate=0.5, hidden=(20, 10, 5), **more),
    "bi-lipschitz": lambda **more: BiLipschitzLyapunov(3, rate=0.5, **more),
}
each_kind = pytest.mark.parametrize("kind", KINDS)
# from weights of a fresh network to ones that saturate every unit
each_size = pytest.mark.parametrize("size", [1.0, 10.0, 100.0])


def make(kind: str, size: float, dtype=torch.float64, **more):
    torch.manual_seed(0)
    V = KINDS[kind](**more).to(dtype)
    with torch.no_grad():
        for parameter in V.parameters():
            parameter.mul_(size)
    return V


@each_kind
@each_size
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_exactly_zero_at_the_origin_for_every_parameter(kind, size, dtype):
    origin = torch.tensor([0.3, -1.0, 2.0], dtype=dtype)
    V = make(kind, size, dtype, origin=origin)
    value, gradient = V.value_and_gradient(torch.stack([origin] * 3))
    assert not value.any()
    assert not gradient.any()


@each_kind
@each_size
def test_bounds_for_every_parameter(kind, size, generator):
    V = make(kind, size)
    x = torch.randn(500, 3, generator=generator, dtype=torch.float64)
    x = x * torch.logspace(-8, 2, 500, dtype=torch.float64)[:, None]
    value, gradient = V.value_and_gradient(x)
    ratio = value / x.square().sum(-1)
    assert ratio.min() >= (1e-3 if kind == "neural" else 0.2**6) * (1 - 1e-9)
    if kind == "bi-lipschitz":
        assert ratio.max() <= 1.8**6
    assert bool((gradient.abs().amax(-1) > 0).all())
    if kind == "neural":  # convex: V(0) >= V(x) − ∇V(x)·x
        assert bool((value <= (gradient * x).sum(-1) * (1 + 1e-12)).all())


@each_size
def test_convex(size, generator):
    V = make("neural", size)
    x, y = (3 * torch.randn(500, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    middle = V.value(0.5 * (x + y))
    ends = 0.5 * (V.value(x) + V.value(y))
    assert bool((middle <= ends * (1 + 1e-12)).all())


@each_kind
@pytest.mark.parametrize("angles", [(), (0, 2)])
def test_gradient_is_that_of_the_value_also_near_the_origin(kind, angles, generator):
    V = make(kind, 3.0, angles=angles)
    direction = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    for size in (1.0, 1e-4, 1e-9):
        x = (size * direction).requires_grad_()
        value, gradient = V.value_and_gradient(x)
        (expected,) = torch.autograd.grad(value.sum(), x)
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-14)
    curvature = torch.func.hessian(V.value)(torch.zeros(3, dtype=torch.float64))
    near = 1e-8 * direction
    quadratic = 0.5 * torch.einsum("bi,ij,bj->b", near, curvature, near)
    torch.testing.assert_close(V.value(near), quadratic, rtol=1e-6, atol=0)


@each_kind
def test_a_full_turn_changes_nothing(kind, generator):
    V = make(kind, 1.0, angles=(1,))
    x = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    turned = x + torch.tensor([0.0, 2 * math.pi, 0.0], dtype=torch.float64)
    torch.testing.assert_close(V.value(turned), V.value(x), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(V.gradient(turned), V.gradient(x), rtol=1e-9, atol=1e-10)


def test_a_riccati_solution_serves_as_matrix():
    from constrained_nn.solvers import solve_care

    A, B = torch.tensor([[0.0, 1.0], [2.0, 0.0]]).double(), torch.tensor([[0.0], [1.0]]).double()
    solution = solve_care(A, B, torch.eye(2).double(), torch.eye(1).double())
    V = QuadraticLyapunov(solution.P, rate=0.1)
    x = torch.randn(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert bool((V.condition(0.0, x).violation(x @ solution.closed_loop.T) == 0).all())


@each_kind
@pytest.mark.untyped
def test_compiles_and_round_trips(kind, generator):
    V = make(kind, 1.0, angles=(0,), origin=torch.tensor([0.1, 0.2, 0.3]).double())
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    compiled = torch.compile(V.value_and_gradient, backend="aot_eager", fullgraph=True)
    for found, expected in zip(compiled(x), V.value_and_gradient(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    other = KINDS[kind](angles=(0,)).double()
    other.load_state_dict(V.state_dict())
    assert torch.equal(other.value(x), V.value(x))
