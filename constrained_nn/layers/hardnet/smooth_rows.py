"""A set as smooth rows of a flat batch, for solvers that know no sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from constrained_nn.errors import SetTypeError
from constrained_nn.linalg import safe_norm
from constrained_nn.sets import (
    Box,
    ConstraintSet,
    IntervalSet,
    ProjectableSet,
    SetT,
    joined,
    map_tensors,
    tensors_of,
)
from constrained_nn.solvers.gauss_newton import DenseRows, Linearized, StageRows

# Units of rounding of a row's terms that a row may be missed by.
ROUNDING = 64.0


class SetRows:
    """Rows `lower <= value(y) <= upper` of a set with a flat batch, and bounds `box` on the variables.

    Boxes bound the variables (with `bounded=False` they are rows like others); other members with bounds contribute
    their rows; a member with a projection contributes its distance, `|y − P(y)| <= 0`, whose derivative is the unit
    vector from the nearest point.
    """

    def __init__(self, layer: str, set: ConstraintSet, *, bounded: bool = True) -> None:
        self.layer, self.set, self.bounded = layer, set, bounded
        members = list(_members(layer, set, 0))
        boxes = [(start, m) for start, m in members if bounded and isinstance(m, Box)]
        self.members = [(start, m) for start, m in members if not (bounded and isinstance(m, Box))]
        self.like = tensors_of(set)[0]
        self.box = _box(boxes, set.dim) if boxes else None
        sides = [_bounds(member, like) for _, member in self.members for like in tensors_of(member)[:1]]
        self.lower = _joined([low for low, _ in sides], self.like)
        self.upper = _joined([up for _, up in sides], self.like)

    @property
    def crossed(self) -> Tensor:
        """Elements with a lower bound above its upper bound."""
        crossed = (self.lower > self.upper).any(-1)
        return crossed if self.box is None else crossed | (self.box[0] > self.box[1]).any(-1)

    def value(self, y: Tensor) -> Tensor:
        return _side_by_side([_value(member, y[..., part]) for part, member in self._parts()], y)

    def jacobian(self, y: Tensor) -> Tensor:
        blocks = [y.new_zeros(*y.shape[:-1], 0, y.shape[-1])]
        for part, member in self._parts():
            J = _jacobian(member, y[..., part])
            J = J.expand(*y.shape[:-1], *J.shape[-2:])
            blocks.append(torch.nn.functional.pad(J, (part.start, y.shape[-1] - part.stop)))
        return torch.cat(blocks, -2)

    def linearize(self, y: Tensor) -> Linearized:
        alone = self.members[0][1] if len(self.members) == 1 else None
        stages = alone.stage_jacobian(y) if alone is self.set and isinstance(alone, IntervalSet) else None
        if stages is not None:
            return StageRows(*stages)
        return DenseRows(self.jacobian(y))

    def allowance(self, y: Tensor) -> Tensor:
        unit = ROUNDING * torch.finfo(y.dtype).eps
        sizes = [_size(member, y[..., part]) for part, member in self._parts()]
        return unit * _side_by_side(sizes, y)

    def pick(self, index: Tensor) -> SetRows:
        some = map_tensors(self.set, lambda t, name, core: t[index] if t.ndim > core else t)
        return SetRows(self.layer, some, bounded=self.bounded)

    def _parts(self):
        return [(slice(start, start + member.dim), member) for start, member in self.members]


def _members(layer: str, set: ConstraintSet, start: int):
    """The parts of a set that have rows or a projection, each with the component at which it starts."""
    if isinstance(set, IntervalSet | ProjectableSet):
        yield start, set
        return
    for offset, part in set.parts():
        if part is set:
            raise SetTypeError(
                f"{layer}: expected members with bounds or with a projection, got {type(set).__name__}. Write it as a "
                f"NonlinearSet, or say in `parts()` what it is made of."
            )
        yield from _members(layer, part, start + offset)


def _bounds(member: ConstraintSet, like: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(member, IntervalSet):
        batch = torch.broadcast_shapes(member.lower.shape, member.upper.shape)
        return member.lower.expand(batch), member.upper.expand(batch)
    zero = like.new_zeros(*member.batch_shape, 1)
    return torch.full_like(zero, -torch.inf), zero


def _joined(sides: list[Tensor], like: Tensor) -> Tensor:
    return joined(sides) if sides else like.new_zeros(0)


def _side_by_side(rows: list[Tensor], y: Tensor) -> Tensor:
    return torch.cat([y[..., :0], *(r.expand(*y.shape[:-1], r.shape[-1]) for r in rows)], -1)


def _box(boxes: list[tuple[int, Box]], dim: int) -> tuple[Tensor, Tensor]:
    """The common bounds of all variables; the tighter one where boxes overlap."""
    sides = []
    for name, free, tighter in (("lower", -torch.inf, torch.maximum), ("upper", torch.inf, torch.minimum)):
        padded = []
        for start, box in boxes:
            side = getattr(box, name)
            pad = torch.nn.functional.pad(side, (start, dim - start - box.dim), value=free)
            padded.append(pad)
        side = padded[0]
        for other in padded[1:]:
            side = tighter(side, other)
        sides.append(side)
    return sides[0], sides[1]


def _size(member: ConstraintSet, y: Tensor) -> Tensor:
    """Size of the terms of each row, the unit of its rounding."""
    size = member.scale(y)
    if isinstance(member, IntervalSet):
        return size
    return torch.linalg.vector_norm(size, dim=-1, keepdim=True)


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
    layer: str, set: ConstraintSet, batch: torch.Size, *, bounded: bool = True
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
        filled = map_tensors(set, lambda *_: tensors[s] if isinstance(s := next(given), int) else s)
        return SetRows(layer, filled, bounded=bounded)

    return build, flat


def widen(layer: str, y: Tensor, set: SetT) -> tuple[Tensor, SetT]:
    """`y` and the set in float64, if the functions of the set compute in it; else as they are.

    What is asked for, rows to `atol` and optimality conditions, is below the rounding of float32.
    """
    if y.dtype == torch.float64 or not y.numel():
        return y, set
    wide = map_tensors(set, lambda t, name, core: t.to(torch.float64))
    try:
        with torch.no_grad():
            point = y.detach().to(torch.float64)
            problem = SetRows(layer, wide)
            made = (problem.value(point).dtype, problem.jacobian(point).dtype)
    except RuntimeError:  # a function with constants of its own in the narrow dtype
        return y, set
    return (y.to(torch.float64), wide) if made == (torch.float64, torch.float64) else (y, set)
