"""What counts as satisfied: a value is judged as it is returned, in the dtype in which it is returned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn.layers.contract.quarantine import same_dtype
from constrained_nn.linalg import branchless, matvec
from constrained_nn.sets import ConstraintSet, IntervalSet, is_half, tensors_of

# Largest residual of a row, relative to the size of its terms at the value that is returned. Values of 16 bits are
# rounded into the set, so that their inequalities are held to the same as those of float64.
RTOL = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-9, torch.bfloat16: 1e-9}
# Roundings of the largest component that a row is allowed, for values next to nothing.
_ROUNDINGS = 16.0
# The audit itself rounds: it asks for a little more than it promises.
_SHARE = 1.0 - 1e-6


class Verdict(NamedTuple):
    """Whether each element holds, its largest violation in row units, and whether all of them are known to hold."""

    held: Bool[Tensor, "*batch"]
    violation: Float[Tensor, "*batch"]
    certain: bool = False


@runtime_checkable
class Tolerance(Protocol):
    """Judges a value that is about to be returned, in its own dtype, by the set."""

    def __call__(self, value: Tensor, set: Any) -> Verdict: ...


def audit_dtype(value: Tensor, set: ConstraintSet) -> torch.dtype:
    """float64, where products of two narrower numbers are exact, unless the set has a function of its own."""
    return torch.float64 if set.widens or is_half(value) else value.dtype


def widen(value: Tensor, set: ConstraintSet) -> tuple[Tensor, ConstraintSet]:
    """Value and set, without derivatives, in the dtype in which they are judged."""
    dtype = audit_dtype(value, set)
    plain = same_dtype(set, dtype) if any(t.dtype != dtype for t in tensors_of(set)) else set
    return value.detach().to(dtype), plain


@dataclass(frozen=True)
class Relative:
    """Every row to `rtol scale(value)`: 1e-9 in float64, 1e-4 in float32.

    To `16 + n` roundings of the largest of the `n` components on top, and to the smallest normal number at zero.

    In bfloat16 and float16 inequality rows hold to 1e-9, and equality rows to `4 n u scale(value)`, which rounding of
    a value of `n` components with unit of rounding `u` cannot beat.
    """

    def __call__(self, value: Tensor, set: Any) -> Verdict:
        wide, plain = widen(value, set)
        rtol: Any = RTOL[value.dtype] * _SHARE
        if (verdict := _at_a_glance(wide, plain, rtol)) is not None:
            return verdict
        residual, scale = plain.residual(wide).abs(), plain.scale(wide)
        if not (branchless(value) or is_half(value)):
            held = (residual <= rtol * scale) & (scale < torch.inf)
            if bool(held.all()) and math.isfinite(wide.sum()) and _in_order(plain):
                return Verdict(held.all(-1), largest(residual), certain=True)
        info = torch.finfo(value.dtype)
        floor: Any = info.tiny
        if is_half(value):
            equality = plain.equality(wide)
            rtol = torch.where(equality, 2 * value.shape[-1] * info.eps, rtol)
            floor = torch.where(equality, info.tiny * info.eps, 0.0)
        allowance = rtol * scale + floor
        held = (residual <= allowance) & (allowance < torch.inf)
        if branchless(value) or not bool(held.all()):
            # a component that is next to nothing carries the rounding of those that it was computed with
            even = wide.abs().amax(-1, keepdim=True).expand_as(wide) if wide.shape[-1] else wide
            roundings = (_ROUNDINGS + wide.shape[-1]) * torch.finfo(computed(set)).eps
            allowance = allowance + roundings * plain.scale(even)
            held = (residual <= allowance) & (allowance < torch.inf)
        return Verdict(held.all(-1) & wide.isfinite().all(-1), largest(residual))


@dataclass(frozen=True)
class Absolute:
    """Every row to `atol` in its own unit, or to 64 roundings of its terms, whichever is larger.

    Args:
        atol: Largest residual, in row units.
    """

    atol: float

    def __call__(self, value: Tensor, set: Any) -> Verdict:
        wide, plain = widen(value, set)
        residual = plain.residual(wide).abs()
        held = residual <= self.atol
        if branchless(value) or not bool(held.all()):
            allowance = 64.0 * torch.finfo(value.dtype).eps * plain.scale(wide)
            held = held | ((residual <= allowance) & (allowance < torch.inf))
        return Verdict(held.all(-1) & wide.isfinite().all(-1), largest(residual))


def _at_a_glance(value: Tensor, set: ConstraintSet, rtol: float) -> Verdict | None:
    """The verdict where all rows hold to a share of `|A x|`, or else of `|A||x|`: sooner computed than all of it."""
    if not isinstance(set, IntervalSet) or branchless(value) or not set.lower.shape[-1]:
        return None
    reached, lower, upper = set.value(value), set.lower, set.upper
    excess = torch.maximum(reached - upper, lower - reached)
    # the difference of two infinities is NaN, which holds nothing: an infinite value is inside of no bounds
    held = (torch.sub(excess, reached.abs(), alpha=rtol) <= 0) & (lower <= upper)
    if not bool(held.all()):  # at a bound of zero |A x| is nothing
        size = matvec(set.jacobian(value).abs(), value.abs())
        held = (excess <= rtol * size) & (size < torch.inf) & (lower <= upper)
        if not bool(held.all()):
            return None
    return Verdict(held[..., 0], excess.amax(-1).clamp_min(0.0), certain=True)


def _in_order(set: ConstraintSet) -> bool:
    """Whether no lower bound lies above its upper one, by however little, members included."""
    if isinstance(set, IntervalSet):
        return bool((set.lower <= set.upper).all())
    return all(_in_order(member) for member in getattr(set, "sets", ()))


def computed(set: ConstraintSet) -> torch.dtype:
    """The dtype in which a layer works on a set."""
    return next((t.dtype for t in tensors_of(set)), torch.float64)


def largest(rows: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch"]:
    """The largest row; 0 where there is none."""
    return rows.amax(-1) if rows.shape[-1] else rows.new_zeros(rows.shape[:-1])
