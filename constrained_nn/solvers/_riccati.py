"""Algebraic Riccati equations: batched, differentiable, with a status for each element."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.solvers._matrix_equations import (
    all_finite,
    checked,
    identity,
    relative_residual,
    require_tensors,
    symmetric,
)
from constrained_nn.solvers._matrix_solution import RiccatiSolution
from constrained_nn.solvers._riccati_equations import (
    ContinuousRiccati,
    DiscreteRiccati,
    RiccatiEquation,
    search,
    with_derivatives,
)
from constrained_nn.solvers._solution import Status


def solve_care(
    A: Float[Tensor, "*#batch n n"],
    B: Float[Tensor, "*#batch n m"],
    Q: Float[Tensor, "*#batch n n"],
    R: Float[Tensor, "*#batch m m"],
    *,
    cross: Float[Tensor, "*#batch n m"] | None = None,
    guess: Float[Tensor, "*#batch n n"] | None = None,
    rtol: float = 1e-10,
) -> RiccatiSolution:
    """Stabilizing solution of the continuous-time algebraic Riccati equation.

    `Aᵀ P + P A − (P B + N) R⁻¹ (Bᵀ P + Nᵀ) + Q = 0`, gain `K = R⁻¹ (Bᵀ P + Nᵀ)`: `u = −K x` minimizes
    `∫ xᵀQx + 2 xᵀNu + uᵀRu dt`.

    Guarantee: status `OK` means that the residual of the `P` that is returned is at most `rtol` of the sum of its
    terms, and that every eigenvalue of `A − B K` has a negative real part. Derivatives of first and second order in
    all matrices, in every transform; those of a failed element are 0. Only the symmetric parts of `Q` and `R` count,
    and `P` is exactly symmetric. Computed in float64 whatever the dtype.

    Args:
        A: System matrix `(*batch, n, n)`.
        B: Input matrix `(*batch, n, m)`.
        Q: State weight `(*batch, n, n)`.
        R: Input weight `(*batch, m, m)`, positive definite.
        cross: Cross weight `N` `(*batch, n, m)`; default 0.
        guess: A nearby solution, such as that of the last step along a trajectory `(*batch, n, n)`. Elements that
            Newton's method does not bring from there to a stabilizing solution start afresh.
        rtol: Largest relative residual of an element that is called `OK`.

    Returns:
        A `RiccatiSolution`; no value raises.

    Raises:
        ShapeError: The matrices do not fit each other, or are not tensors.

    Example:
        >>> import torch
        >>> A, B = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0], [1.0]])
        >>> solve_care(A, B, torch.eye(2), torch.eye(1)).P
        tensor([[1.7321, 1.0000],
                [1.0000, 1.7321]])

    References:
        Chu, Fan, Lin, A structure-preserving doubling algorithm for continuous-time algebraic Riccati equations (2005).
        Kleinman, On an iterative technique for Riccati equation computations (1968).
        Kao, Hennequin, Automatic differentiation of Sylvester, Lyapunov, and algebraic Riccati equations (2020).
    """
    return _solve(ContinuousRiccati, "solve_care", (A, B, Q, R), cross, guess, rtol)


def solve_dare(
    A: Float[Tensor, "*#batch n n"],
    B: Float[Tensor, "*#batch n m"],
    Q: Float[Tensor, "*#batch n n"],
    R: Float[Tensor, "*#batch m m"],
    *,
    cross: Float[Tensor, "*#batch n m"] | None = None,
    guess: Float[Tensor, "*#batch n n"] | None = None,
    rtol: float = 1e-10,
) -> RiccatiSolution:
    """Stabilizing solution of the discrete-time algebraic Riccati equation.

    `P = Aᵀ P A − (Aᵀ P B + N) (R + Bᵀ P B)⁻¹ (Bᵀ P A + Nᵀ) + Q`, gain `K = (R + Bᵀ P B)⁻¹ (Bᵀ P A + Nᵀ)`:
    `u = −K x` minimizes `Σ xᵀQx + 2 xᵀNu + uᵀRu`.

    Guarantee: as for `solve_care`, with every eigenvalue of `A − B K` inside the unit circle. `A` may be singular.

    Args:
        A: System matrix `(*batch, n, n)`.
        B: Input matrix `(*batch, n, m)`.
        Q: State weight `(*batch, n, n)`.
        R: Input weight `(*batch, m, m)`, positive definite.
        cross: Cross weight `N` `(*batch, n, m)`; default 0.
        guess: A nearby solution `(*batch, n, n)`, as for `solve_care`.
        rtol: Largest relative residual of an element that is called `OK`.

    Returns:
        A `RiccatiSolution`; no value raises.

    Raises:
        ShapeError: The matrices do not fit each other, or are not tensors.

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
    return _solve(DiscreteRiccati, "solve_dare", (A, B, Q, R), cross, guess, rtol)


def _solve(
    kind: type[RiccatiEquation],
    where: str,
    matrices: tuple[Tensor, Tensor, Tensor, Tensor],
    cross: Tensor | None,
    guess: Tensor | None,
    rtol: float,
) -> RiccatiSolution:
    A, B, Q, R = matrices
    require_tensors(where, A=A, B=B, Q=Q, R=R, cross=cross, guess=guess)
    n, m = B.shape[-2:] if B.ndim >= 2 else (0, 0)
    given = {"A": (A, n, n), "B": (B, n, m), "Q": (Q, n, n), "R": (R, m, m)}
    given |= {} if cross is None else {"cross": (cross, n, m)}
    given |= {} if guess is None else {"guess": (guess, n, n)}
    dtype = A.dtype
    batch, (A, B, Q, R, *more) = checked(where, given)
    N = more[0] if cross is not None else torch.zeros_like(B)
    start = more[-1].detach() if guess is not None else None
    finite = all_finite(A, B, Q, R, N)
    with torch.no_grad():
        R0 = torch.where(finite[..., None, None], symmetric(R.detach()), 0.0)
        definite = torch.linalg.cholesky_ex(R0)[1] == 0
    sane = finite & definite
    A, B, Q, R = _harmless(sane, A, B, symmetric(Q), symmetric(R))
    tilt = None
    if cross is not None:  # u = v − R⁻¹ Nᵀ x leaves an equation without cross weight
        N = torch.where(sane[..., None, None], N, 0.0)
        tilt = torch.linalg.solve_ex(R, N.mT)[0]
        A, Q = A - B @ tilt, symmetric(Q - N @ tilt)
    equation = kind(A, B, Q, R)
    scaled, d = equation.balanced()
    outer = d.unsqueeze(-1) * d.unsqueeze(-2)
    with torch.no_grad():
        if start is not None:
            start = torch.where(all_finite(start)[..., None, None], symmetric(start), 0.0) * outer
        found = search(scaled.map(Tensor.detach), start, rtol)
        residual = torch.maximum(found.residual, relative_residual(*equation.terms(found.P / outer)))
        # half of rtol: near its rounding error another order of operations sees another residual
        status = torch.where(residual <= 0.5 * rtol, int(Status.OK), int(Status.MAX_STEPS))
        status = torch.where(found.stable, status, int(Status.INFEASIBLE))
        status = torch.where(definite, status, int(Status.SINGULAR))
        status = torch.where(finite, status, int(Status.NONFINITE_INPUT)).to(torch.int8)
        solved = status == int(Status.OK)
        exists = found.stable & sane
    P = with_derivatives(kind(*_harmless(solved, scaled.A, scaled.B, scaled.Q, scaled.R)), found.P, solved)
    P = torch.where(exists[..., None, None], P / outer, 0.0)
    gain = torch.where(exists[..., None, None], equation.gain(P), 0.0)
    closed = torch.where(finite[..., None, None], (A - B @ gain).detach(), 0.0)
    if tilt is not None:
        gain = torch.where(exists[..., None, None], gain + tilt, 0.0)
    return RiccatiSolution(
        P.to(dtype).reshape(*batch, n, n),
        gain.to(dtype).reshape(*batch, m, n),
        closed.to(dtype).reshape(*batch, n, n),
        status.reshape(batch),
        found.steps.reshape(batch),
        torch.where(exists, residual, torch.inf).to(dtype).reshape(batch),
        torch.where(exists, found.margin, -torch.inf).to(dtype).reshape(batch),
    )


def _harmless(good: Tensor, A: Tensor, B: Tensor, Q: Tensor, R: Tensor) -> tuple[Tensor, ...]:
    """The matrices with those of a solvable equation in bad elements, in value and in derivative."""
    good = good[..., None, None]
    one = identity(A.shape[-1], A)
    return (
        torch.where(good, A, -0.5 * one),
        torch.where(good, B, 0.0),
        torch.where(good, Q, one),
        torch.where(good, R, identity(R.shape[-1], R)),
    )
