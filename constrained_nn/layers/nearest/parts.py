"""A convex set taken apart: bounds on components, linear rows, and curved members."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from constrained_nn.errors import SetTypeError
from constrained_nn.linalg import nearest_between, safe_norm
from constrained_nn.sets import Box, ConstraintSet, Polyhedron, ProjectableSet, take_apart
from constrained_nn.solvers import Term


@dataclass
class Parts:
    """Members of a set in `n` dimensions, all written on the whole decision."""

    n: int
    bounds: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    rows: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    curved: list[tuple[int, ProjectableSet]] = field(default_factory=list)

    def add(self, set: ConstraintSet, start: int = 0) -> Parts:
        """Take apart a set on the components from `start` on."""
        for begin, part in take_apart(set, start):
            after = self.n - begin - part.dim
            if isinstance(part, Box):
                self._add_bounds(part.lower, part.upper, begin, after)
            elif isinstance(part, Polyhedron):
                self._add_rows(part.A, part.lower, part.upper, begin, after)
            elif isinstance(part, ProjectableSet):
                self.curved.append((begin, part))
            else:
                raise SetTypeError(
                    f"EuclideanProjection: expected members with a Euclidean projection, got {type(part).__name__}. "
                    f"See the table 'how to choose' for the layer that enforces it."
                )
        return self

    def _add_bounds(self, lower: Tensor, upper: Tensor, start: int, after: int) -> None:
        pad = torch.nn.functional.pad
        self.bounds.append(
            (pad(lower, (start, after), value=-torch.inf), pad(upper, (start, after), value=torch.inf))
        )

    def _add_rows(self, A: Tensor, lower: Tensor, upper: Tensor, start: int, after: int) -> None:
        self.rows.append((torch.nn.functional.pad(A, (start, after)), lower, upper))

    @property
    def box(self) -> tuple[Tensor, Tensor] | None:
        """All bounds on components together."""
        if not self.bounds:
            return None
        lower, upper = self.bounds[0]
        for low, up in self.bounds[1:]:
            lower, upper = torch.maximum(lower, low), torch.minimum(upper, up)
        return lower, upper

    @property
    def stacked(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """All rows as one matrix with its bounds; a matrix that all elements share stays shared."""
        if not self.rows:
            return None
        batch = torch.broadcast_shapes(*(A.shape[:-2] for A, _, _ in self.rows))
        A = torch.cat([A.expand(*batch, *A.shape[-2:]) for A, _, _ in self.rows], -2)
        sides = []
        for side in (1, 2):
            shape = torch.broadcast_shapes(*(row[side].shape[:-1] for row in self.rows))
            sides.append(torch.cat([row[side].expand(*shape, row[side].shape[-1]) for row in self.rows], -1))
        return A, sides[0], sides[1]

    def terms(self, like: Tensor) -> list[Term]:
        """The parts as constraints `rows x ∈ K` with the projection onto `K`, for the general solver."""
        eye = torch.eye(self.n, dtype=like.dtype, device=like.device)
        terms = []
        if (box := self.box) is not None:
            terms.append(Term(eye, _clamp(*box)))
        if (stacked := self.stacked) is not None:
            A, lower, upper = stacked
            norm = safe_norm(A.detach())
            norm = torch.where(norm > 0, norm, 1.0)
            terms.append(Term(A / norm.unsqueeze(-1), _clamp(lower / norm, upper / norm)))
        for start, set in self.curved:
            terms.append(Term(eye[start : start + set.dim].clone(), set.project))
        return terms


def _clamp(lower: Tensor, upper: Tensor):
    return lambda r: nearest_between(r, lower, upper)
