"""The search for active sets: splitting steps, exact solves, and again only for the elements that fail."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from constrained_nn.solvers.polyhedron.splitting_rows import Guess, RowFactor, confirm, split, times

# Splitting steps before the first exact solve, and before the second attempt of the elements that failed.
STEPS = (20, 60)
# Exact solves after each of these.
ROUNDS = (5, 4)
# The same where no control flow may depend on a value.
FIXED_STEPS, FIXED_ROUNDS = 30, 3
_DUST = 2e-14


@dataclass
class Problem:
    """Projection in the row space of a `RowFactor`: values of the rows at `y`, their bounds, their rounding."""

    factor: RowFactor
    value: Tensor
    lower: Tensor
    upper: Tensor
    dust: Tensor

    def take(self, index: Tensor) -> Problem:
        f = self.factor
        if f.rows.ndim == 3:
            own = {
                name: getattr(f, name) for name in ("rows", "norm", "gram", "step", "half", "back", "weight")
            }
            f = f._replace(**{name: None if t is None else t[index] for name, t in own.items()})
        return Problem(f, *(t[index] for t in (self.value, self.lower, self.upper, self.dust)))

    def split(self, v: Tensor, steps: int) -> Tensor:
        return split(self.factor, self.value, v, self.lower, self.upper, steps)

    def guess(self, v: Tensor) -> Tensor:
        """Signed rows outside their bounds; equalities are always among them."""
        outside = v - torch.clamp(v, self.lower, self.upper)
        tiny = torch.finfo(v.dtype).tiny
        return torch.where((self.lower == self.upper) & (outside == 0), tiny, outside)

    def confirm(self, guess: Tensor, k: int) -> Guess:
        return confirm(self.factor, self.value, self.lower, self.upper, guess, self.dust, k)


def reduce(factor: RowFactor, y: Tensor, lower: Tensor, upper: Tensor) -> Problem:
    """Bounds `(b, m)` of the rows `[A; I]` and the point `y`, in the row space of the factor."""
    if factor.equality.numel():
        moved = lower.index_select(-1, factor.equality) @ factor.shift
        lower = lower.index_select(-1, factor.inequality) - moved
        upper = upper.index_select(-1, factor.inequality) - moved
    there = factor.norm > 0
    norm = torch.where(there, factor.norm, 1.0)
    lower = torch.where(there, lower / norm, -torch.inf)
    upper = torch.where(there, upper / norm, torch.inf)
    dust = _DUST * torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    return Problem(factor, times(y, factor.rows.mT), lower, upper, dust)


def search(problem: Problem, warm: Tensor | None, max_steps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Multipliers and signed active rows `(b, p)`, which elements are exact, and the steps they took `(b,)`."""
    b, p = problem.value.shape
    limit = min(p, problem.factor.rows.shape[-1])
    v = problem.value.clone()
    best, index, part, spent = None, None, problem, 0
    steps = torch.zeros(b, dtype=torch.long, device=v.device)
    for attempt in range(-1 if warm is not None else 0, len(STEPS)):
        if attempt < 0:
            guess, rounds = warm, 1
        else:
            some = int(min(STEPS[attempt], max_steps - spent))
            v = part.split(v, some)
            spent += some
            guess, rounds = part.guess(v), ROUNDS[attempt]
        for _ in range(rounds):
            if spent >= max_steps:
                break
            assert guess is not None
            k = min(int((guess != 0).sum(-1).max()), limit)
            found = part.confirm(guess, k) if k else _inactive(part)
            spent += 1
            if best is None:
                best = found
            else:
                for whole, new in zip(best, found, strict=True):
                    whole[index] = new
            steps[slice(None) if index is None else index] = spent
            if bool(found.exact.all()):
                return best.multiplier, best.active, best.exact, steps
            keep = found.exact.logical_not().nonzero().squeeze(-1)
            index = keep if index is None else index[keep]
            part, v, guess = part.take(keep), v[keep], found.following[keep]
    if best is None:  # no step was allowed
        best = _inactive(problem)
    return best.multiplier, best.active, best.exact, steps


def fixed_search(problem: Problem) -> Tensor:
    """Signed active rows `(b, p)` by a fixed number of steps, for `torch.compile`, `torch.func` and export."""
    k = min(problem.value.shape[-1], problem.factor.rows.shape[-1])
    guess = problem.guess(problem.split(problem.value.clone(), FIXED_STEPS))
    for _ in range(FIXED_ROUNDS):
        guess = problem.confirm(guess, k).following
    return guess


def _inactive(problem: Problem) -> Guess:
    """The point itself, exact where it violates no row."""
    outside = problem.value - torch.clamp(problem.value, problem.lower, problem.upper)
    late = outside.abs() > problem.dust
    zeros = torch.zeros_like(outside)
    following = torch.where(late, torch.sign(outside), 0.0)
    return Guess(zeros, zeros.clone(), late.any(-1).logical_not(), following)
