"""Constraints are never evaluated in a reduced precision that nobody asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, computed in the dtypes of its arguments although `torch.autocast` is on around it."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        on = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
        if not on:
            return function(*args, **kwargs)
        with torch.autocast(on[0], enabled=False):
            return wrapper(*args, **kwargs)

    return wrapper
