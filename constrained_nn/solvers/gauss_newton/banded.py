"""Batched banded factorization for the rows of trajectories; the batch is the last dimension, hence contiguous."""

from __future__ import annotations

import torch
from torch import Tensor


class BandedLDL:
    """`M = L D Lᵀ` of symmetric positive definite banded matrices, without pivoting.

    Args:
        band: Lower bands `(m + w, 2 w, B)`, `band[j, d] = M[j + d, j]` for `d <= w`, zero elsewhere; overwritten.
        rows: `m`; the rest of `band` is room for the last windows.
    """

    def __init__(self, band: Tensor, rows: int) -> None:
        self.rows, self.width = rows, band.shape[1] // 2
        w, batch = self.width, band.shape[2]
        self.columns = band
        self.sound = torch.ones(batch, dtype=torch.bool, device=band.device)
        for j in range(rows):
            pivot = band[j, 0]
            self.sound &= pivot > 0
            column = band[j, 1 : w + 1]
            scaled = column / pivot
            # window[a, d] −= l_{a} c_{a+d}: the second factor is a Hankel view of the zero-padded column
            hankel = band[j].as_strided((w, w, batch), (batch, batch, 1), band[j].storage_offset() + batch)
            band[j + 1 : j + 1 + w, :w].addcmul_(scaled.unsqueeze(1), hankel, value=-1.0)
            column.copy_(scaled)

    def solve(self, r: Tensor) -> Tensor:
        """`M⁻¹ r` for right-hand sides `(m, c, B)`."""
        m, w = self.rows, self.width
        x = torch.cat([r, r.new_zeros(w, *r.shape[1:])])
        for j in range(m):
            x[j + 1 : j + 1 + w].addcmul_(self.columns[j, 1 : w + 1].unsqueeze(1), x[j], value=-1.0)
        x[:m] /= self.columns[:m, :1]
        for j in range(m - 1, -1, -1):
            x[j] -= (self.columns[j, 1 : w + 1].unsqueeze(1) * x[j + 1 : j + 1 + w]).sum(0)
        return x[:m]
