"""Proof that a polyhedron is empty, and the point that violates it least."""

from __future__ import annotations

import torch
from torch import Tensor

from constrained_nn.linalg import rmatvec
from constrained_nn.solvers.polyhedron.active_set import SOLVED, sweep

# A certificate must exclude every point up to this multiple of the size of the data.
_RADIUS = 1e4
# Weight of the distance to `y` against the squared violation, in unit rows.
_ANCHOR = 1e-6
_PROXIMAL_ROUNDS = 4


def proves_empty(weights: Tensor, rows: Tensor, lower: Tensor, upper: Tensor, size: Tensor) -> Tensor:
    """Whether `weights (b, m)` prove `{lower <= rows x <= upper}` empty for all `‖x‖` up to `1e4 size (b,)`.

    Farkas: for every `x` in the set `(rowsᵀ w)·x <= Σ max(w, 0) upper + min(w, 0) lower`. If the right-hand side
    is negative, no `x` with `‖x‖ < |right-hand side| / ‖rowsᵀ w‖` is in the set.
    """
    total = weights.abs().sum(-1, keepdim=True)
    w = weights / torch.where(total > 0, total, 1.0)
    bound = torch.where(w > 0, upper, lower)
    bound = torch.where(w != 0, bound, 0.0)
    support = (w * bound).sum(-1)
    rounding = 1e-12 * (w * bound).abs().sum(-1)
    slope = torch.linalg.vector_norm(rmatvec(rows, w), dim=-1)
    return (support < -rounding) & (-support > slope * _RADIUS * size)


def least_violation(
    y: Tensor, rows: Tensor, lower: Tensor, upper: Tensor, *, rtol: float, max_steps: int, check_every: int
) -> Tensor:
    """Point that minimizes the sum of squared violations of unit `rows`, near `y`.

    Proximal-point steps `x ← argmin ½‖A x + r‖²-violation + ½ anchor ‖x − x_old‖²`; each one is a projection in
    `(x, r)` space, where the rows `[A, √anchor I]` are independent and never contradict each other.
    """
    b, (m, n) = y.shape[0], rows.shape[-2:]
    middle = (lower + upper) / 2  # crossed bounds: the least violation of such a row is its middle
    lower, upper = torch.where(lower > upper, middle, lower), torch.where(lower > upper, middle, upper)
    root = _ANCHOR**0.5
    slack = root * torch.eye(m, dtype=y.dtype, device=y.device)
    wide = torch.cat([rows, slack.expand(*rows.shape[:-2], m, m)], -1) / (1 + _ANCHOR) ** 0.5
    lower, upper = lower / (1 + _ANCHOR) ** 0.5, upper / (1 + _ANCHOR) ** 0.5
    x, guess = y, None
    for _ in range(_PROXIMAL_ROUNDS):
        state = sweep(
            torch.cat([x, y.new_zeros(b, m)], -1),
            wide,
            lower,
            upper,
            rtol=rtol,
            guess=guess,
            max_steps=max_steps,
            check_every=check_every,
        )
        done = (state.outcome == SOLVED).unsqueeze(-1)
        x = torch.where(done, state.point[..., :n], x)
        guess = state.multiplier
    return x
