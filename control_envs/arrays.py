"""The array namespace of a value: physics is written once, against `xp`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_NUMPY = (np.ndarray, np.generic)  # a tuple: torch.compile cannot trace a union of types


def namespace(x: Any) -> Any:
    """The module whose functions act on `x`: `numpy`, `torch`, or that of an array-API object.

    The plain `torch` module and not its compatibility wrapper: the wrapper costs about a microsecond a call.
    """
    if isinstance(x, _NUMPY):
        return np
    if type(x).__module__.partition(".")[0] == "torch":
        import torch

        return torch
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__()
    import array_api_compat

    return array_api_compat.array_namespace(x)


def constant(values: Any, like: Any, xp: Any) -> Any:
    """Constant array of the dtype and device of `like`."""
    if xp is np:
        return np.asarray(values, dtype=like.dtype)
    if hasattr(like, "new_tensor"):
        return xp.as_tensor(values, dtype=like.dtype, device=like.device)
    return xp.asarray(values)


def stack(parts: Sequence[Any], xp: Any) -> Any:
    """Components `(*batch)` as one array `(*batch, n)`; at batch one five times as fast as `numpy.stack`."""
    if xp is np and not parts[0].ndim:
        return np.array(parts)
    return xp.stack(parts, -1)
