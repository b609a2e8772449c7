"""Dual active-set sweep for batches of Euclidean projections onto polyhedra, with exact re-solves.

Each element walks its own path: add the most violated row, drop rows whose multiplier would change sign, and
stop when no row is violated (solved) or when a violated row is a non-negative combination of active ones
(infeasible). The active rows stay linearly independent, so dependent, duplicate and opposite rows are harmless.

References:
    Goldfarb and Idnani, Math. Programming 27 (1983), the method for a general strictly convex Hessian.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from constrained_nn.linalg import matvec, rmatvec

RUNNING, SOLVED, EMPTY, STUCK = 0, 1, 2, 3

# Rounding of a point on active rows, relative to the size of the data (64 units of rounding in float64).
ROUNDING = 1.4e-14
# Sine of the angle to the span of the active rows under which a row counts as dependent on them.
_DEPENDENT = 1e-10
# Elements are compacted when fewer than this share of the current batch is unfinished.
_COMPACT_BELOW = 0.7


@dataclass
class ActiveSet:
    """State and result of the sweep for a flat batch `(b, ...)`.

    Args:
        point: Current point `(b, n)`.
        multiplier: `y − point = rowsᵀ multiplier`, `(b, m)`; positive where the upper bound holds the point.
        active: Independent rows that hold with equality `(b, m)`.
        upper_side: Whether an active row is at its upper bound `(b, m)`.
        pending: The violated row that is being added, or −1 `(b,)`.
        outcome: `RUNNING | SOLVED | EMPTY | STUCK` `(b,)`.
        certificate: Row weights `w` with `rowsᵀ w = 0` and negative support value, where `EMPTY` `(b, m)`.
        steps: Steps spent `(b,)`.
        best: The point with the least violated row among those seen `(b, n)`.
        least: Violation of that row `(b,)`.
    """

    point: Tensor
    multiplier: Tensor
    active: Tensor
    upper_side: Tensor
    pending: Tensor
    outcome: Tensor
    certificate: Tensor
    steps: Tensor
    best: Tensor
    least: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))

    def take(self, index: Tensor) -> ActiveSet:
        return ActiveSet(*(getattr(self, f.name)[index] for f in fields(self)))

    def put(self, index: Tensor, other: ActiveSet) -> None:
        for f in fields(self):
            getattr(self, f.name)[index] = getattr(other, f.name)


def start(y: Tensor, m: int, guess: Tensor | None) -> ActiveSet:
    """Sweep state at `y`, with the support of `guess` (signed multipliers `(b, m)`) as the first active set."""
    b = y.shape[0]
    multiplier = y.new_zeros(b, m) if guess is None else guess.clone()
    zeros = torch.zeros(b, dtype=torch.long, device=y.device)
    return ActiveSet(
        point=y.clone(),
        multiplier=multiplier,
        active=multiplier != 0,
        upper_side=multiplier > 0,
        pending=zeros - 1,
        outcome=zeros.clone(),
        certificate=torch.zeros_like(multiplier),
        steps=zeros.clone(),
        best=y.clone(),
        least=torch.full_like(y[..., 0], torch.inf),
    )


def sweep(
    y: Tensor,
    rows: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    rtol: float,
    guess: Tensor | None = None,
    max_steps: int,
    check_every: int,
) -> ActiveSet:
    """Project `y (b, n)` onto `{lower <= rows y <= upper}` with unit `rows (b, m, n)` or `(m, n)`.

    Args:
        rtol: Violation relative to `‖x‖ + |bound|` up to which a row counts as satisfied.
        guess: Signed multipliers `(b, m)` whose support starts the active set.
        max_steps: Steps after which an element is left `RUNNING`.
        check_every: Steps between looks at who has finished (each look synchronises a GPU).
    """
    whole = start(y, rows.shape[-2], guess)
    index, part = None, whole
    data = (y, rows, lower, upper)
    for done_steps in range(max_steps):
        if done_steps % check_every == 0:
            running = part.outcome == RUNNING
            left = int(running.sum())
            if left == 0:
                break
            if left < _COMPACT_BELOW * running.shape[0]:
                whole = _merge(whole, index, part)
                keep = running.nonzero().squeeze(-1)
                index = keep if index is None else index[keep]
                part = part.take(keep)
                data = tuple(t if t is rows and rows.ndim == 2 else t[keep] for t in data)
        part = step(part, *data, rtol)
    return _merge(whole, index, part)


def _merge(whole: ActiveSet, index: Tensor | None, part: ActiveSet) -> ActiveSet:
    if index is None:
        return part
    whole.put(index, part)
    return whole


def step(state: ActiveSet, y: Tensor, rows: Tensor, lower: Tensor, upper: Tensor, rtol: float) -> ActiveSet:
    """One step of every element that still runs."""
    running = state.outcome == RUNNING
    equality = lower == upper
    has_pending = state.pending >= 0
    p = state.pending.clamp_min(0).unsqueeze(-1)
    pending_multiplier = torch.where(has_pending, state.multiplier.gather(-1, p).squeeze(-1), 0.0)

    # Exact re-solve on the active rows, with the multiplier of the pending row held.
    basis = factor_rows(rows, state.active)
    pull = pending_multiplier.unsqueeze(-1) * take_rows(rows, p).squeeze(-2)
    target = torch.where(state.upper_side, upper, lower)
    x, lam = basis.solve(y - pull, target)
    lam = torch.where(has_pending.unsqueeze(-1), lam.scatter(-1, p, pending_multiplier.unsqueeze(-1)), lam)

    # Multipliers of the wrong sign, and dependent rows, leave first (only after a guess, or by rounding).
    sign = torch.where(state.upper_side, 1.0, -1.0).to(y.dtype)
    dust = 1e-13 * torch.linalg.vector_norm(y - x, dim=-1, keepdim=True)
    wrong = state.active & ((equality.logical_not() & (sign * lam < -dust)) | basis.dependent)
    repair = wrong.any(-1)

    # The most violated row, or the one that is already on its way in.
    value = matvec(rows, x)
    over, under = value - upper, lower - value
    bound = torch.where(over > under, upper, lower)
    allowed = rtol * (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + bound.abs())
    allowed = allowed + ROUNDING * torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    outside = torch.maximum(over, under)
    largest = outside.amax(-1)
    better = running & (largest < state.least)
    violation = torch.where(state.active, -torch.inf, outside - allowed)
    worst = violation.argmax(-1, keepdim=True)
    solved = has_pending.logical_not() & (violation.gather(-1, worst).squeeze(-1) <= 0)
    p = torch.where(has_pending.unsqueeze(-1), p, worst)
    from_above = over.gather(-1, p) >= under.gather(-1, p)
    from_above = torch.where(has_pending.unsqueeze(-1), state.upper_side.gather(-1, p), from_above)
    s = torch.where(from_above, 1.0, -1.0).to(y.dtype)
    amount = torch.where(from_above, over.gather(-1, p), under.gather(-1, p)).squeeze(-1)

    # Moving along the normal `a` of that row: it splits into z, tangent to the active rows, and rowsᵀ r.
    a = s * take_rows(rows, p).squeeze(-2)
    z, r = basis.split(a)
    zz = (z * z).sum(-1)
    blocking = state.active & equality.logical_not() & (sign * r > 1e-12)
    ratio = torch.where(blocking, sign * lam / torch.where(blocking, sign * r, 1.0), torch.inf)
    block = ratio.argmin(-1, keepdim=True)
    dual_limit = ratio.gather(-1, block).squeeze(-1).clamp_min(0)
    independent = zz > _DEPENDENT**2
    full = torch.where(independent, amount.clamp_min(0) / torch.where(independent, zz, 1.0), torch.inf)
    empty = independent.logical_not() & dual_limit.isinf()
    add = full <= dual_limit
    length = torch.where(empty, 0.0, torch.minimum(full, dual_limit))

    go = running & repair.logical_not()
    go_on = go & solved.logical_not() & empty.logical_not()
    lam_p = pending_multiplier + s.squeeze(-1) * length
    active = torch.where((running & repair).unsqueeze(-1), state.active & wrong.logical_not(), state.active)
    added = active.scatter(-1, p, True)
    dropped = active.scatter(-1, block, False)
    active = torch.where((go_on & add).unsqueeze(-1), added, active)
    active = torch.where((go_on & add.logical_not()).unsqueeze(-1), dropped, active)
    moved = torch.where(go_on.unsqueeze(-1), lam.scatter(-1, p, lam_p.unsqueeze(-1)), lam)
    witness = (-r * state.active).scatter(-1, p, s)
    outcome = torch.where(
        go & solved, SOLVED, torch.where(go & solved.logical_not() & empty, EMPTY, state.outcome)
    )
    keep = running.unsqueeze(-1)
    pending = torch.where(go_on & add.logical_not(), p.squeeze(-1), -1)
    return ActiveSet(
        point=torch.where(keep, x, state.point),
        multiplier=torch.where(keep, moved, state.multiplier),
        active=active,
        upper_side=torch.where(
            (go & solved.logical_not()).unsqueeze(-1),
            state.upper_side.scatter(-1, p, from_above),
            state.upper_side,
        ),
        pending=torch.where(go_on, pending, state.pending),
        outcome=outcome,
        certificate=torch.where(
            (go & solved.logical_not() & empty).unsqueeze(-1), witness, state.certificate
        ),
        steps=state.steps + running.to(state.steps.dtype),
        best=torch.where(better.unsqueeze(-1), x, state.best),
        least=torch.where(better, largest, state.least),
    )


def take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Rows `(b, k, n)` of shared or per-element `rows` at `index (b, k)`."""
    if rows.ndim == 2:
        return rows.index_select(0, index.reshape(-1)).reshape(*index.shape, rows.shape[-1])
    return rows.gather(-2, index.unsqueeze(-1).expand(*index.shape, rows.shape[-1]))


@dataclass
class Basis:
    """Orthonormal basis of the active rows: `active rowsᵀ = Q R`, unused columns zero."""

    index: Tensor
    used: Tensor
    Q: Tensor
    R: Tensor
    m: int
    dependent: Tensor

    def solve(self, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Projection of `y` onto `active rows x = target`, and its multipliers `(b, m)`; one refinement."""
        t = torch.where(self.used, target.gather(-1, self.index), 0.0)
        c = _triangular(self.R, t, transposed=True)
        x = y + matvec(self.Q, c - rmatvec(self.Q, y))
        x = x + matvec(self.Q, c - rmatvec(self.Q, x))
        lam = _triangular(self.R, rmatvec(self.Q, y - x), transposed=False)
        return x, self._scatter(lam)

    def split(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """`a = z + rowsᵀ r` with `z` orthogonal to the active rows; `r (b, m)`."""
        q = rmatvec(self.Q, a)
        z = a - matvec(self.Q, q)
        again = rmatvec(self.Q, z)
        z = z - matvec(self.Q, again)
        return z, self._scatter(_triangular(self.R, q + again, transposed=False))

    def _scatter(self, values: Tensor) -> Tensor:
        out = values.new_zeros(*values.shape[:-1], self.m)
        return out.scatter_add(-1, self.index, torch.where(self.used, values, 0.0))


def factor_rows(rows: Tensor, active: Tensor, free: Tensor | None = None, most: int | None = None) -> Basis:
    """QR of the active rows, which come first; at most `min(m, n)` of them are taken, or `most`.

    Args:
        free: Components of the rows that count `(b, n)`, or `None` for all.
    """
    m, n = rows.shape[-2:]
    k = min(m, n) if most is None else min(m, n, most)
    order = active.to(torch.int8).sort(dim=-1, descending=True, stable=True).indices.narrow(-1, 0, k)
    used = active.gather(-1, order)
    chosen = torch.where(used.unsqueeze(-1), take_rows(rows, order), 0.0)
    if free is not None:
        chosen = torch.where(free.unsqueeze(-2), chosen, 0.0)
    Q, R = torch.linalg.qr(chosen.mT)
    independent = used & (R.diagonal(dim1=-2, dim2=-1).abs() > _DEPENDENT)
    keep = independent.unsqueeze(-2)
    R = torch.where(keep & keep.mT, R, torch.eye(k, dtype=R.dtype, device=R.device))
    # Active rows that are not in the basis: dependent on the rows before them, or more than k.
    in_basis = torch.zeros_like(active).scatter(-1, order, independent)
    return Basis(order, independent, torch.where(keep, Q, 0.0), R, m, active & in_basis.logical_not())


def _triangular(R: Tensor, r: Tensor, *, transposed: bool) -> Tensor:
    T = R.mT if transposed else R
    return torch.linalg.solve_triangular(T, r.unsqueeze(-1), upper=not transposed).squeeze(-1)
