"""Projection onto linear matrix inequalities, written for the solvers: one flat batch, scaled blocks, no sets.

The problem of every element is

    min ½|y − ŷ|²   subject to   F(y) = C + L y ⪰ 0   (blocks side by side, each scaled by a congruence T F T).

Block matrices travel as flat vectors `(b, N)`, `N = Σ n²`; symmetric matrices in full storage have the Frobenius inner
product, so that nothing but symmetric matrices ever occurs and no skew directions are added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from constrained_nn.linalg import MatrixMap, adjoint_at, columns, linear_part

Eigen = Callable[[Tensor], tuple[Tensor, Tensor]]
# Above this many numbers the dense form of the map is not built, and its Gram matrices are made column by column.
_DENSE = 20_000
_CHUNK = 32


@dataclass
class Problem:
    """Data of one batch of projections, without derivatives.

    Args:
        target: `ŷ` `(b, m)`.
        constant: `C`, scaled and with the margin taken off `(b, N)`.
        dense: `L`, scaled `(b or 1, m, N)`, or None where it is not built.
        maps: The unscaled blocks, flat batch `(b or 1, ...)`.
        scales: Diagonals of the congruences `T` `(b, n)`, one for each block.
        eigen: Kernel `S -> (eigenvalues, eigenvectors)`.
        margin: What was taken off the diagonals, blocks side by side `(b, Σ n)`.
    """

    target: Tensor
    constant: Tensor
    dense: Tensor | None
    maps: tuple[MatrixMap, ...]
    scales: tuple[Tensor, ...]
    eigen: Eigen
    margin: Tensor

    @property
    def orders(self) -> list[int]:
        return [m.order for m in self.maps]

    def take(self, index: Tensor) -> Problem:
        """Some of the elements."""
        return replace(
            self,
            target=self.target[index],
            constant=self.constant[index],
            dense=None if self.dense is None else _taken(self.dense, index),
            maps=tuple(MatrixMap(*(_taken(t, index) for t in m)) for m in self.maps),
            scales=tuple(s[index] for s in self.scales),
            margin=self.margin[index],
        )

    def split(self, flat: Tensor) -> list[Tensor]:
        """Block matrices `(b, n, n)` of a flat vector."""
        parts = flat.split([n * n for n in self.orders], -1)
        return [part.unflatten(-1, (n, n)) for part, n in zip(parts, self.orders, strict=True)]

    def unscaled(self, flat: Tensor, power: float = 1.0) -> list[Tensor]:
        """Blocks `T S T` of a flat vector: a multiplier of the scaled blocks as one of the blocks themselves."""
        return [_congruence(x, t**power) for x, t in zip(self.split(flat), self.scales, strict=True)]

    def linear(self, y: Tensor) -> Tensor:
        """`L y`."""
        if self.dense is not None:
            return (y.unsqueeze(-2) @ self.dense).squeeze(-2)
        blocks = [_congruence(linear_part(m, y), s) for m, s in zip(self.maps, self.scales, strict=True)]
        return torch.cat([b.flatten(-2) for b in blocks], -1)

    def value(self, y: Tensor) -> Tensor:
        """`C + L y`."""
        return self.constant + self.linear(y)

    def adjoint(self, X: Tensor) -> Tensor:
        """`Lᵀ X`."""
        if self.dense is not None:
            return (self.dense @ X.unsqueeze(-1)).squeeze(-1)
        pieces = zip(self.maps, self.scales, self.split(X), strict=True)
        return sum((adjoint_at(m, _congruence(x, s)) for m, s, x in pieces), torch.zeros_like(self.target))

    def eigh(self, flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Eigenvalues and eigenvectors of every block."""
        found = [self.eigen(x) for x in self.split(flat)]
        return [values for values, _ in found], [vectors for _, vectors in found]

    def gram(
        self, vectors: Sequence[Tensor] | None = None, weights: Sequence[Tensor] | None = None
    ) -> Tensor:
        """`Lᵀ W L` `(b, m, m)` with `W X = U (w ∘ Uᵀ X U) Uᵀ` in every block; `Lᵀ L` without arguments."""
        if self.dense is not None:
            return self._dense_gram(vectors, weights)
        m = self.target.shape[-1]
        parts = []
        for first in range(0, m, _CHUNK):
            total = torch.zeros((), dtype=self.target.dtype, device=self.target.device)
            for i, (map, scale) in enumerate(zip(self.maps, self.scales, strict=True)):
                image = _congruence(columns(map, first, first + _CHUNK), scale.unsqueeze(-2))
                if vectors is not None and weights is not None:
                    image = _weighted(image, vectors[i].unsqueeze(-3), weights[i].unsqueeze(-3))
                lifted = MatrixMap(*(t.unsqueeze(-c - 1) for t, c in zip(map, (2, 2, 2, 3), strict=True)))
                total = total + adjoint_at(lifted, _congruence(image, scale.unsqueeze(-2)))
            parts.append(total)
        G = torch.cat(parts, -2).expand(len(self.target), m, m)
        return 0.5 * (G + G.mT)

    def _dense_gram(self, vectors: Sequence[Tensor] | None, weights: Sequence[Tensor] | None) -> Tensor:
        assert self.dense is not None
        if vectors is None or weights is None:
            return (self.dense @ self.dense.mT).expand(len(self.target), -1, -1)
        G = None
        for L, U, w in zip(self.split(self.dense), vectors, weights, strict=True):
            U = U.unsqueeze(-3)
            H = (U.mT @ L @ U).flatten(-2)
            part = (H * w.flatten(-2).unsqueeze(-2)) @ H.mT
            G = part if G is None else G + part
        assert G is not None
        return G


def build(
    target: Tensor, maps: Sequence[MatrixMap], margin: Tensor, eigen: Eigen, *, scale: bool = True
) -> Problem:
    """The problem `T F(y) T ⪰ diag(margin)`, blocks scaled to diagonals of size one, margin `(b, Σ n)`.

    The blocks carry one batch dimension, of `b` elements or of one that all share.
    """
    maps = tuple(MatrixMap(_symmetric(m.constant), m.left, m.right, _symmetric(m.slopes)) for m in maps)
    b, m = target.shape
    sizes = sum(map.order**2 for map in maps)
    dense_form = m * sizes <= _DENSE
    scales, constants, slopes = [], [], []
    for map, shift in zip(maps, by_block(margin, maps), strict=True):
        L = columns(map) if dense_form else None
        T = _scaling(map, L) if scale else torch.ones_like(map.constant[..., 0])
        constants.append((_congruence(map.constant, T) - torch.diag_embed(shift)).flatten(-2))
        scales.append(T.expand(b, map.order))
        if L is not None:
            slopes.append(_congruence(L, T.unsqueeze(-2)).flatten(-2))
    dense = None
    if dense_form:
        own = any(L.shape[0] > 1 for L in slopes)  # else one map for all elements
        dense = torch.cat([L.expand(b if own else 1, *L.shape[1:]) for L in slopes], -1)
    return Problem(target, torch.cat(constants, -1), dense, maps, tuple(scales), eigen, margin)


def by_block(rows: Tensor, maps: Sequence[MatrixMap]) -> Sequence[Tensor]:
    """Numbers of all rows `(b, Σ n)`, block by block."""
    return rows.split([map.order for map in maps], -1)


def _scaling(map: MatrixMap, L: Tensor | None) -> Tensor:
    """`T` `(b or 1, n)` that makes `C_ii² + Σⱼ (Lⱼ)_ii²` one; a row without diagonal takes its largest entry."""
    if L is not None:
        diagonal = L.diagonal(dim1=-2, dim2=-1).square().sum(-2)
        largest = L.abs().amax(-1).amax(-2)
    else:
        left, right = map.left.square().sum(-1), map.right.square().sum(-2)
        diagonal = 4.0 * left * right + map.slopes.diagonal(dim1=-2, dim2=-1).square().sum(-2)
        largest = 2.0 * (left * right.amax(-1, keepdim=True)).sqrt()
    own = (map.constant.diagonal(dim1=-2, dim2=-1).square() + diagonal).sqrt()
    least = 1e-3 * torch.maximum(largest, map.constant.abs().amax(-1))
    size = torch.maximum(own, least)
    return torch.where(size > 0, size, 1.0).rsqrt()


def _symmetric(S: Tensor) -> Tensor:
    return 0.5 * (S + S.mT)


def _congruence(S: Tensor, T: Tensor) -> Tensor:
    return S * T.unsqueeze(-1) * T.unsqueeze(-2)


def _weighted(X: Tensor, U: Tensor, w: Tensor) -> Tensor:
    return U @ (w * (U.mT @ X @ U)) @ U.mT


def _taken(t: Tensor, index: Tensor) -> Tensor:
    return t if t.shape[0] == 1 else t[index]
