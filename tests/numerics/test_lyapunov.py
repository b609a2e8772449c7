"""Sylvester, Lyapunov and Stein equations: SciPy, closed forms, derivatives, transforms, failures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import solve_continuous_lyapunov
from scipy.linalg import solve_sylvester as scipy_sylvester

from constrained_nn.errors import ShapeError
from constrained_nn.solvers import (
    Status,
    solve_discrete_lyapunov,
    solve_discrete_sylvester,
    solve_lyapunov,
    solve_sylvester,
)
from tests.fake_cuda import fake_cuda, on_cuda

BOTH = pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def general(discrete: bool):
    return solve_discrete_sylvester if discrete else solve_sylvester


def lyapunov(discrete: bool):
    return solve_discrete_lyapunov if discrete else solve_lyapunov


@BOTH
@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 2), (8, 8), (9, 11)])
def test_general_equation(discrete, n, m, generator):
    """Nine by eleven is above the size that is factored at once, and neither matrix is stable."""
    A, B, C = draw(generator, 20, n, n), draw(generator, 20, m, m), draw(generator, 20, n, m)
    solution = general(discrete)(A, B, C)
    assert bool(solution.ok.all()), solution.describe_failures()
    X = solution.X
    rest = A @ X @ B + C - X if discrete else A @ X + X @ B + C
    assert rest.abs().max() < 1e-8 * X.abs().max()
    if not discrete:
        for i in range(20):
            expected = scipy_sylvester(A[i].numpy(), B[i].numpy(), -C[i].numpy())
            np.testing.assert_allclose(X[i], expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


@BOTH
@pytest.mark.parametrize("n", [4, 12])
def test_stable_lyapunov_is_positive_definite(discrete, n, generator):
    A = draw(generator, 30, n, n)
    size = torch.linalg.eigvals(A)
    if discrete:
        A = 0.9 * A / size.abs().amax(-1)[:, None, None]
    else:
        A = A - (size.real.amax(-1) + 0.1)[:, None, None] * torch.eye(n)
    solution = lyapunov(discrete)(A, torch.eye(n, dtype=torch.float64))
    assert bool(solution.ok.all())
    assert bool((torch.linalg.eigvalsh(solution.X) > 0).all())
    if not discrete:
        for i in range(30):
            expected = solve_continuous_lyapunov(A[i].numpy(), -np.eye(n))
            np.testing.assert_allclose(solution.X[i], expected, rtol=1e-8, atol=1e-8)


def test_mixed_batch_above_the_dense_size(generator):
    """Stable elements go by doubling, the unstable one by its own factorization."""
    A, B = draw(generator, 5, 9, 9) - 8 * torch.eye(9), draw(generator, 5, 9, 9) - 8 * torch.eye(9)
    A[3], C = -A[3] - 0.5 * torch.eye(9), draw(generator, 5, 9, 9)
    solution = solve_sylvester(A, B, C)
    assert bool(solution.ok.all())
    for i in range(5):
        expected = scipy_sylvester(A[i].numpy(), B[i].numpy(), -C[i].numpy())
        np.testing.assert_allclose(solution.X[i], expected, rtol=1e-8, atol=1e-8)


@BOTH
def test_no_unique_solution_is_flagged(discrete, generator):
    A, B, C = draw(generator, 4, 3, 3), draw(generator, 4, 2, 2), draw(generator, 4, 3, 2)
    clean = general(discrete)(A, B, C)
    A[1] = torch.diag(torch.tensor([2.0, 1.0, 0.3]))
    B[1] = torch.diag(torch.tensor([0.5 if discrete else -2.0, 0.1]))
    C[2, 0, 0] = torch.nan
    for M in (A, B, C):
        M.requires_grad_()
    solution = general(discrete)(A, B, C)
    expected = [Status.OK, Status.SINGULAR, Status.NONFINITE_INPUT, Status.OK]
    assert solution.status.tolist() == expected
    good = solution.ok
    torch.testing.assert_close(solution.X[good], clean.X[good], rtol=1e-12, atol=1e-12)
    for gradient in torch.autograd.grad(solution.X.sum(), (A, B, C)):
        assert bool(gradient.isfinite().all())
        assert not gradient[~good].any()
    assert "no unique solution" in solution.describe_failures()


@BOTH
@pytest.mark.parametrize("n", [3, 9])
def test_gradients_to_second_order(discrete, n, generator):
    A, B = 0.3 * draw(generator, 1, n, n), 0.3 * draw(generator, 1, n, n)
    if not discrete:
        A, B = A - 2 * torch.eye(n), B - 2 * torch.eye(n)
    problem = [M.requires_grad_() for M in (A, B, draw(generator, 1, n, n))]
    function = lambda *matrices: general(discrete)(*matrices).X  # noqa: E731
    fast = n > 3
    assert torch.autograd.gradcheck(function, problem, atol=1e-7, rtol=1e-7, fast_mode=fast)
    assert torch.autograd.gradgradcheck(function, problem, atol=1e-6, rtol=1e-6, fast_mode=fast)
    square = lambda A, Q: lyapunov(discrete)(A, Q).X  # noqa: E731
    assert torch.autograd.gradcheck(square, problem[::2], atol=1e-7, rtol=1e-7, fast_mode=fast)


@BOTH
@pytest.mark.untyped
def test_transforms(discrete, generator):
    A, Q = 0.3 * draw(generator, 4, 3, 3) - (0 if discrete else 2) * torch.eye(3), draw(generator, 4, 3, 3)
    function = lambda A, Q: lyapunov(discrete)(A, Q).X  # noqa: E731
    torch.testing.assert_close(torch.func.vmap(function)(A, Q), function(A, Q), rtol=1e-12, atol=1e-12)
    reverse = torch.func.vmap(torch.func.jacrev(function))(A, Q)
    forward = torch.func.vmap(torch.func.jacfwd(function))(A, Q)
    torch.testing.assert_close(reverse, forward, rtol=1e-10, atol=1e-10)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(A, Q), function(A, Q), rtol=1e-12, atol=1e-12)


@BOTH
@pytest.mark.untyped
@pytest.mark.parametrize("n", [3, 9])
def test_no_hidden_synchronization(discrete, n, generator):
    A = draw(generator, 4, n, n)
    with fake_cuda():
        assert lyapunov(discrete)(on_cuda(A), on_cuda(A)).X.device.type == "cuda"


@pytest.mark.untyped
def test_shapes_that_do_not_fit():
    with pytest.raises(
        ShapeError, match=r"solve_lyapunov: expected A of shape \(\*batch, 2, 2\), got \(3, 3\)"
    ):
        solve_lyapunov(torch.eye(3), torch.eye(2))
    with pytest.raises(ShapeError, match=r"solve_sylvester: expected B of shape"):
        solve_sylvester(torch.eye(3), torch.eye(3), torch.ones(3, 2))
    with pytest.raises(ShapeError, match=r"solve_lyapunov: expected Q as a torch tensor, got ndarray"):
        solve_lyapunov(torch.eye(3), torch.eye(3).numpy())
    with pytest.raises(ShapeError, match=r"solve_sylvester: expected A as a torch tensor, got list"):
        solve_sylvester([[1.0]], torch.eye(3), torch.ones(3, 2))
