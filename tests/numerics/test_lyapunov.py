"""Sylvester, Lyapunov and Stein equations: SciPy, closed forms, derivatives, transforms, failures."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.linalg import solve_continuous_lyapunov
from scipy.linalg import solve_discrete_lyapunov as solve_discrete
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
from tests.numerics import lyapunov_collections

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


@BOTH
@pytest.mark.untyped
def test_collection_against_300_bits(discrete):
    """CTLEX and DTLEX: nothing OK is off by more than 1e-6, and nothing that SciPy solves to 1e-8 is flagged."""
    solved = 0
    for name, A, Q in lyapunov_collections.equations((3, 6, 10, 15, 20), discrete=discrete):
        X = lyapunov_collections.reference(A, Q, discrete=discrete, bits=300)
        if not np.abs(X).max() < 1e100:  # rounding has made A unstable
            continue
        solution = lyapunov(discrete)(torch.from_numpy(A), torch.from_numpy(Q))
        off = np.linalg.norm(solution.X.numpy() - X) / np.linalg.norm(X)
        if solution.ok:
            assert off <= 1e-6, name
            solved += 1
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = solve_discrete(A, Q) if discrete else solve_continuous_lyapunov(A, -Q)
            assert not np.linalg.norm(theirs - X) <= 1e-8 * np.linalg.norm(X), name
        assert solution.status != Status.SINGULAR, name
    assert solved >= 95


@BOTH
def test_one_number_with_and_without_derivatives(discrete, generator):
    for n in (2, 9):
        A, Q = draw(generator, 20, n, n), draw(generator, 20, n, n)
        plain, followed = lyapunov(discrete)(A, Q), lyapunov(discrete)(A.clone().requires_grad_(), Q)
        assert torch.equal(plain.X, followed.X.detach())
        assert torch.equal(plain.status, followed.status)
        assert followed.X.requires_grad


@BOTH
def test_unstable_equations_of_eighty_unknown_rows(discrete, generator):
    """By Schur forms: values, derivatives and their derivatives; the Kronecker matrix would take 0.3 GB."""
    n = 80
    A, Q = draw(generator, n, n) / n**0.5, torch.eye(n, dtype=torch.float64)
    A = (1.3 * A).requires_grad_()
    X = lyapunov(discrete)(A, Q)
    assert X.ok
    weight = draw(generator, n, n)
    (slope,) = torch.autograd.grad((X.X * weight).sum(), A, create_graph=True)
    along, step = draw(generator, n, n), 1e-6
    more, less = (lyapunov(discrete)(A.detach() + s * step * along, Q).X for s in (1, -1))
    by_differences = ((more - less) * weight).sum() / (2 * step)
    assert (slope * along).sum().item() == pytest.approx(by_differences.item(), rel=1e-4)
    (second,) = torch.autograd.grad((slope * along).sum(), A)
    assert bool(second.isfinite().all())
    assert bool(second.any())


def test_equations_in_other_units_and_in_lower_precision(generator):
    A, Q = draw(generator, 4, 4) - 4 * torch.eye(4), torch.eye(4, dtype=torch.float64)
    base = solve_lyapunov(A, Q)
    for power in (-800, -300, 300, 800):
        solution = solve_lyapunov(A, 2.0**power * Q)
        assert solution.ok
        torch.testing.assert_close(solution.X * 2.0**-power, base.X, rtol=1e-13, atol=0)
    for dtype in (torch.float32, torch.bfloat16):
        small = solve_lyapunov(A.to(dtype), Q.to(dtype))
        exact = solve_lyapunov(A.to(dtype).double(), Q)
        assert small.ok
        off = torch.linalg.matrix_norm(small.X.double() - exact.X) / torch.linalg.matrix_norm(exact.X)
        assert off <= 1.01 * small.error.double() + 1e-12
    too_large = solve_lyapunov(-1e-30 * torch.eye(2), 1e30 * torch.eye(2))
    assert too_large.status == Status.MISSED
    assert not too_large.X.any()


@BOTH
def test_one_equation_and_a_batch_of_them(discrete, generator):
    """One equation goes by Schur forms, a batch by other ways; a few are solved each by itself."""
    for n in (1, 4, 12):
        A, Q = 0.3 * draw(generator, 6, n, n), draw(generator, 6, n, n)
        A = A / n**0.5 if discrete else A - 2 * torch.eye(n)
        batch, few = lyapunov(discrete)(A, Q), lyapunov(discrete)(A[:3], Q[:3])
        for k in range(6):
            one = lyapunov(discrete)(A[k], Q[k])
            assert one.ok
            assert one.X.shape == (n, n)
            torch.testing.assert_close(one.X, batch.X[k], rtol=1e-11, atol=1e-11)
            assert k > 2 or torch.equal(one.X, few.X[k])


@BOTH
@pytest.mark.untyped
def test_a_hundred_states_against_a_residual_in_extended_precision(discrete):
    """4.4 of the collections with 33 blocks."""
    for name, A, Q in lyapunov_collections.equations((99,), discrete=discrete):
        if name == "4.4-99-1.1":
            solution = lyapunov(discrete)(torch.from_numpy(A), torch.from_numpy(Q))
            assert solution.ok
            A, Q, X = (M.astype(np.longdouble) for M in (A, Q, solution.X.numpy()))
            rest = (A @ X @ A.T - X + Q if discrete else A @ X + X @ A.T + Q).astype(float)
            step = lyapunov(discrete)(torch.from_numpy(A.astype(float)), torch.from_numpy(rest)).X.numpy()
            assert np.linalg.norm(step) <= 1e-7 * np.linalg.norm(solution.X)


@BOTH
def test_singular_equation_of_whole_numbers_is_flagged_one_by_one(discrete):
    """Products without rounding leave no noise by which a singular inverse would show."""
    A = np.diag([2.0, 0.5, 3.0]) if discrete else np.diag([1.0, -1.0, 2.0])
    for Q in (np.ones((3, 3)), np.diag([0.0, 0.0, 1.0])):
        solution = lyapunov(discrete)(torch.from_numpy(A), torch.from_numpy(Q))
        assert solution.status == Status.SINGULAR
        assert not solution.X.any()
