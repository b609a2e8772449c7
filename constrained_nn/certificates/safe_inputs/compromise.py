"""What to ask of an input where not everything can be had: constraints in their order."""

from __future__ import annotations

import torch
from torch import Tensor

from constrained_nn.solvers import project_polyhedron

# How far away a point is whose projection stands for the end of a polyhedron in its direction, in
# half widths of the input limits; the end is missed by at most m / (2 FAR) of them.
FAR = 1e6


@torch.no_grad()
def relax_in_order(A: Tensor, upper: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Bounds `(batch, k)` that inputs within the limits meet: no row gives way to one after it.

    Row `i` keeps its bound if some input within the limits meets it together with the rows before,
    as they were relaxed; else it gets the smallest value that such an input can give it.

    Args:
        A: Rows `(batch, k, m)`, the most important first.
        upper: Their bounds `(batch, k)`.
        low: Lower limits `(m,)`.
        high: Upper limits `(m,)`.
    """
    center, half = 0.5 * (low + high), 0.5 * (high - low)
    A = A * half  # on inputs from −1 to 1
    wanted = upper - (A @ (center / torch.where(half > 0, half, 1.0)).unsqueeze(-1)).squeeze(-1)
    relaxed = wanted.clone()
    for i in range(A.shape[-2]):
        if A.shape[-1] == 1:
            reach = _reach_interval(A[:, : i + 1, 0], relaxed[:, :i])
        elif i == 0:
            reach = -A[:, 0].abs().sum(-1)
        else:
            reach = _reach(A[:, : i + 1], relaxed[:, :i])
        # a little more than the least, or rounding would make the set empty again
        room = 1e-9 * (A[:, i].abs().sum(-1) + reach.abs())
        relaxed[:, i] = torch.maximum(wanted[:, i], reach + room)
    return upper + (relaxed - wanted)


def _reach(A: Tensor, upper: Tensor) -> Tensor:
    """Smallest value of the last row over inputs from −1 to 1 that meet the rows before it."""
    a = A[:, -1]
    norm = torch.linalg.vector_norm(a, dim=-1, keepdim=True)
    far = -FAR * a / torch.where(norm > 0, norm, 1.0)
    ones, free = torch.ones_like(a), torch.full_like(upper, -torch.inf)
    found = project_polyhedron(far, A[:, :-1], free, upper, box=(-ones, ones))
    end = torch.where(found.ok.unsqueeze(-1), found.value, 0.0)
    # an end that was not found: the row gives way as far as it could have to
    return torch.where(found.ok, (a * end).sum(-1), a.abs().sum(-1))


def _reach_interval(a: Tensor, upper: Tensor) -> Tensor:
    """The same for a single input, where the rows leave an interval."""
    before, last = a[:, :-1], a[:, -1]
    bound = upper / torch.where(before == 0, 1.0, before)
    least = torch.where(before < 0, bound, -1.0).amax(-1) if before.shape[-1] else -torch.ones_like(last)
    most = torch.where(before > 0, bound, 1.0).amin(-1) if before.shape[-1] else torch.ones_like(last)
    least, most = least.clamp(-1.0, 1.0), most.clamp(-1.0, 1.0)
    return torch.minimum(last * least, last * most)
