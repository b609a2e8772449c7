"""A set as smooth rows of a flat batch, for solvers that know no sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from constrained_nn._linalg import safe_norm
from constrained_nn.errors import SetTypeError
from constrained_nn.sets import (
    ConstraintSet,
    Intersection,
    IntervalSet,
    NonlinearSet,
    Product,
    ProjectableSet,
    TrajectoryMap,
)
from constrained_nn.sets._base import map_tensors, tensors_of
from constrained_nn.solvers._linearized import DenseRows, Linearized, StageRows


class SetRows:
    """Rows `lower <= value(y) <= upper` of a set with a flat batch.

    Members with bounds contribute their rows; a member with a projection contributes its distance, `|y − P(y)| <= 0`,
    whose derivative is the unit vector from the nearest point.
    """

    def __init__(self, layer: str, set: ConstraintSet) -> None:
        self.layer, self.set = layer, set
        self.members = list(_members(layer, set, 0))
        sides = [_bounds(member, like) for _, member in self.members for like in tensors_of(member)[:1]]
        self.lower = _joined([low for low, _ in sides])
        self.upper = _joined([up for _, up in sides])

    def value(self, y: Tensor) -> Tensor:
        return torch.cat([_value(member, y[..., part]) for part, member in self._parts()], -1)

    def jacobian(self, y: Tensor) -> Tensor:
        blocks = []
        for part, member in self._parts():
            J = _jacobian(member, y[..., part])
            J = J.expand(*y.shape[:-1], *J.shape[-2:])
            blocks.append(torch.nn.functional.pad(J, (part.start, y.shape[-1] - part.stop)))
        return torch.cat(blocks, -2)

    def linearize(self, y: Tensor) -> Linearized:
        if len(self.members) == 1 and isinstance(self.set, NonlinearSet):
            rows = self.set.rows
            if isinstance(rows, TrajectoryMap):
                context = self.set.context.expand(len(y), self.set.context.shape[-1])
                return StageRows(*rows.stage_jacobian(y, context))
        return DenseRows(self.jacobian(y))

    def pick(self, index: Tensor) -> SetRows:
        return SetRows(
            self.layer, map_tensors(self.set, lambda t, name, core: t[index] if t.ndim > core else t)
        )

    def _parts(self):
        return [(slice(start, start + member.dim), member) for start, member in self.members]


def _members(layer: str, set: ConstraintSet, start: int):
    """The members of intersections and products, each with the component at which it starts."""
    if isinstance(set, Intersection | Product):
        for member in set.sets:
            yield from _members(layer, member, start)
            start += member.dim if isinstance(set, Product) else 0
    elif isinstance(set, IntervalSet | ProjectableSet):
        yield start, set
    else:
        raise SetTypeError(
            f"{layer}: expected members with bounds or with a projection, got {type(set).__name__}. Write it as a "
            f"NonlinearSet."
        )


def _bounds(member: ConstraintSet, like: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(member, IntervalSet):
        batch = torch.broadcast_shapes(member.lower.shape, member.upper.shape)
        return member.lower.expand(batch), member.upper.expand(batch)
    zero = like.new_zeros(*member.batch_shape, 1)
    return torch.full_like(zero, -torch.inf), zero


def _joined(sides: list[Tensor]) -> Tensor:
    batch = torch.broadcast_shapes(*(s.shape[:-1] for s in sides))
    return torch.cat([s.expand(*batch, s.shape[-1]) for s in sides], -1)


def _value(member: ConstraintSet, y: Tensor) -> Tensor:
    if isinstance(member, IntervalSet):
        return member.value(y)
    assert isinstance(member, ProjectableSet)
    return safe_norm(y - member.project(y)).unsqueeze(-1)


def _jacobian(member: ConstraintSet, y: Tensor) -> Tensor:
    if isinstance(member, IntervalSet):
        return member.jacobian(y)
    assert isinstance(member, ProjectableSet)
    away = y - member.project(y)
    distance = safe_norm(away)
    positive = distance > 0
    unit = away / torch.where(positive, distance, 1.0).unsqueeze(-1)
    return torch.where(positive.unsqueeze(-1), unit, 0.0).unsqueeze(-2)


def flat_rows(
    layer: str, set: ConstraintSet, batch: torch.Size
) -> tuple[Callable[..., SetRows], Sequence[Tensor]]:
    """`build(*tensors) -> SetRows`, and the tensors of the set that vary or learn, with one batch dimension.

    Tensors without derivative that all elements share stay shared.
    """
    flat: list[Tensor] = []
    slots: list[int | Tensor] = []

    def spread(t: Tensor, name: str, core: int) -> Tensor:
        if t.ndim == core and not t.requires_grad:
            slots.append(t)
        else:
            slots.append(len(flat))
            own = t.shape[t.ndim - core :]
            flat.append(t.expand(*batch, *own).reshape(batch.numel(), *own))
        return t

    map_tensors(set, spread)

    def build(*tensors: Tensor) -> SetRows:
        given = iter(slots)
        return SetRows(
            layer, map_tensors(set, lambda *_: tensors[s] if isinstance(s := next(given), int) else s)
        )

    return build, flat
