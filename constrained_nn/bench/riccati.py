"""`constrained-nn bench riccati`: batched Riccati equations beside a loop of SciPy's solver."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer

from constrained_nn.bench.figures import Out, Repeats, with_origin, write_figures
from constrained_nn.options import Device, Threads, prepare_torch
from constrained_nn.printing import make_table, print_tables

# Bars: CPU seconds of 1,024 continuous equations with n = 6, m = 2; residual; error of the
# gradient.
BAR_SECONDS, BAR_RESIDUAL, BAR_GRADIENT = 0.1, 1e-10, 1e-7
_SEED = 0


def command(
    batch: Annotated[int, typer.Option(min=1, help="Equations in a batch.")] = 1024,
    states: Annotated[int, typer.Option(min=1, help="States n.")] = 6,
    inputs: Annotated[int, typer.Option(min=1, help="Inputs m.")] = 2,
    repeats: Repeats = 7,
    out: Out = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Time continuous and discrete Riccati equations, forward and backward, beside SciPy.

    Random problems (float64, seed 0) for speed; 1,000 random and 200 badly scaled ones (units of
    the states apart by 10^6, time by 10^4, weights by 10^8 and 10^6) for the residual; the gradient
    against the adjoint rule on SciPy's solution.
    """
    prepare_torch(device, threads)
    records = [measure(kind, batch, states, inputs, repeats, device) for kind in ("care", "dare")]
    problems = [(kind, which) for kind in ("care", "dare") for which in ("random", "badly scaled")]
    accuracy = [judge(kind, which, device) for kind, which in problems]
    title = f"{batch} equations, n = {states}, m = {inputs}, CPU ms of {threads} thread(s)"
    print_tables(_table_of_speed(records, title), _table_of_residuals(accuracy))
    how = {"threads": threads, "device": device}
    write_figures(out, with_origin("riccati", **how, records=records, accuracy=accuracy))


def _table_of_speed(records: list[dict[str, Any]], title: str) -> Any:
    heads = ("equation", "forward", "with gradient", "SciPy loop", "ratio", "distance")
    rows = [
        (
            r["equation"],
            *(f"{r[k]:.1f}" for k in ("forward_ms", "both_ms", "scipy_ms")),
            f"{r['scipy_ms'] / r['forward_ms']:.0f}",
            *(f"{r[k]:.1e}" for k in ("distance", "gradient_error")),
        )
        for r in records
    ]
    return make_table((*heads, "gradient error"), rows, title=title)


def _table_of_residuals(accuracy: list[dict[str, Any]]) -> Any:
    heads = ("equation", "problems", "count", "solved", "worst of the solved", "flagged")
    names = ("equation", "problems", "count", "solved", "worst", "flagged", "scipy_solved")
    rows = [[f"{r[k]:.1e}" if k == "worst" else str(r[k]) for k in names] for r in accuracy]
    return make_table((*heads, "SciPy within 1e-10"), rows, title="relative residual")


def random_problems(count: int, n: int, m: int, seed: int = _SEED) -> tuple[np.ndarray, ...]:
    """`A, B` normal, `Q` and `R` positive definite."""
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(count, n, n)), rng.normal(size=(count, n, m))
    C, D = rng.normal(size=(count, n, n)), rng.normal(size=(count, m, m))
    return A, B, C @ C.swapaxes(1, 2) + 0.1 * np.eye(n), D @ D.swapaxes(1, 2) + 0.5 * np.eye(m)


def badly_scaled_problems(count: int, n: int, m: int, seed: int = _SEED) -> tuple[np.ndarray, ...]:
    """Random problems in unfortunate units."""
    A, B, Q, _ = random_problems(count, n, m, seed)
    rng = np.random.default_rng([seed, 1])

    def power(size: float, *shape: int) -> np.ndarray:
        return 10.0 ** (size * rng.uniform(-0.5, 0.5, (count, *shape)))

    d = power(6, n)
    A = A * d[:, :, None] / d[:, None, :] * power(4, 1, 1)
    B = B * d[:, :, None] * power(4, 1, 1)
    Q = Q / d[:, :, None] / d[:, None, :] * power(8, 1, 1)
    return A, B, Q, power(6, m)[:, :, None] * np.eye(m)


def relative_residual(equation: str, A, B, Q, R, P) -> float:
    """Norm of the residual over the sum of the norms of its terms."""
    if equation == "care":
        terms = [Q, A.T @ P, P @ A, -P @ B @ np.linalg.solve(R, B.T @ P)]
    else:
        inner = np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
        terms = [Q, -P, A.T @ P @ A, -A.T @ P @ B @ inner]
    return float(np.linalg.norm(sum(terms)) / sum(np.linalg.norm(t) for t in terms))


def measure(equation: str, batch: int, n: int, m: int, repeats: int, device: str) -> dict[str, Any]:
    """CPU milliseconds (wall on another device), distance to SciPy, and error of the gradient."""
    import torch

    from constrained_nn.solvers import solve_care, solve_dare

    solve = solve_care if equation == "care" else solve_dare
    arrays = random_problems(batch, n, m)
    tensors = [torch.as_tensor(a, device=device) for a in arrays]
    weight = torch.as_tensor(np.random.default_rng([_SEED, 2]).normal(size=(batch, n, n)), device=device)

    def both() -> list[Any]:
        leaves = [t.clone().requires_grad_() for t in tensors]
        return list(torch.autograd.grad((solve(*leaves).P * weight).sum(), leaves))

    loop_begin = time.process_time()
    exact = [_scipy(equation, *(a[i] for a in arrays)) for i in range(batch)]
    loop = time.process_time() - loop_begin
    solution = solve(*tensors)
    found = solution.P.cpu().numpy()
    reference = [
        np.stack(g) for g in zip(*_adjoints(equation, arrays, exact, weight.cpu().numpy()), strict=True)
    ]
    errors = [
        np.linalg.norm(g.cpu().numpy() - r) / np.linalg.norm(r)
        for g, r in zip(both(), reference, strict=True)
    ]
    return {
        "equation": equation,
        "batch": batch,
        "n": n,
        "m": m,
        "forward_ms": _least(lambda: solve(*tensors), repeats, device),
        "both_ms": _least(both, repeats, device),
        "scipy_ms": 1e3 * loop,
        "solved": int(solution.ok.sum()),
        "distance": max(
            float(np.abs(P - X).max() / np.abs(X).max()) for P, X in zip(found, exact, strict=True)
        ),
        "gradient_error": float(max(errors)),
    }


def judge(equation: str, which: str, device: str) -> dict[str, Any]:
    """Counts of solved and flagged elements, the worst residual, and how often SciPy reaches 1e-10."""
    import torch

    from constrained_nn.solvers import solve_care, solve_dare

    solve = solve_care if equation == "care" else solve_dare
    arrays = random_problems(1000, 6, 2, 1) if which == "random" else badly_scaled_problems(200, 6, 2, 1)
    solution = solve(*(torch.as_tensor(a, device=device) for a in arrays))
    P, ok = solution.P.cpu().numpy(), solution.ok.tolist()
    problems = list(zip(*arrays, strict=True))
    residuals = [
        relative_residual(equation, A, B, Q, R, P[i]) for i, (A, B, Q, R) in enumerate(problems) if ok[i]
    ]
    scipy_solved = 0
    for A, B, Q, R in problems:
        try:
            X = _scipy(equation, A, B, Q, R)
            scipy_solved += relative_residual(equation, A, B, Q, R, X) <= BAR_RESIDUAL
        except np.linalg.LinAlgError:
            continue
    return {
        "equation": equation,
        "problems": which,
        "count": len(ok),
        "solved": sum(ok),
        "worst": max(residuals),
        "flagged": len(ok) - sum(ok),
        "scipy_solved": scipy_solved,
    }


def _scipy(equation: str, A, B, Q, R) -> np.ndarray:
    from scipy.linalg import solve_continuous_are, solve_discrete_are

    return (solve_continuous_are if equation == "care" else solve_discrete_are)(A, B, Q, R)


def _adjoints(equation: str, arrays, exact, weight):
    """Gradients of `Σ weight P` in `A, B, Q, R` by the adjoint rule, with SciPy's solvers."""
    from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

    for i, X in enumerate(exact):
        A, B, _, R = (a[i] for a in arrays)
        g = 0.5 * (weight[i] + weight[i].T)
        if equation == "care":
            K = np.linalg.solve(R, B.T @ X)
            L = solve_continuous_lyapunov(A - B @ K, -g)
            step = X @ L
        else:
            K = np.linalg.solve(R + B.T @ X @ B, B.T @ X @ A)
            L = solve_discrete_lyapunov(A - B @ K, g)
            step = X @ (A - B @ K) @ L
        yield 2 * step, -2 * step @ K.T, L, K @ L @ K.T


def _least(function: Callable[[], object], repeats: int, device: str) -> float:
    clock = time.process_time
    if device != "cpu":
        import torch

        def clock() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

    function()
    times = []
    for _ in range(repeats):
        begin = clock()
        function()
        times.append(clock() - begin)
    return 1e3 * min(times)
