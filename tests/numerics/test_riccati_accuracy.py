"""Riccati equations on which a small residual is not a small error: CAREX and DAREX, margins, precision, large ones."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.linalg import LinAlgError, solve_continuous_are, solve_discrete_are

from constrained_nn.errors import ShapeError
from constrained_nn.solvers import Status, solve_care, solve_dare
from tests.numerics.riccati_collections import carex, darex, reference
from tests.oracles import finite_difference

BOTH = pytest.mark.parametrize("discrete", [False, True], ids=["care", "dare"])
# Solutions that the matrix sign function does not give: R is singular.
KNOWN = {"darex-6": np.eye(2)}
# No stabilizing solution: the closed loop of [[2, 1], [1, 1]] oscillates.
MARGINAL = ("carex-11", "carex-2.5-0.0")


def solver(discrete: bool):
    return solve_dare if discrete else solve_care


def tensors(*matrices) -> list[torch.Tensor]:
    return [torch.as_tensor(np.asarray(M, dtype=float)) for M in matrices]


def scipy_solution(discrete: bool, matrices) -> np.ndarray | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return (solve_discrete_are if discrete else solve_continuous_are)(*matrices)
    except LinAlgError:
        return None


def distance(P, X) -> float:
    return np.inf if P is None else float(np.linalg.norm(np.asarray(P) - X) / np.linalg.norm(X))


@BOTH
@pytest.mark.untyped
def test_collections_against_600_bits(discrete):
    """Nothing OK is off by more than 1e-6, and nothing that SciPy solves to 1e-8 is flagged."""
    count = 0
    for name, matrices in (darex if discrete else carex)():
        X = KNOWN.get(name)
        if len(matrices[0]) > 12 or (discrete and X is None and not np.linalg.det(matrices[3])):
            continue
        X = reference(*matrices, discrete=discrete) if X is None else X
        solution = solver(discrete)(*tensors(*matrices))
        if X is None:
            assert name in MARGINAL
            assert solution.status == Status.INFEASIBLE
            continue
        off = distance(solution.P, X)
        if solution.ok:
            assert off <= 1e-6, name
            assert off <= 100 * solution.error.item() + 1e-14, name
        else:
            assert distance(scipy_solution(discrete, matrices), X) > 1e-8, name
        count += 1
    assert count >= (58 if discrete else 105)


@BOTH
@pytest.mark.untyped
def test_larger_examples_of_the_collections_are_solved(discrete):
    for name, matrices in (darex if discrete else carex)():
        n = len(matrices[0])
        if 12 < n <= 100 and not name.startswith("carex-4.1") and name != "carex-17":
            solution = solver(discrete)(*tensors(*matrices))
            assert solution.ok, name
            X = scipy_solution(discrete, matrices)
            assert distance(solution.P, X) < 1e-5, name


def test_chain_of_integrators_is_solved_or_flagged_by_its_error():
    """`P` of 4.1 is known at its corner: `P[0, n-1] = sqrt(q r)`."""
    for n in (10, 16, 21, 30):
        A, B, Q = np.eye(n, k=1), np.eye(n)[:, -1:], np.diag([1.0] + [0.0] * (n - 1))
        solution = solve_care(*tensors(A, B, Q, np.eye(1)))
        assert solution.ok or n > 16
        assert not solution.ok or solution.P[0, -1].item() == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("equation", ["cart", "sampled cart", "oscillator", "turn"])
def test_marginal_modes_outside_of_the_cost_are_infeasible(equation):
    cart = [[0.0, 1.0], [0.0, 0.0]], [[0.0], [1.0]], np.diag([0.0, 1.0])
    sampled = [[1.0, 0.1], [0.0, 1.0]], [[0.005], [0.1]], np.diag([0.0, 1.0])
    oscillator = [[0, 1, 0], [-1, 0, 0], [0, 0, -1]], [[0], [1], [1]], np.diag([0, 0, 1])
    c, s = np.cos(0.7), np.sin(0.7)
    turn = [[c, s, 0], [-s, c, 0], [0, 0, 0.5]], [[0], [1], [1]], np.diag([0, 0, 1])
    data = {"cart": cart, "sampled cart": sampled, "oscillator": oscillator, "turn": turn}[equation]
    solution = solver(equation in ("sampled cart", "turn"))(*tensors(*data, np.eye(1)))
    assert solution.status == Status.INFEASIBLE
    assert not solution.gain.any()


@BOTH
def test_unweighted_oscillators_in_random_coordinates(discrete, generator):
    """A mode on the boundary of stability that does not enter the cost, in 50 systems: none is OK."""
    n = 4
    T = torch.linalg.qr(torch.randn(50, n, n, generator=generator, dtype=torch.float64))[0]
    w = 0.3 + torch.rand(50, generator=generator, dtype=torch.float64)
    A = torch.zeros(50, n, n, dtype=torch.float64)
    A[:, 0, 1], A[:, 1, 0] = w, -w
    A[:, 2:, 2:] = 0.4 * torch.randn(50, 2, 2, generator=generator, dtype=torch.float64)
    A = torch.linalg.matrix_exp(A) if discrete else A
    B = torch.randn(50, n, 1, generator=generator, dtype=torch.float64)
    Q = torch.diag(torch.tensor([0.0, 0.0, 1.0, 2.0])).double()
    solution = solver(discrete)(T @ A @ T.mT, T @ B, T @ Q @ T.mT, torch.eye(1).double())
    assert not solution.ok.any()


@BOTH
def test_one_number_with_and_without_derivatives(discrete, generator):
    """No-grad, grad and detached give the same bits, also for stiff and unstable systems."""
    A = 9 * torch.randn(300, 2, 2, generator=generator, dtype=torch.float64).round()
    B = 5 * torch.randn(300, 2, 1, generator=generator, dtype=torch.float64).round()
    g = 7 * torch.randn(300, 1, 2, generator=generator, dtype=torch.float64).round()
    Q, R = g.mT @ g, torch.ones(1, 1, dtype=torch.float64)
    plain = solver(discrete)(A, B, Q, R)
    followed = solver(discrete)(A.clone().requires_grad_(), B, Q, R)
    for name in ("P", "gain", "closed_loop", "status", "residual", "error", "margin"):
        assert torch.equal(getattr(plain, name), getattr(followed, name).detach()), name
    assert followed.P.requires_grad
    poles = torch.linalg.eigvals((A - B @ followed.gain.detach())[followed.ok])
    assert bool(((poles.abs() < 1) if discrete else (poles.real < 0)).all())


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_verdict_is_about_the_rounded_matrix(discrete, dtype, generator):
    A, B = (torch.randn(300, 4, k, generator=generator).to(dtype) for k in (4, 1))
    scale = 10.0 ** (2 * torch.rand(300, 4, generator=generator) - 1)
    A = (A * scale.unsqueeze(-1) / scale.unsqueeze(-2)).to(dtype)
    Q, R = torch.eye(4).to(dtype), torch.eye(1).to(dtype)
    solution = solver(discrete)(A, B, Q, R)
    assert solution.ok.sum() > 100
    A, B, P, K = (M.double() for M in (A, B, solution.P, solution.gain))
    own = torch.linalg.solve(1 + B.mT @ P @ B, B.mT @ P @ A) if discrete else B.mT @ P
    for gain in (K, own):
        poles = torch.linalg.eigvals((A - B @ gain)[solution.ok])
        assert bool(((poles.abs() < 1) if discrete else (poles.real < 0)).all())
    exact = solver(discrete)(A, B, Q.double(), R.double())
    whole = torch.linalg.matrix_norm(exact.P)
    off = torch.linalg.matrix_norm(P - exact.P) / torch.where(whole > 0, whole, 1)
    assert bool((off <= 1.1 * solution.error.double() + 1e-12)[solution.ok].all())


def test_what_does_not_fit_into_the_dtype_is_no_solution():
    data = (torch.tensor([[v]], dtype=torch.float32) for v in (1e26, 1e-22, 1.0, 1e-8))
    solution = solve_care(*data)
    assert not solution.ok
    assert bool(solution.P.isfinite().all())


@BOTH
@pytest.mark.parametrize("power", [-200, -60, 60, 200])
def test_units_change_nothing(discrete, power, generator):
    """Costs in other units, and time in others for the continuous equation."""
    A, B = (torch.randn(3, k, generator=generator, dtype=torch.float64) for k in (3, 2))
    Q, R = torch.eye(3).double(), torch.eye(2).double()
    base = solver(discrete)(A, B, Q, R)
    scale = 2.0**power
    cost = solver(discrete)(A, B, scale * Q, scale * R)
    assert cost.ok
    torch.testing.assert_close(cost.P / scale, base.P, rtol=1e-12, atol=0)
    if not discrete:
        time = solver(discrete)(scale * A, scale * B, scale * Q, scale * R)
        assert time.ok
        torch.testing.assert_close(time.P, base.P, rtol=1e-12, atol=0)


def test_singular_input_weight_in_discrete_time(generator):
    """`R = 0` is deadbeat control: `R + BᵀPB` has an inverse. In continuous time it is refused."""
    A, B, Q = [[2.0, -1.0], [1.0, 0.0]], [[1.0], [0.0]], np.diag([0.0, 1.0])
    solution = solve_dare(*tensors(A, B, Q, [[0.0]]))
    assert solution.ok
    torch.testing.assert_close(solution.P, torch.eye(2).double(), rtol=1e-12, atol=1e-12)
    assert solve_care(*tensors(A, B, Q, [[0.0]])).status == Status.SINGULAR
    A, B = (torch.randn(20, 4, k, generator=generator, dtype=torch.float64) for k in (4, 2))
    R = torch.diag(torch.tensor([0.0, 1.0])).double()
    solution = solve_dare(A, B, torch.eye(4).double(), R)
    assert bool(solution.ok.all())
    for i in range(20):
        X = solve_discrete_are(A[i].numpy(), B[i].numpy(), np.eye(4), R.numpy())
        np.testing.assert_allclose(solution.P[i], X, rtol=1e-7, atol=1e-8 * np.abs(X).max())


@BOTH
def test_descriptor_systems_with_cross_weight(discrete, generator):
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    A, B, E, N = draw(6, 3, 3), draw(6, 3, 2), draw(6, 3, 3) + 2 * torch.eye(3), 0.1 * draw(6, 3, 2)
    Q, R = torch.eye(3).double(), torch.eye(2).double()
    solution = solver(discrete)(A, B, Q, R, cross=N, descriptor=E)
    assert bool(solution.ok.all())
    P, K = solution.P, solution.gain
    if discrete:
        right, kept = B.mT @ P @ A + N.mT, A.mT @ P @ A - E.mT @ P @ E
        inner = R + B.mT @ P @ B
    else:
        right, inner = B.mT @ P @ E + N.mT, R
        kept = A.mT @ P @ E + E.mT @ P @ A
    torch.testing.assert_close(inner @ K, right, rtol=1e-9, atol=1e-10)
    rest = kept + Q - K.mT @ right
    assert bool((torch.linalg.matrix_norm(rest) < 1e-11 * (1 + torch.linalg.matrix_norm(kept))).all())
    poles = torch.linalg.eigvals(torch.linalg.solve(E, A - B @ solution.gain))
    found = 1 - poles.abs().amax(-1) if discrete else -poles.real.amax(-1)
    torch.testing.assert_close(solution.margin, found, rtol=1e-8, atol=1e-10)
    one = (A[0], B[0], Q, R)
    function = lambda E: solver(discrete)(*one, cross=N[0], descriptor=E).gain  # noqa: E731
    slope = torch.func.jacrev(function)(E[0])
    by_differences = finite_difference(function, E[0]).reshape(slope.shape)
    torch.testing.assert_close(slope, by_differences, rtol=1e-6, atol=1e-6)
    singular = solver(discrete)(*one, descriptor=torch.diag(torch.tensor([1.0, 1.0, 0.0])).double())
    assert singular.status == Status.SINGULAR


@pytest.mark.untyped
def test_complex_matrices_are_refused_in_words():
    one = torch.eye(2, dtype=torch.complex128)
    with pytest.raises(ShapeError, match=r"solve_care: expected A with real entries, got torch\.complex128"):
        solve_care(one, one, one, one)


@BOTH
def test_large_equations_take_little_memory(discrete):
    """300 states; the Kronecker matrix would take 65 GB."""
    rng = np.random.default_rng(0)
    n = 300
    A = rng.normal(size=(n, n)) / np.sqrt(n)
    A = 1.1 * A if discrete else A - 0.95 * np.eye(n)
    solution = solver(discrete)(*tensors(A, rng.normal(size=(n, 3)), np.eye(n), np.eye(3)))
    assert solution.ok
    assert solution.error < 1e-12


@BOTH
def test_one_equation_and_a_batch_of_them(discrete, generator):
    """One equation is solved at once; the search for batches finds the same."""
    A, B = (torch.randn(12, 5, k, generator=generator, dtype=torch.float64) for k in (5, 2))
    N = 0.1 * torch.randn(12, 5, 2, generator=generator, dtype=torch.float64)
    Q, R = torch.eye(5).double(), torch.eye(2).double()
    batch = solver(discrete)(A, B, Q, R, cross=N)
    for k in range(12):
        one = solver(discrete)(A[k], B[k], Q, R, cross=N[k])
        assert one.ok
        assert batch.ok[k]
        for name in ("P", "gain", "closed_loop", "margin"):
            expected = getattr(batch, name)[k]
            near = 1e-9 * max(1.0, expected.abs().max().item())
            torch.testing.assert_close(getattr(one, name), expected, rtol=0, atol=near)


@BOTH
def test_one_equation_has_one_number_with_and_without_derivatives(discrete, generator):
    for n in (1, 3, 24):
        A = torch.randn(n, n, generator=generator, dtype=torch.float64) / n**0.5
        B = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        data = A, B, torch.eye(n).double(), torch.eye(2).double()
        plain, followed = solver(discrete)(*data), solver(discrete)(A.clone().requires_grad_(), *data[1:])
        for name in ("P", "gain", "closed_loop", "status", "steps", "residual", "error", "margin"):
            assert torch.equal(getattr(plain, name), getattr(followed, name).detach()), name
        with torch.no_grad():
            assert torch.equal(plain.P, solver(discrete)(*data).P)


@BOTH
def test_the_error_of_single_equations_is_not_too_small(discrete):
    """Systems with rows and columns of B and Q of very different size, one by one, against the search with exact
    residuals."""
    rng = np.random.default_rng(0)
    solved = 0
    for _ in range(25):
        n = 4
        T = np.linalg.qr(rng.normal(size=(n, n)))[0]
        A = T @ rng.normal(size=(n, n)) @ T.T
        B = T @ (10.0 ** rng.uniform(-4, 0, (n, 1)) * rng.normal(size=(n, 2)))
        C = 10.0 ** rng.uniform(-4, 0, (n, 1)) * rng.normal(size=(n, n))
        X = reference(A, B, C.T @ C, np.eye(2), discrete=discrete, bits=300)
        solution = solver(discrete)(*tensors(A, B, C.T @ C, np.eye(2)))
        if solution.ok:
            solved += 1
            assert distance(solution.P, X) <= 100 * solution.error.item() + 1e-14
    assert solved >= 20
