"""Algebraic Riccati equations: batched, differentiable, with a status for each element."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.linalg import branchless
from constrained_nn.solvers.equations.matrices import (
    Array,
    all_finite,
    checked,
    eigenvalues,
    follow,
    identity,
    is_positive_definite,
    largest,
    namespace,
    norm,
    relative_residual,
    require_tensors,
    rounded,
    solve,
    symmetric,
    tolerance,
    tracked,
)
from constrained_nn.solvers.equations.riccati.equation import (
    ContinuousRiccati,
    DiscreteRiccati,
    EquationT,
    RiccatiEquation,
    Units,
    with_derivatives,
)
from constrained_nn.solvers.equations.riccati.search import Found, Verdict, keeps_stable, search
from constrained_nn.solvers.equations.riccati.single import solve_at_once
from constrained_nn.solvers.equations.solution import RiccatiSolution
from constrained_nn.solvers.solution import Status


def solve_care(
    A: Float[Tensor, "*#batch n n"],
    B: Float[Tensor, "*#batch n m"],
    Q: Float[Tensor, "*#batch n n"],
    R: Float[Tensor, "*#batch m m"],
    *,
    cross: Float[Tensor, "*#batch n m"] | None = None,
    descriptor: Float[Tensor, "*#batch n n"] | None = None,
    guess: Float[Tensor, "*#batch n n"] | None = None,
    rtol: float = 1e-10,
) -> RiccatiSolution:
    """Stabilizing solution of the continuous-time algebraic Riccati equation.

    `Aᵀ P E + Eᵀ P A − (Eᵀ P B + N) R⁻¹ (Bᵀ P E + Nᵀ) + Q = 0`, gain `K = R⁻¹ (Bᵀ P E + Nᵀ)`: with `E ẋ = A x + B u`,
    `u = −K x` minimizes `∫ xᵀQx + 2 xᵀNu + uᵀRu dt`.

    Guarantee: status `OK` is about the `P` and `K` that are returned, after rounding to their dtype. The estimated
    error of `P` is at most `1000 rtol` of its norm, its residual at most `rtol` of the sum of its terms (and what
    rounding to a dtype of less than float64 leaves), and a Lyapunov function proves that every eigenvalue of
    `E⁻¹ (A − B K)` has a negative real part. Derivatives of first and second order in all matrices, in every
    transform, and they change no value; those of a failed element are 0. Only the symmetric parts of `Q` and `R`
    count, and `P` is exactly symmetric. Computed in float64 whatever the dtype. Complex matrices are refused.

    Args:
        A: System matrix `(*batch, n, n)`.
        B: Input matrix `(*batch, n, m)`.
        Q: State weight `(*batch, n, n)`.
        R: Input weight `(*batch, m, m)`, positive definite.
        cross: Cross weight `N` `(*batch, n, m)`; default 0.
        descriptor: Matrix `E` `(*batch, n, n)` with an inverse; default the identity.
        guess: A nearby solution, such as that of the last step along a trajectory `(*batch, n, n)`. Elements that
            Newton's method does not bring from there to a stabilizing solution start afresh.
        rtol: Largest relative residual of an element that is called `OK`.

    Returns:
        A `RiccatiSolution`; no value raises.

    Raises:
        ShapeError: The matrices do not fit each other, are complex, or are not tensors.

    Example:
        >>> import torch
        >>> A, B = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0], [1.0]])
        >>> solve_care(A, B, torch.eye(2), torch.eye(1)).P
        tensor([[1.7321, 1.0000],
                [1.0000, 1.7321]])

    References:
        Chu, Fan, Lin, A structure-preserving doubling algorithm for continuous-time algebraic Riccati equations (2005).
        Kleinman, On an iterative technique for Riccati equation computations (1968).
        Van Dooren, A generalized eigenvalue approach for solving Riccati equations (1981).
        Kao, Hennequin, Automatic differentiation of Sylvester, Lyapunov, and algebraic Riccati equations (2020).
    """
    return _solve(ContinuousRiccati, "solve_care", (A, B, Q, R), cross, descriptor, guess, rtol)


def solve_dare(
    A: Float[Tensor, "*#batch n n"],
    B: Float[Tensor, "*#batch n m"],
    Q: Float[Tensor, "*#batch n n"],
    R: Float[Tensor, "*#batch m m"],
    *,
    cross: Float[Tensor, "*#batch n m"] | None = None,
    descriptor: Float[Tensor, "*#batch n n"] | None = None,
    guess: Float[Tensor, "*#batch n n"] | None = None,
    rtol: float = 1e-10,
) -> RiccatiSolution:
    """Stabilizing solution of the discrete-time algebraic Riccati equation.

    `Eᵀ P E = Aᵀ P A − (Aᵀ P B + N) (R + Bᵀ P B)⁻¹ (Bᵀ P A + Nᵀ) + Q`, gain `K = (R + Bᵀ P B)⁻¹ (Bᵀ P A + Nᵀ)`: with
    `E x⁺ = A x + B u`, `u = −K x` minimizes `Σ xᵀQx + 2 xᵀNu + uᵀRu`.

    Guarantee: as for `solve_care`, with every eigenvalue of `E⁻¹ (A − B K)` inside the unit circle.
    `A` may be singular, and so may `R` where `R + Bᵀ P B` is not.

    Args:
        A: System matrix `(*batch, n, n)`.
        B: Input matrix `(*batch, n, m)`.
        Q: State weight `(*batch, n, n)`.
        R: Input weight `(*batch, m, m)`, positive semidefinite.
        cross: Cross weight `N` `(*batch, n, m)`; default 0.
        descriptor: Matrix `E` `(*batch, n, n)` with an inverse; default the identity.
        guess: A nearby solution `(*batch, n, n)`, as for `solve_care`.
        rtol: Largest relative residual of an element that is called `OK`.

    Returns:
        A `RiccatiSolution`; no value raises.

    Raises:
        ShapeError: The matrices do not fit each other, are complex, or are not tensors.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1)
        >>> solve_dare(one, one, one, one).P
        tensor([[1.6180]])

    References:
        Chu, Fan, Lin, Wang, Structure-preserving algorithms for periodic discrete-time algebraic Riccati equations
        (2004).
        Hewer, An iterative technique for the computation of the steady state gains for the discrete optimal
        regulator (1971).
    """
    return _solve(DiscreteRiccati, "solve_dare", (A, B, Q, R), cross, descriptor, guess, rtol)


def _solve(
    kind: type[RiccatiEquation],
    where: str,
    matrices: tuple[Tensor, Tensor, Tensor, Tensor],
    cross: Tensor | None,
    descriptor: Tensor | None,
    guess: Tensor | None,
    rtol: float,
) -> RiccatiSolution:
    A, B, Q, R = matrices
    require_tensors(where, A=A, B=B, Q=Q, R=R, cross=cross, descriptor=descriptor, guess=guess)
    n, m = B.shape[-2:] if B.ndim >= 2 else (0, 0)
    given = {"A": (A, n, n), "B": (B, n, m), "Q": (Q, n, n), "R": (R, m, m)}
    optional = {"cross": (cross, n, m), "descriptor": (descriptor, n, n), "guess": (guess, n, n)}
    given |= {name: (M, r, c) for name, (M, r, c) in optional.items() if M is not None}
    dtype = A.dtype
    batch, converted = checked(where, given)
    of = dict(zip(given, converted, strict=True))
    plain = dtype == torch.float64 and of["A"].device.type == "cpu" and not branchless(of["A"])
    single = _find_single(kind, of, rtol) if plain and len(of["A"]) == 1 else None
    derived = tracked(*converted)
    if single is None or derived:
        equation = kind(
            of["A"], of["B"], symmetric(of["Q"]), symmetric(of["R"]), of.get("cross"), of.get("descriptor")
        )
    if single is None:
        verdict, steps, units = _without_derivatives(equation, of.get("guess"), dtype, rtol)
    else:
        verdict, steps = single
    P, gain = verdict.P, verdict.gain
    if derived:
        equation = _harmless(verdict.status == int(Status.OK), equation)
        if single is not None:
            _, units = equation.map(Tensor.detach).balanced()
        X = with_derivatives(units.equation(equation), verdict.exact * units.outer) / units.outer
        P, gain = follow(P, X), follow(gain, equation.gain(X))
    _, _, _, closed_loop, status, residual, error, margin = verdict
    P, gain, closed_loop = [M.to(dtype).reshape((*batch, *M.shape[1:])) for M in (P, gain, closed_loop)]
    residual, error, margin = [t.to(dtype).reshape(batch) for t in (residual, error, margin)]
    status, steps = status.to(torch.int8).reshape(batch), steps.reshape(batch)
    return RiccatiSolution(P, gain, closed_loop, status, steps, residual, error, margin)


def _find_single(
    kind: type[RiccatiEquation], of: dict[str, Tensor], rtol: float
) -> tuple[Verdict, Tensor] | None:
    """The verdict on a batch of one and its steps, where all is clear."""
    if "descriptor" in of or "guess" in of:
        return None
    A, B, Q, R, *rest = (M.detach().numpy()[0] for M in of.values())
    found = solve_at_once(kind(A, B, symmetric(Q), symmetric(R), *rest), rtol)
    if found is None:
        return None
    verdict, steps = found
    tensors = (torch.from_numpy(np.array(v)[None]) for v in verdict)
    return Verdict(*tensors), torch.from_numpy(np.array([steps], np.int32))


@torch.no_grad()
def _without_derivatives(
    equation: RiccatiEquation, guess: Tensor | None, dtype: torch.dtype, rtol: float
) -> tuple[Verdict, Tensor, Units]:
    """The solution with its verdict, its steps and its units; in NumPy where values may be looked at."""
    given = equation.map(Tensor.detach)
    guess = None if guess is None else guess.detach()
    if given.A.device.type != "cpu" or branchless(given.A):
        return _find(given, guess, dtype, rtol)
    with np.errstate(all="ignore"):
        arrays = given.map(Tensor.numpy)
        verdict, steps, units = _find(arrays, None if guess is None else guess.numpy(), dtype, rtol)
    units = Units(*(None if M is None else torch.from_numpy(M) for M in units))
    return Verdict(*map(torch.from_numpy, verdict)), torch.from_numpy(steps), units


def _find(
    given: RiccatiEquation, guess: Array | None, dtype: torch.dtype, rtol: float
) -> tuple[Verdict, Array, Units]:
    """The solution with its verdict, its steps and its units."""
    xp = namespace(given.A)
    finite = all_finite(*(M for M in vars(given).values() if M is not None))
    sane = finite & _is_posed(given.map(lambda M: xp.where(finite[..., None, None], M, 0.0)), finite)
    harmless = _harmless(sane, given)
    scaled, units = harmless.balanced()
    if guess is not None:
        guess = xp.where(all_finite(guess)[..., None, None], symmetric(guess), 0.0) * units.outer
    found = search(scaled, units.outer, guess)
    verdict = _judge(harmless, scaled, units, found, dtype, rtol)
    return _overrule(verdict, given.A, finite, sane), found.steps, units


def _is_posed(equation: RiccatiEquation, finite: Array) -> Array:
    """Whether `R` is positive definite (discrete: semidefinite) and `E` has an inverse."""
    xp, R = namespace(equation.R), equation.R
    one = identity(R.shape[-1], R)
    if equation.discrete:  # R + BᵀPB has the inverse
        size = largest(R)
        R = R + (64 * len(one) * 2.0**-52 * xp.where(size > 0, size, 1.0))[..., None, None] * one
    posed = is_positive_definite(R)
    if equation.E is not None:
        one = identity(equation.E.shape[-1], R)
        E = xp.where(finite[..., None, None], equation.E, one)
        inverse = solve(E, one + 0.0 * E)
        posed = posed & (largest(E) * largest(inverse) < 1e15)
    return posed


def _judge(
    given: RiccatiEquation,
    scaled: RiccatiEquation,
    units: Units,
    found: Found,
    dtype: torch.dtype,
    rtol: float,
) -> Verdict:
    """The verdict on the numbers that are returned: `P`, and its gain, rounded to `dtype`."""
    xp = namespace(found.P)
    exact = found.P / units.outer
    gain = given.gain(exact)
    P, K = (rounded(M, dtype) for M in (exact, gain))
    fits = all_finite(P, K)
    P, K = (xp.where(fits[..., None, None], M, 0.0) for M in (P, K))
    holds = found.stable & fits
    if dtype != torch.float64:  # rounding may have changed the loop: of the gain, and of P
        for loop in (given.closed_loop(K), given.closed_loop(given.gain(P))):
            holds = holds & keeps_stable(scaled, units.loop(loop))
    closed = xp.where(fits[..., None, None], given.closed_loop(K), 0.0)
    residual = relative_residual(*given.terms(P, given.gain(P)))
    size = largest(exact)
    unit_size = 1.0 / xp.where(size > 0, size, 1.0)[..., None, None]
    whole = norm(exact * unit_size)
    error = found.error + norm((P - exact) * unit_size) / xp.where(whole > 0, whole, 1.0)
    precise = (residual <= tolerance(rtol, dtype)) & (error <= tolerance(1e3 * rtol, dtype))
    status = xp.where(precise, int(Status.OK), int(Status.MAX_STEPS))
    status = xp.where(holds, status, int(Status.MISSED))
    status = xp.where(found.stable, status, int(Status.INFEASIBLE))
    return Verdict(exact, P, K, closed, status, residual, error, _margin(given, closed))


def _margin(equation: RiccatiEquation, closed: Array) -> Array:
    """Distance of the eigenvalues of `E⁻¹ (A − B K)` to the boundary of stability."""
    xp = namespace(closed)
    if equation.E is not None:
        closed = solve(equation.E, closed)
        closed = xp.where(all_finite(closed)[..., None, None], closed, 0.0)
    poles = eigenvalues(closed)
    return 1.0 - xp.amax(abs(poles), -1) if equation.discrete else -xp.amax(poles.real, -1)


def _overrule(verdict: Verdict, A: Array, finite: Array, sane: Array) -> Verdict:
    """The verdict where a matrix is not finite, the equation is not posed, or nothing was found."""
    xp = namespace(verdict.P)
    status = xp.where(sane, verdict.status, int(Status.SINGULAR))
    status = xp.where(finite, status, int(Status.NONFINITE_INPUT))
    kept = (status != int(Status.INFEASIBLE)) & sane & finite
    matrix = kept[..., None, None]
    return Verdict(
        xp.where(matrix, verdict.exact, 0.0),
        xp.where(matrix, verdict.P, 0.0),
        xp.where(matrix, verdict.gain, 0.0),
        xp.where(matrix, verdict.closed_loop, xp.where(finite[..., None, None], A, 0.0)),
        status,
        xp.where(kept, verdict.residual, np.inf),
        xp.where(kept, verdict.error, np.inf),
        xp.where(kept, verdict.margin, -np.inf),
    )


def _harmless(good: Array, equation: EquationT) -> EquationT:
    """The equation with one that is solvable in bad elements, in value and in derivative."""
    xp, good = namespace(equation.A), good[..., None, None]
    one = identity(equation.A.shape[-1], equation.A)
    return type(equation)(
        xp.where(good, equation.A, -0.5 * one),
        xp.where(good, equation.B, 0.0),
        xp.where(good, equation.Q, one),
        xp.where(good, equation.R, identity(equation.R.shape[-1], equation.R)),
        None if equation.N is None else xp.where(good, equation.N, 0.0),
        None if equation.E is None else xp.where(good, equation.E, one),
    )
