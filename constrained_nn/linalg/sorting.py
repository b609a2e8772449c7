"""Projections whose multiplier is found by sorting."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def project_simplex(
    v: Float[Tensor, "*batch n"], total: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch n"]:
    """Nearest point of `{x : x >= 0, Σ x = total}`, for `total >= 0`.

    `x = max(v − θ, 0)` with `θ` such that the sum is right. Sorting finds which entries are positive; `θ` is then
    one mean over them, in plain operations, so that derivatives of every order are those of the active face.
    """
    goal = total.unsqueeze(-1)
    # from the largest entry down: a shift cancels in x, in value and derivative, and a far point keeps its digits
    shifted = v - v.detach().amax(-1, keepdim=True)
    ordered = shifted.detach().sort(-1, descending=True).values
    count = torch.arange(1, v.shape[-1] + 1, device=v.device).to(v.dtype)
    threshold = (ordered.cumsum(-1) - goal.detach()) / count
    size = (ordered > threshold).sum(-1, keepdim=True).clamp_min(1)
    active = shifted.detach() >= threshold.gather(-1, size - 1)
    level = (torch.where(active, shifted, 0.0).sum(-1, keepdim=True) - goal) / active.sum(-1, keepdim=True)
    return torch.where(active, (shifted - level).clamp_min(0.0), 0.0 * v)  # 0 v and not 0: NaN stays NaN
