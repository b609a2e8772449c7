"""Elements with NaN or a forbidden infinity are replaced before any kernel sees them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from constrained_nn.linalg import branchless
from constrained_nn.sets import ConstraintSet, SetT, map_tensors, named_tensors, tensors_of

# The infinity that means "no bound"; everything else must be finite.
_FREE = {"lower": -torch.inf, "upper": torch.inf, "offset": torch.inf}


def quarantine(
    y: Float[Tensor, "*batch n"], set: SetT
) -> tuple[Float[Tensor, "*batch n"], SetT, Bool[Tensor, "*batch"] | None]:
    """`y` and the set with harmless numbers in bad elements, and which elements are healthy; `None` for all.

    A tensor with a bad entry becomes 0 in that element, in value and in derivative; so does `y` there. A set without
    one is returned as it is, unless control flow may not read values.
    """
    traced = branchless(y, *tensors_of(set))
    if not traced and _plausible(y, set):
        return y, set, None
    flags = [y.isfinite().all(-1)]

    def judge(t: Tensor, name: str, core: int) -> Tensor:
        good = t.isfinite()
        if name in _FREE:
            good = good | (t == _FREE[name])
        flags.append(good.flatten(t.ndim - core).all(-1) if core else good)
        return t

    def clean(t: Tensor, name: str, core: int) -> Tensor:
        good = next(own)
        return torch.where(good.reshape(good.shape + (1,) * core), t, 0.0)

    map_tensors(set, judge)
    healthy = flags[0]
    for flag in flags[1:]:
        healthy = healthy & flag
    y = torch.where(healthy.unsqueeze(-1), y, 0.0)
    if not traced and all(bool(flag.all()) for flag in flags[1:]):
        return y, set, healthy
    own = iter(flags[1:])
    return y, map_tensors(set, clean), healthy


@torch.no_grad()
def _plausible(y: Tensor, set: ConstraintSet) -> bool:
    """A cheap sufficient check that everything is finite: sums carry every NaN and infinity along.

    Of a bound that may be infinite on one side, only the extreme on the other side enters.
    """
    total = y.sum()
    for t, name in named_tensors(set):
        if name not in _FREE:
            total = total + t.sum()
        elif t.numel():
            total = total + (t.amax().clamp_min(0.0) if _FREE[name] < 0 else t.amin().clamp_max(0.0))
    return math.isfinite(total)


def same_dtype(set: SetT, dtype: torch.dtype) -> SetT:
    """The set with all tensors in that dtype."""
    return map_tensors(set, lambda t, name, core: t.to(dtype))


def detached(set: SetT) -> SetT:
    """A copy of the set without derivatives (a copy: loops under compilation refuse aliases)."""
    return map_tensors(set, lambda t, name, core: t.detach().clone())
