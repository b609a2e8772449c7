"""Equality constraints by completion: the network outputs the free variables only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import ShapeError
from constrained_nn.linalg import matvec
from constrained_nn.plain_state import PlainState
from constrained_nn.sets import Polyhedron


class Completion(PlainState):
    """Equality constraints solved for some of the variables.

    `C y = d` with `y = (free, dependent)`: `dependent = C_o⁻¹ (d − C_p free)`.

    The dependent variables are chosen once: those that are not in `free`, or else by QR with column pivoting, so that
    `C_o` is as well conditioned as the pivoting finds it.

    Guarantee: the equalities hold to a few rounding errors of `cond(C_o)`, for every `free` and `d`.

    Args:
        C: Constant equality rows `(k, n)` of full rank.
        free: Indices of the `n − k` free variables; chosen by pivoting if `None`.

    Returns:
        `forward(free, d)`: the whole decision `(*batch, n)`.

    Raises:
        ShapeError: `C` is not a matrix with at most as many rows as columns.
        ValueError: The rows of `C` are dependent, `free` is no choice that leaves `C_o` invertible, or `C` has a
            gradient.

    Example:
        >>> import torch
        >>> complete = Completion(torch.tensor([[1.0, 2.0]]))
        >>> complete(torch.tensor([4.0]), torch.tensor([10.0]))
        tensor([4., 3.])

    References:
        DC3 (ICLR 2021), section 3.2; HardNet (arXiv 2410.10807), versions 1 and 2.
    """

    dependent: Tensor
    free: Tensor
    inverse: Tensor
    slope: Tensor
    _place: Tensor

    def __init__(self, C: Float[Tensor, "k n"], free: Sequence[int] | None = None) -> None:
        super().__init__()

        if C.ndim != 2 or C.shape[0] > C.shape[1]:
            raise ShapeError(
                f"Completion: expected C of shape (k, n) with k <= n, got {tuple(C.shape)}. Rows that differ between "
                f"elements are enforced as equalities of a Polyhedron instead."
            )
        if C.requires_grad:
            raise ValueError(
                "Completion: expected constant rows C, got a tensor with a gradient, which the factor of C would cut. "
                "Pass C.detach(), or enforce the equalities as an AffineSubspace."
            )
        chosen = _pivoted(C) if free is None else _complement(C, free)
        dependent, rest = (torch.as_tensor(one, dtype=torch.long, device=C.device) for one in chosen)
        inverse = torch.linalg.inv(C[:, dependent].double())
        self.keep("dependent", dependent, saved=True)
        self.keep("free", rest, saved=True)
        self.keep("inverse", inverse.to(C.dtype), saved=True)  # C_o⁻¹
        self.keep("slope", (-inverse @ C[:, rest].double()).to(C.dtype), saved=True)  # of dependent in free
        self.keep("_place", torch.argsort(torch.cat([rest, dependent])), saved=True)

    def forward(
        self, free: Float[Tensor, "*#batch p"], d: Float[Tensor, "*#batch k"]
    ) -> Float[Tensor, "*batch n"]:
        dependent = matvec(self.slope, free) + matvec(self.inverse, d)
        free = free.expand(*dependent.shape[:-1], free.shape[-1])
        return torch.cat([free, dependent], -1).index_select(-1, self._place)

    def reduce(self, rows: Polyhedron, d: Float[Tensor, "*#batch k"]) -> Polyhedron:
        """Further rows on `y`, written as rows on the free variables; what a layer enforces before completion."""
        A = rows.A.index_select(-1, self.free) + rows.A.index_select(-1, self.dependent) @ self.slope
        shift = matvec(rows.A.index_select(-1, self.dependent), matvec(self.inverse, d))
        return Polyhedron(A, rows.lower - shift, rows.upper - shift)


def _pivoted(C: Tensor) -> tuple[list[int], list[int]]:
    """Dependent and free variables, by QR with column pivoting."""
    from scipy.linalg import qr

    k = C.shape[0]
    found: Any = qr(C.detach().cpu().double().numpy(), mode="r", pivoting=True)
    R, order = found
    diagonal = abs(R.diagonal())
    if k and diagonal[k - 1] <= 1e-12 * diagonal[0]:
        raise ValueError(
            f"Completion: expected C of full rank, got dependent rows (pivots from {diagonal[0]:.2g} to "
            f"{diagonal[k - 1]:.2g}). Leave out the rows that follow from others."
        )
    return sorted(order[:k].tolist()), sorted(order[k:].tolist())


def _complement(C: Tensor, free: Sequence[int]) -> tuple[list[int], list[int]]:
    """Dependent and free variables, where the free ones are given."""
    k, n = C.shape
    rest = sorted(set(free))
    dependent = sorted(set(range(n)) - set(rest))
    if len(rest) != len(free) or len(dependent) != k:
        raise ValueError(
            f"Completion: expected free to be {n - k} different indices below {n}, got {list(free)}. Every equality "
            f"needs one variable that is solved for."
        )
    condition = float(torch.linalg.cond(C[:, dependent].detach().double())) if k else 1.0
    if not condition < 1e12:
        raise ValueError(
            f"Completion: expected free variables that leave the others determined, got cond(C_o) = {condition:.2g}. "
            f"Leave `free` out to have them chosen."
        )
    return dependent, rest
