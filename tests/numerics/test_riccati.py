"""Riccati equations: residuals, stability, closed forms, SciPy, derivatives, transforms, failures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import solve_continuous_are, solve_discrete_are
from torch import Tensor

from constrained_nn.errors import ShapeError
from constrained_nn.solvers import Status, solve_care, solve_dare
from tests.fake_cuda import fake_cuda, on_cuda
from tests.oracles import finite_difference

BOTH = pytest.mark.parametrize("discrete", [False, True], ids=["care", "dare"])


def solver(discrete: bool):
    return solve_dare if discrete else solve_care


def random_problem(generator, batch, n, m):
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    A, B, C, D = draw(*batch, n, n), draw(*batch, n, m), draw(*batch, n, n), draw(*batch, m, m)
    return A, B, C @ C.mT + 0.1 * torch.eye(n), D @ D.mT + 0.5 * torch.eye(m)


def badly_scaled(generator, count, n, m):
    """States in units that differ by up to 10⁶, time by 10⁴, weights by 10⁸ and 10⁶."""
    A, B, Q, _ = random_problem(generator, (count,), n, m)
    power = lambda size, *shape: (  # noqa: E731
        10.0 ** (size * (torch.rand(count, *shape, generator=generator, dtype=torch.float64) - 0.5))
    )
    d = power(6, n)
    A = A * d.unsqueeze(-1) / d.unsqueeze(-2) * power(4, 1, 1)
    B = B * d.unsqueeze(-1) * power(4, 1, 1)
    Q = Q / d.unsqueeze(-1) / d.unsqueeze(-2) * power(8, 1, 1)
    return A, B, Q, torch.diag_embed(power(6, m))


def residual(discrete: bool, A, B, Q, R, P) -> float:
    """Norm of the residual over the sum of the norms of its terms, in NumPy, for one element."""
    A, B, Q, R, P = (np.asarray(M) for M in (A, B, Q, R, P))
    if discrete:
        inner = A.T @ P @ B @ np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
        terms = [A.T @ P @ A, -P, -inner, Q]
    else:
        terms = [A.T @ P, P @ A, -P @ B @ np.linalg.solve(R, B.T @ P), Q]
    return float(np.linalg.norm(sum(terms)) / sum(np.linalg.norm(t) for t in terms))


def is_stable(discrete: bool, A, B, K) -> bool:
    eigenvalues = np.linalg.eigvals(np.asarray(A) - np.asarray(B) @ np.asarray(K))
    return bool((np.abs(eigenvalues) < 1).all() if discrete else (eigenvalues.real < 0).all())


@BOTH
@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 1), (6, 2), (12, 4)])
def test_thousand_random_problems(discrete, n, m, generator):
    problem = random_problem(generator, (250,), n, m)
    solution = solver(discrete)(*problem)
    assert bool(solution.ok.all()), solution.describe_failures()
    assert torch.equal(solution.P, solution.P.mT)
    scipy_solver = solve_discrete_are if discrete else solve_continuous_are
    for i, (A, B, Q, R) in enumerate(zip(*problem, strict=True)):
        assert residual(discrete, A, B, Q, R, solution.P[i]) <= 1e-10
        assert is_stable(discrete, A, B, solution.gain[i])
        if i < 25:
            expected = scipy_solver(A, B, Q, R)
            np.testing.assert_allclose(solution.P[i], expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


@BOTH
def test_badly_scaled_problems_are_solved_or_flagged(discrete, generator):
    problem = badly_scaled(generator, 200, 6, 2)
    solution = solver(discrete)(*problem)
    for i in solution.ok.nonzero().flatten().tolist():
        A, B, Q, R = (M[i] for M in problem)
        assert residual(discrete, A, B, Q, R, solution.P[i]) <= 1e-10
    assert solution.ok.sum() >= (160 if discrete else 195)
    flagged = ~solution.ok
    assert bool(((solution.residual > 5e-11) | (solution.error > 5e-8))[flagged].all())


def test_scalar_closed_form():
    a = torch.tensor([-2.0, 0.0, 1.0, 3.0], dtype=torch.float64)[:, None, None]
    b, q, r = (torch.full((1, 1), v, dtype=torch.float64) for v in (0.5, 2.0, 0.3))
    expected = r * (a + (a.square() + q * b.square() / r).sqrt()) / b.square()
    torch.testing.assert_close(solve_care(a, b, q, r).P, expected, rtol=1e-13, atol=0)
    # p = a² p − (a p b)² / (r + b² p) + q, a quadratic in p
    second, first = b.square(), r - a.square() * r - q * b.square()
    root = (-first + (first.square() + 4 * second * q * r).sqrt()) / (2 * second)
    torch.testing.assert_close(solve_dare(a, b, q, r).P, root, rtol=1e-12, atol=0)


def test_double_integrator_closed_form():
    A, B = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).double(), torch.tensor([[0.0], [1.0]]).double()
    solution = solve_care(A, B, torch.eye(2).double(), torch.eye(1).double())
    expected = torch.tensor([[math.sqrt(3.0), 1.0], [1.0, math.sqrt(3.0)]], dtype=torch.float64)
    torch.testing.assert_close(solution.P, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(solution.gain, expected[1:], rtol=1e-13, atol=1e-13)
    # eigenvalues solve s² + √3 s + 1 = 0
    assert solution.margin.item() == pytest.approx(math.sqrt(3.0) / 2, rel=1e-12)


@BOTH
def test_cross_weight(discrete, generator):
    A, B, Q, R = random_problem(generator, (5,), 4, 2)
    N = 0.1 * torch.randn(5, 4, 2, generator=generator, dtype=torch.float64)
    solution = solver(discrete)(A, B, Q, R, cross=N)
    for i in range(5):
        scipy_solver = solve_discrete_are if discrete else solve_continuous_are
        expected = scipy_solver(*(M[i].numpy() for M in (A, B, Q, R)), s=N[i].numpy())
        np.testing.assert_allclose(solution.P[i], expected, rtol=1e-9, atol=1e-9)
        assert is_stable(discrete, A[i], B[i], solution.gain[i])
        closed = A[i] - B[i] @ solution.gain[i]
        torch.testing.assert_close(solution.closed_loop[i], closed, rtol=1e-12, atol=1e-12)


@BOTH
def test_warm_start_takes_newton_steps_only(discrete, generator):
    A, B, Q, R = random_problem(generator, (20,), 6, 2)
    cold = solver(discrete)(A, B, Q, R)
    near = A + 1e-3 * torch.randn(A.shape, generator=generator, dtype=torch.float64)
    warm = solver(discrete)(near, B, Q, R, guess=cold.P)
    again = solver(discrete)(near, B, Q, R)
    torch.testing.assert_close(warm.P, again.P, rtol=1e-8, atol=1e-8)
    assert warm.steps.max() <= 4 < again.steps.min() + 1
    # a guess that is worthless, or not a number, does no harm
    for bad in (-1e3 * torch.eye(6, dtype=torch.float64), torch.full((6, 6), torch.nan).double()):
        solution = solver(discrete)(A, B, Q, R, guess=bad)
        assert bool(solution.ok.all())
        torch.testing.assert_close(solution.P, cold.P, rtol=1e-8, atol=1e-8)


@BOTH
def test_unstable_modes_that_do_not_enter_the_cost(discrete):
    """`Q = 0` with an unstable plant: the stabilizing solution is not the one that doubling finds."""
    A = torch.tensor([[1.5, 1.0], [0.0, 2.0]], dtype=torch.float64)
    B, R, Q = torch.tensor([[0.0], [1.0]]).double(), torch.eye(1).double(), torch.zeros(2, 2).double()
    solution = solver(discrete)(A, B, Q, R)
    assert solution.status == Status.OK
    assert residual(discrete, A, B, Q, R, solution.P) < 1e-10
    assert is_stable(discrete, A, B, solution.gain)
    if not discrete:  # minimum energy mirrors the eigenvalues
        poles = np.sort(np.linalg.eigvals(solution.closed_loop).real)
        np.testing.assert_allclose(poles, [-2.0, -1.5], rtol=1e-9)


@BOTH
def test_failures_are_flagged_and_harm_nobody(discrete, generator):
    A, B, Q, R = random_problem(generator, (7,), 3, 1)
    R = R.clone()
    clean = solver(discrete)(A, B, Q, R)
    A, B, Q, R = (M.clone() for M in (A, B, Q, R))
    A[1] = torch.diag(torch.tensor([2.0, 0.1, 0.1]))
    B[1] = torch.tensor([[0.0], [1.0], [1.0]])  # the unstable mode has no input
    A[2, 0, 0] = torch.nan
    R[3] = -1.0
    turn = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.5]]).double()
    A[4] = turn if discrete else turn - torch.diag(torch.tensor([0.0, 0.0, 1.0]))
    B[4] = torch.tensor([[0.0], [0.0], [1.0]])  # an undamped mode has no input
    Q[5, 1, 1] = torch.inf
    for M in (A, B, Q, R):
        M.requires_grad_()
    solution = solver(discrete)(A, B, Q, R)
    expected = [Status.OK, Status.INFEASIBLE, Status.NONFINITE_INPUT, Status.SINGULAR, Status.INFEASIBLE]
    assert solution.status.tolist() == [*expected, Status.NONFINITE_INPUT, Status.OK]
    good = solution.ok
    torch.testing.assert_close(solution.P[good], clean.P[good], rtol=1e-10, atol=1e-10)
    assert not solution.P[~good].any()
    assert not solution.gain[~good].any()
    assert bool(solution.residual[~good].isinf().all())
    gradients = torch.autograd.grad((solution.P.sum() + solution.gain.square().sum()), (A, B, Q, R))
    for gradient in gradients:
        assert bool(gradient.isfinite().all())
        assert not gradient[~good].any()
        assert bool(gradient[good].any())
    text = solution.describe_failures()
    assert "2 of 7 elements INFEASIBLE" in text
    assert "not positive definite" in text


def as_function(discrete: bool):
    """`P` and gain of the symmetric parts, as one vector."""

    def function(A: Tensor, B: Tensor, Q: Tensor, R: Tensor) -> Tensor:
        solution = solver(discrete)(A, B, Q, R)
        return torch.cat([solution.P.flatten(-2), solution.gain.flatten(-2)], -1)

    return function


@BOTH
def test_gradients_of_a_badly_scaled_batch_agree_with_scipy(discrete, generator):
    """The adjoint rules by SciPy's Lyapunov solver at SciPy's solution, to 1e-7."""
    from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

    problem = [M.requires_grad_() for M in random_problem(generator, (50,), 6, 2)]
    P = solver(discrete)(*problem).P
    weight = torch.randn(P.shape, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad((P * weight).sum(), problem)
    for i in range(50):
        A, B, Q, R = (M[i].detach().numpy() for M in problem)
        g = 0.5 * (weight[i] + weight[i].T).numpy()
        if discrete:
            X = solve_discrete_are(A, B, Q, R)
            K = np.linalg.solve(R + B.T @ X @ B, B.T @ X @ A)
            L = solve_discrete_lyapunov(A - B @ K, g)
            step = X @ (A - B @ K) @ L
        else:
            X = solve_continuous_are(A, B, Q, R)
            K = np.linalg.solve(R, B.T @ X)
            L = solve_continuous_lyapunov(A - B @ K, -g)
            step = X @ L
        expected = (2 * step, -2 * step @ K.T, L, K @ L @ K.T)
        for gradient, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(gradient[i], reference, rtol=1e-7, atol=1e-7 * np.abs(reference).max())


@BOTH
def test_gradients_by_finite_differences_to_second_order(discrete, generator):
    problem = [M.requires_grad_() for M in random_problem(generator, (2,), 3, 2)]
    function = as_function(discrete)
    assert torch.autograd.gradcheck(function, problem, atol=1e-7, rtol=1e-7, eps=1e-6)
    small = [M.detach()[:1].requires_grad_() for M in problem]
    assert torch.autograd.gradgradcheck(function, small, atol=1e-5, rtol=1e-5)


@BOTH
@pytest.mark.untyped
def test_transforms(discrete, generator):
    problem = random_problem(generator, (4,), 3, 1)
    function = as_function(discrete)
    expected = function(*problem)
    torch.testing.assert_close(torch.func.vmap(function)(*problem), expected, rtol=1e-9, atol=1e-9)
    one = [M[0] for M in problem]
    reverse = torch.func.jacrev(function)(*one)
    forward = torch.func.jacfwd(function)(*one)
    by_differences = finite_difference(lambda A: function(A, *one[1:]), one[0]).reshape(reverse.shape)
    torch.testing.assert_close(reverse, by_differences, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(forward, reverse, rtol=1e-9, atol=1e-9)
    total = lambda Q: function(one[0], one[1], Q, one[3]).square().sum()  # noqa: E731
    hessian = torch.func.hessian(total)(one[2]).reshape(9, 9)
    slope = torch.func.grad(total)
    torch.testing.assert_close(hessian, finite_difference(slope, one[2]).reshape(9, 9), rtol=1e-5, atol=1e-5)
    batched = torch.func.vmap(torch.func.jacrev(function))(*problem)
    torch.testing.assert_close(batched[0], reverse, rtol=1e-9, atol=1e-9)


@BOTH
@pytest.mark.untyped
def test_compiles(discrete, generator):
    problem = random_problem(generator, (3,), 3, 1)
    A = problem[0].clone().requires_grad_()
    function = as_function(discrete)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    value, expected = compiled(A, *problem[1:]), function(A, *problem[1:])
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    found, reference = (torch.autograd.grad(v.sum(), A)[0] for v in (value, expected))
    torch.testing.assert_close(found, reference, rtol=1e-8, atol=1e-8)


@BOTH
@pytest.mark.untyped
def test_no_hidden_synchronization(discrete, generator):
    problem = random_problem(generator, (4,), 3, 2)
    with fake_cuda():
        solution = solver(discrete)(*(on_cuda(M) for M in problem), guess=on_cuda(problem[2]))
        assert solution.P.device.type == "cuda"
        assert solution.status.device.type == "cuda"


@BOTH
def test_batch_equals_loop_and_shapes_broadcast(discrete, generator):
    A, B, Q, R = random_problem(generator, (2, 3), 4, 2)
    Q, R = Q[0, 0], R[0]
    solution = solver(discrete)(A, B, Q, R)
    assert solution.P.shape == (2, 3, 4, 4)
    assert solution.gain.shape == (2, 3, 2, 4)
    assert solution.status.shape == solution.margin.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            single = solver(discrete)(A[i, j], B[i, j], Q, R[j])
            torch.testing.assert_close(single.P, solution.P[i, j], rtol=1e-10, atol=1e-10)
    empty = solver(discrete)(A[:0], B[:0], Q, R[:1])
    assert empty.P.shape == (0, 3, 4, 4)


def test_float32_is_computed_in_float64(generator):
    problem = random_problem(generator, (5,), 6, 2)
    small = [M.float() for M in problem]
    solution = solve_care(*small)
    assert solution.P.dtype == solution.residual.dtype == torch.float32
    exact = solve_care(*(M.double() for M in small))
    assert torch.equal(solution.P, exact.P.float())


@BOTH
@pytest.mark.untyped
def test_shapes_that_do_not_fit(discrete):
    A, B, R = torch.eye(3), torch.ones(3, 2), torch.eye(2)
    name = "solve_dare" if discrete else "solve_care"
    with pytest.raises(ShapeError, match=rf"{name}: expected Q of shape \(\*batch, 3, 3\), got \(2, 2\)"):
        solver(discrete)(A, B, torch.eye(2), R)
    with pytest.raises(ShapeError, match=r"expected R of dtype torch\.float32"):
        solver(discrete)(A, B, A, R.double())
    with pytest.raises(ShapeError, match="batch shapes that broadcast"):
        solver(discrete)(A.expand(2, 3, 3), B.expand(3, 3, 2), A, R)
    with pytest.raises(ShapeError, match="expected A of shape"):
        solver(discrete)(A, torch.ones(3), A, R)


@BOTH
@pytest.mark.untyped
def test_arrays_and_lists_are_refused(discrete):
    A, B, R = torch.eye(3), torch.ones(3, 2), torch.eye(2)
    with pytest.raises(ShapeError, match=r"expected A as a torch tensor, got ndarray\. Convert it"):
        solver(discrete)(A.numpy(), B.numpy(), A.numpy(), R.numpy())
    with pytest.raises(ShapeError, match="expected B as a torch tensor, got list"):
        solver(discrete)(A, B.tolist(), A, R)
    with pytest.raises(ShapeError, match="expected guess as a torch tensor, got ndarray"):
        solver(discrete)(A, B, A, R, guess=A.numpy())
