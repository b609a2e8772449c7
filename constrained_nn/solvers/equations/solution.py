"""What the solvers of matrix equations return."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from constrained_nn.solvers.solution import PerElement, Status

_LINEAR = {
    Status.OK: "The equation holds, and its solution is known, to the stated tolerance.",
    Status.MAX_STEPS: (
        "The solution is not known to rtol: the equation is too ill-conditioned for float64, or for its dtype. Raise "
        "rtol, or rescale the unknowns."
    ),
    Status.MISSED: "The solution does not fit into this dtype. Pass float64, or rescale the unknowns.",
    Status.SINGULAR: (
        "The equation has no unique solution: two eigenvalues add up to 0 (continuous) or multiply to 1 (discrete)."
    ),
    Status.NONFINITE_INPUT: "A matrix holds NaN or infinity. Check the network that makes it.",
}
_RICCATI = {
    **_LINEAR,
    Status.MAX_STEPS: (
        "A stabilizing solution was found, but not to rtol. Rescale the states, or raise rtol."
    ),
    Status.INFEASIBLE: (
        "No stabilizing solution was found: (A, B) is not stabilizable, or a mode on the boundary of stability "
        "does not enter the cost. Add inputs, or weight all states (Q positive definite)."
    ),
    Status.SINGULAR: (
        "R is not positive definite (discrete: semidefinite), or E has no inverse. Weight every input."
    ),
    Status.MISSED: (
        "A stabilizing solution was found, but rounded to this dtype it does not stabilize, or does not fit. Pass "
        "float64, or rescale the states."
    ),
}


@dataclass(frozen=True, eq=False)
class MatrixSolution(PerElement):
    """Solution of a linear matrix equation with a per-element account.

    Args:
        X: The solution `(*batch, n, m)`; 0 where the status says that there is none.
        status: `Status` codes `(*batch)`, int8.
        residual: Frobenius norm of the residual over the sum of the norms of its terms `(*batch)`, of the `X` that
            is returned.
        error: Estimate of the distance to the exact solution over the norm of `X` `(*batch)`, both Frobenius.
    """

    X: Float[Tensor, "*batch n m"]
    status: Int[Tensor, "*batch"]
    residual: Float[Tensor, "*batch"]
    error: Float[Tensor, "*batch"]

    advice = _LINEAR
    measure = "error"


@dataclass(frozen=True, eq=False)
class RiccatiSolution(PerElement):
    """Stabilizing solution of a Riccati equation with a per-element account.

    Args:
        P: The solution `(*batch, n, n)`, symmetric; 0 where the status says that there is none.
        gain: `K` of the feedback `u = −K x` `(*batch, m, n)`.
        closed_loop: `A − B K` `(*batch, n, n)`, without derivative.
        status: `Status` codes `(*batch)`, int8.
        steps: Doubling and Newton steps `(*batch)`, int32.
        residual: Frobenius norm of the residual over the sum of the norms of its terms `(*batch)`, of the `P` that
            is returned.
        error: Estimate of the distance to the exact solution over the norm of `P` `(*batch)`, both Frobenius.
        margin: Distance of the closed loop's eigenvalues to the boundary of stability `(*batch)`: the negative of
            the largest real part [1/s], or 1 less the largest modulus; positive is stable.
    """

    P: Float[Tensor, "*batch n n"]
    gain: Float[Tensor, "*batch m n"]
    closed_loop: Float[Tensor, "*batch n n"]
    status: Int[Tensor, "*batch"]
    steps: Int[Tensor, "*batch"]
    residual: Float[Tensor, "*batch"]
    error: Float[Tensor, "*batch"]
    margin: Float[Tensor, "*batch"]

    advice = _RICCATI
    measure = "error"


for _kind in (MatrixSolution, RiccatiSolution):
    torch.export.register_dataclass(_kind, serialized_type_name=f"constrained_nn.{_kind.__name__}")
