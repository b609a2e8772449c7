"""Affine maps from a vector to symmetric matrices, in the factored form that control engineers write.

With `y = (svec S, vec Y, z)`, `S` symmetric `p × p`, `Y` `k × p` by rows, `z` scalars, and `V = [S; Y]`,

    F(y) = constant + left V right + (left V right)ᵀ + Σⱼ zⱼ slopesⱼ.

The sizes follow from the shapes: `right` is `p × n`, `left` `n × (p + k)`, `slopes` `s × n × n`. Nothing here builds
the `n² × m` matrix of the map unless `columns` is asked for it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn.linalg.symmetric import smat, svec


class MatrixMap(NamedTuple):
    """The tensors of one map; see the head of this file."""

    constant: Float[Tensor, "*#batch n n"]
    left: Float[Tensor, "*#batch n q"]
    right: Float[Tensor, "*#batch p n"]
    slopes: Float[Tensor, "*#batch s n n"]

    @property
    def order(self) -> int:
        """Number of rows of the matrix."""
        return self.constant.shape[-1]

    @property
    def symmetric(self) -> int:
        """Order `p` of the symmetric variable."""
        return self.right.shape[-2]

    @property
    def rows(self) -> int:
        """Number of rows `k` of the rectangular variable."""
        return self.left.shape[-1] - self.symmetric

    @property
    def dim(self) -> int:
        """Length `m` of `y`."""
        p = self.symmetric
        return p * (p + 1) // 2 + self.rows * p + self.slopes.shape[-3]


def split(map: MatrixMap, y: Float[Tensor, "*batch m"]) -> tuple[Tensor, Tensor, Tensor]:
    """`S` `(*batch, p, p)`, `Y` `(*batch, k, p)` and `z` `(*batch, s)`."""
    p, k = map.symmetric, map.rows
    first, second, z = y.split([p * (p + 1) // 2, k * p, map.slopes.shape[-3]], -1)
    S = smat(first) if p else first.new_zeros(*first.shape[:-1], 0, 0)
    return S, second.unflatten(-1, (k, p)), z


def _factored(map: MatrixMap) -> bool:
    """Whether the factored term is there (a map without it is kept in the graph of its empty tensors)."""
    return bool(map.symmetric) or map.left.requires_grad or map.right.requires_grad


def _scalars(map: MatrixMap) -> bool:
    """Whether there are scalars, in the same sense."""
    return bool(map.slopes.shape[-3]) or map.slopes.requires_grad


def linear_part(map: MatrixMap, y: Float[Tensor, "*#batch m"]) -> Float[Tensor, "*batch n n"]:
    """`F(y) − constant`."""
    S, Y, z = split(map, y)
    value = torch.zeros_like(map.constant)
    if _factored(map):
        half = map.left @ (torch.cat([S, Y], -2) if map.rows else S) @ map.right
        value = half + half.transpose(-2, -1)
    if _scalars(map):
        value = value + (z[..., None, None] * map.slopes).sum(-3)
    return value


def matrix_at(map: MatrixMap, y: Float[Tensor, "*#batch m"]) -> Float[Tensor, "*batch n n"]:
    """`F(y)`."""
    return map.constant + linear_part(map, y)


def adjoint_at(map: MatrixMap, X: Float[Tensor, "*#batch n n"]) -> Float[Tensor, "*batch m"]:
    """`v` with `⟨v, y⟩ = tr(X (F(y) − constant))` for every `y`, for symmetric `X`."""
    p = map.symmetric
    parts = []
    if _factored(map):
        G = 2.0 * map.left.transpose(-2, -1) @ X @ map.right.transpose(-2, -1)
        head = G[..., :p, :]
        parts = [svec(0.5 * (head + head.transpose(-2, -1))), G[..., p:, :].flatten(-2)]
    if _scalars(map):
        parts.append((map.slopes * X.unsqueeze(-3)).sum((-2, -1)))
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*batch, part.shape[-1]) for part in parts], -1)


def columns(map: MatrixMap, first: int = 0, last: int | None = None) -> Float[Tensor, "*batch c n n"]:
    """Images of the unit vectors `first` to `last`: the dense form of the map."""
    eye = torch.eye(map.dim, dtype=map.constant.dtype, device=map.constant.device)[first:last]
    lifted = MatrixMap(*(t.unsqueeze(-t_core - 1) for t, t_core in zip(map, (2, 2, 2, 3), strict=True)))
    return linear_part(lifted, eye)


def magnitude(map: MatrixMap, y: Float[Tensor, "*#batch m"]) -> Float[Tensor, "*batch n n"]:
    """Size of the terms in each entry of `F(y)`; rounding is a small multiple of `eps` times it."""
    S, Y, z = split(map, y)
    value = map.constant.abs()
    if map.symmetric:
        V = torch.cat([S, Y], -2) if map.rows else S
        half = map.left.abs() @ V.abs() @ map.right.abs()
        value = value + half + half.transpose(-2, -1)
    if z.shape[-1]:
        value = value + (z.abs()[..., None, None] * map.slopes.abs()).sum(-3)
    return value


class Rounding(NamedTuple):
    """`D F D` with diagonal one, in floating point, and what that may be off by.

    Args:
        matrix: `D F(y) D` `(*batch, n, n)`; the identity where it is not finite.
        bound: `ε` `(*batch)`: `D F D − ε I` has a Cholesky factor in floating point only if `F ⪰ 0`.
        scale: Diagonal of `D` `(*batch, n)`.
        size: What the entries of `D F D` sum up, terms without signs `(*batch)`; `ε` is `size` roundings.
    """

    matrix: Float[Tensor, "*batch n n"]
    bound: Float[Tensor, "*batch"]
    scale: Float[Tensor, "*batch n"]
    size: Float[Tensor, "*batch"]


def rounding_of(
    map: MatrixMap, y: Float[Tensor, "*#batch m"], floor: Float[Tensor, "*#batch"] | float = 0.0
) -> Rounding:
    """`F(y) − floor I`, scaled to a diagonal of ones, with a bound on all rounding.

    `ε` covers the evaluation (at most `p + q + s + 8` operations in each term), the scaling (4) and the
    factorization itself (`(n + 1) u` times the trace; Higham, Accuracy and Stability, theorem 10.3). With a
    diagonal of ones it is relative to each row (van der Sluis): a block with rows of many sizes loses nothing.
    """
    F, size = matrix_at(map, y), magnitude(map, y)
    eye = torch.eye(map.order, dtype=F.dtype, device=F.device)
    shift = torch.as_tensor(floor, dtype=F.dtype, device=F.device)[..., None, None] * eye
    F = 0.5 * (F + F.transpose(-2, -1)) - shift
    # underflow: at most `tiny · eps` in each product, multiplied by what follows it
    tiny = torch.finfo(F.dtype).tiny
    size = size + tiny * (1.0 + map.right.abs().sum((-2, -1)) + map.left.abs().sum((-2, -1)))[..., None, None]
    diagonal = F.diagonal(dim1=-2, dim2=-1)
    normal = diagonal > tiny / torch.finfo(F.dtype).eps  # below, nothing is proved
    scale = torch.where(normal, diagonal, 1.0).rsqrt()
    F, size = (t * scale.unsqueeze(-1) * scale.unsqueeze(-2) for t in (F, size + shift.abs()))
    operations = map.symmetric + map.left.shape[-1] + map.slopes.shape[-3] + map.order + 12
    unit = 0.5 * torch.finfo(F.dtype).eps
    size = size.sum(-1).amax(-1) + size.diagonal(dim1=-2, dim2=-1).sum(-1)
    bound = 2.0 * operations * unit * size
    finite = F.isfinite().all(-1).all(-1) & bound.isfinite()
    bound = torch.where(finite & normal.all(-1), bound, torch.inf)
    return Rounding(torch.where(finite[..., None, None], F, eye), bound, scale, size)


def certified_above(
    map: MatrixMap, y: Float[Tensor, "*#batch m"], floor: Float[Tensor, "*#batch"] | float = 0.0
) -> Bool[Tensor, "*#batch"]:
    """Whether `F(y) ⪰ floor I` is proved in exact arithmetic, by one Cholesky factorization in floating point."""
    F, bound, *_ = rounding_of(map, y, floor)
    finite = bound.isfinite()
    shift = torch.where(finite, bound, 0.0)[..., None, None]
    eye = torch.eye(map.order, dtype=F.dtype, device=F.device)
    return finite & (torch.linalg.cholesky_ex(F - shift * eye)[1] == 0)
