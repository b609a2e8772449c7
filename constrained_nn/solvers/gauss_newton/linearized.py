"""Rows at one point of each element: products with their Jacobian, and damped normal equations of the active ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn.linalg import matvec, rmatvec
from constrained_nn.solvers.gauss_newton.banded import BandedLDL

# Added to the normal matrix in units of rounding of its largest entry: dependent rows leave it singular.
_FLOOR = 16.0


class Factor(NamedTuple):
    """`W M⁻¹ W r`, zero in rows without weight, and the elements for which `M` is positive definite."""

    solve: Callable[[Tensor], Tensor]
    sound: Bool[Tensor, " batch"]


class Linearized(ABC):
    """The Jacobian `J` of a flat batch."""

    @abstractmethod
    def times(self, v: Float[Tensor, "batch n"]) -> Float[Tensor, "batch m"]:
        """`J v`."""

    @abstractmethod
    def transposed(self, w: Float[Tensor, "batch m"]) -> Float[Tensor, "batch n"]:
        """`Jᵀ w`."""

    @abstractmethod
    def factor(self, weight: Float[Tensor, "batch m"], damping: Float[Tensor, " batch"]) -> Factor:
        """Of `W J Jᵀ W + damping I` on the rows with a weight, `W = diag(weight)`."""

    @abstractmethod
    def squares(self) -> Float[Tensor, "batch m"]:
        """`|J_i|²` of each row."""


class DenseRows(Linearized):
    """A Jacobian as a matrix `(batch, m, n)`."""

    def __init__(self, J: Float[Tensor, "batch m n"]) -> None:
        self.J = J

    def times(self, v: Tensor) -> Tensor:
        return matvec(self.J, v)

    def transposed(self, w: Tensor) -> Tensor:
        return rmatvec(self.J, w)

    def squares(self) -> Tensor:
        return self.J.square().sum(-1)

    def factor(self, weight: Tensor, damping: Tensor) -> Factor:
        L, info = torch.linalg.cholesky_ex(normal_matrix(self.J, weight, damping))

        def solve(r: Tensor) -> Tensor:
            return weight * torch.cholesky_solve((r * weight).unsqueeze(-1), L).squeeze(-1)

        return Factor(solve, info == 0)


def restricted(J: Tensor, free: Bool[Tensor, "batch n"]) -> DenseRows:
    """The rows without the columns of variables that are not free."""
    return DenseRows(J * free.unsqueeze(-2))


def normal_matrix(J: Tensor, weight: Tensor, damping: Tensor) -> Tensor:
    """`W J Jᵀ W + damping I`, with ones on the diagonal for rows without weight."""
    J_a = J * weight.unsqueeze(-1)
    M = J_a @ J_a.transpose(-2, -1)
    diagonal = M.diagonal(dim1=-2, dim2=-1)
    shift = damping.unsqueeze(-1) + floor(diagonal.detach()).unsqueeze(-1) + (weight == 0).to(J.dtype)
    return M + torch.diag_embed(shift)


def floor(diagonal: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch"]:
    """Least damping that rounding of the normal matrix asks for."""
    return _FLOOR * torch.finfo(diagonal.dtype).eps * diagonal.amax(-1)


class StageRows(Linearized):
    """The Jacobian of a trajectory in blocks: row block `k` touches stages `k` and `k − 1` only.

    Rows of stage `k`, in this order: `z_k − A_k z_{k−1} − B_k u_k` and `C_k z_k + D_k u_k`; the unknowns are all
    `z_k`, then all `u_k`. The normal matrix is banded, with half-width (rows of a stage) + (states) − 1. Blocks
    are kept as `(T, rows, columns, batch)`, so that every operation runs along the batch.

    Args:
        A: `(batch, T, nx, nx)`; that of stage 0 is ignored.
        B: `(batch, T, nx, nu)`.
        C: `(batch, T, p, nx)`.
        D: `(batch, T, p, nu)`.
    """

    def __init__(self, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> None:
        A, self.B, self.C, self.D = (t.permute(1, 2, 3, 0).contiguous() for t in (A, B, C, D))
        self.A = A[1:]
        self.horizon, self.states, self.inputs, self.batch = self.B.shape
        self.stage = self.states + self.C.shape[1]

    def times(self, v: Tensor) -> Tensor:
        z, u = v.T.contiguous().split([self.horizon * self.states, self.horizon * self.inputs])
        z, u = z.view(self.horizon, -1, self.batch), u.view(self.horizon, -1, self.batch)
        dynamics = z - _apply(self.B, u)
        dynamics[1:] -= _apply(self.A, z[:-1])
        rows = torch.cat([dynamics, _apply(self.C, z) + _apply(self.D, u)], 1)
        return rows.view(-1, self.batch).T

    def transposed(self, w: Tensor) -> Tensor:
        w = w.T.contiguous().view(self.horizon, self.stage, self.batch)
        dynamics, path = w[:, : self.states], w[:, self.states :]
        z = dynamics + _apply(self.C.transpose(1, 2), path)
        z[:-1] -= _apply(self.A.transpose(1, 2), dynamics[1:])
        u = _apply(self.D.transpose(1, 2), path) - _apply(self.B.transpose(1, 2), dynamics)
        return torch.cat([z.flatten(0, 1), u.flatten(0, 1)]).T

    def squares(self) -> Tensor:
        rows = torch.cat([1.0 + self.B.square().sum(2), self.C.square().sum(2) + self.D.square().sum(2)], 1)
        rows[1:, : self.states] += self.A.square().sum(2)
        return rows.view(-1, self.batch).T

    def factor(self, weight: Tensor, damping: Tensor) -> Factor:
        T, nx, s, batch = self.horizon, self.states, self.stage, self.batch
        on = weight.T.contiguous().view(T, s, batch)
        width = s + nx - 1
        band = self.B.new_zeros(T * s + width, 2 * width, batch)
        stages = band[: T * s].view(T, s, 2 * width, batch)  # [k, b, d]: row b + d of the stage, column b
        one = torch.eye(nx, dtype=on.dtype, device=on.device).unsqueeze(-1)
        dynamics = one + _gram(self.B, self.B)
        dynamics[1:] += _gram(self.A, self.A)
        cross = self.C - _gram(self.D, self.B)
        own = torch.cat(
            [torch.cat([dynamics, cross], 1), torch.cat([cross.transpose(1, 2), _paths(self)], 1)], 2
        )
        below = -torch.cat([self.A, _gram(self.A, self.C[:-1])], 2)
        own *= on.unsqueeze(2)
        own *= on.unsqueeze(1)
        below *= on[1:, :nx].unsqueeze(2)
        below *= on[:-1].unsqueeze(1)
        diagonal = own.diagonal(dim1=1, dim2=2)  # (T, batch, s)
        shift = damping + floor(diagonal.amax(0))
        diagonal += shift.unsqueeze(-1) + (on == 0).transpose(1, 2)
        for b in range(s):
            stages[:, b, : s - b] = own[:, b:, b]
            stages[:-1, b, s - b : s - b + nx] = below[:, :, b]
        ldl = BandedLDL(band, T * s)

        def solve(r: Tensor) -> Tensor:
            return weight * ldl.solve((r * weight).T.unsqueeze(1)).squeeze(1).T

        return Factor(solve, ldl.sound)


def _paths(rows: StageRows) -> Tensor:
    return _gram(rows.C, rows.C) + _gram(rows.D, rows.D)


def _apply(blocks: Tensor, x: Tensor) -> Tensor:
    """`blocks x` for `(T, r, c, batch)` and `(T, c, batch)`."""
    return (blocks * x.unsqueeze(1)).sum(2)


def _gram(a: Tensor, b: Tensor) -> Tensor:
    """`a bᵀ` for `(T, r, c, batch)` and `(T, q, c, batch)`, one column at a time."""
    total = a[:, :, None, 0] * b[:, None, :, 0]
    for c in range(1, a.shape[2]):
        total.addcmul_(a[:, :, None, c], b[:, None, :, c])
    return total
