"""Tensors of a module that are neither parameters nor buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class PlainState(nn.Module):
    """Module with tensors that move, copy, pickle, save and load with it, and that nobody else writes to.

    Buffers are averaged by `torch.optim.swa_utils.AveragedModel`, where two infinite bounds give NaN and a mask or an
    index gives nonsense, and overwritten from rank 0 by `DistributedDataParallel`, which loses what a rank has counted.
    """

    _kept: tuple[str, ...] = ()

    def keep(self, name: str, tensor: Tensor, *, saved: bool) -> None:
        """Hold `tensor` as the attribute `name`; in the `state_dict` if it is `saved`."""
        self._kept = (*self._kept, name)
        if not saved:
            self._non_persistent_buffers_set.add(name)
        setattr(self, name, tensor)

    @contextmanager
    def _as_buffers(self) -> Iterator[None]:
        """For as long as torch moves, saves or loads them, they are buffers."""
        for name in self._kept:
            self._buffers[name] = self.__dict__.pop(name)
        try:
            yield
        finally:
            for name in self._kept:
                self.__dict__[name] = self._buffers.pop(name)

    def _apply(self, fn: Callable, recurse: bool = True) -> PlainState:
        empty = [name for name in self._kept if getattr(self, name).is_meta]
        with self._as_buffers():
            super()._apply(fn, recurse)
        for name in empty:  # `to_empty` leaves what is not saved without a value
            if name in self._non_persistent_buffers_set:
                getattr(self, name).zero_()
        return self

    def _save_to_state_dict(self, *args: Any, **options: Any) -> None:
        with self._as_buffers():
            super()._save_to_state_dict(*args, **options)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        with self._as_buffers():
            super()._load_from_state_dict(*args, **options)
