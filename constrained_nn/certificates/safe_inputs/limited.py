"""Rows together with the limits of the inputs, as one set."""

from __future__ import annotations

import torch
from torch import Tensor

from constrained_nn.sets import Box, Polyhedron


def limit_rows(
    A: Tensor, upper: Tensor, low: Tensor, high: Tensor, *, acts_on: int | None = None
) -> Polyhedron | Box:
    """The set `A u <= upper`, `low <= u <= high`.

    Args:
        A: Rows `(*batch, k, m)`.
        upper: Their bounds `(*batch, k)`.
        low: Lower limits `(m,)`.
        high: Upper limits `(m,)`.
        acts_on: The one input that all rows touch; then the set is a `Box`, which has a projection
            in closed form.
    """
    if not A.shape[-2]:
        batch = (*A.shape[:-2], len(low))
        return Box(low.expand(batch), high.expand(batch))
    if acts_on is None:
        eye = torch.eye(len(low), dtype=A.dtype, device=A.device).expand(*A.shape[:-2], -1, -1)
        free = torch.full_like(upper, -torch.inf)
        limits = [side.expand(*upper.shape[:-1], -1) for side in (low, high)]
        return Polyhedron(
            torch.cat([A, eye], -2),
            torch.cat([free, limits[0]], -1),
            torch.cat([upper, limits[1]], -1),
        )
    j = acts_on
    a = A[..., j]
    bound = upper / torch.where(a == 0, 1.0, a)
    # a row that touches nothing either holds, or forbids everything
    least = torch.where(a < 0, bound, -torch.inf).amax(-1)
    forbids = torch.where((a == 0) & (upper < 0), -torch.inf, torch.inf)
    most = torch.where(a > 0, bound, forbids).amin(-1)
    known = (a.isfinite() & upper.isfinite()).all(-1)  # no data never reads as safe
    least, most = torch.where(known, least, torch.inf), torch.where(known, most, -torch.inf)
    only = torch.arange(len(low), device=A.device) == j
    return Box(
        torch.where(only, torch.maximum(low, least.unsqueeze(-1)), low),
        torch.where(only, torch.minimum(high, most.unsqueeze(-1)), high),
    )
