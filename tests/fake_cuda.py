"""A GPU that is not there: shapes, dtypes and devices run, values do not exist.

Reading a value (`.item()`, `bool(tensor)`, a boolean index) raises here, as does mixing devices, so that code
which passes neither synchronizes a GPU nor forgets to move a constant to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode

from tests.oracles import tensor_fields, tensor_of, with_tensors


class _ByOperators(TorchFunctionMode):
    """Square brackets, `~` and `to(device)` by operators: builds without CUDA refuse them on a fake GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(args[0] if args else None, Tensor) and args[0].device.type == "cuda":
            if func is Tensor.__getitem__:
                return _index(*args)
            if func is Tensor.__invert__:
                return torch.ops.aten.bitwise_not(args[0])
            if func is Tensor.to and len(args) == 2 and isinstance(args[1], str | torch.device):
                return torch.ops.aten._to_copy(args[0], device=torch.device(args[1]))
        device = (kwargs or {}).get("device")
        if func in (torch.as_tensor, torch.tensor) and device is not None:
            plain = func(*args, **{k: v for k, v in kwargs.items() if k != "device"})
            return torch.empty(plain.shape, dtype=plain.dtype, device=device)
        return func(*args, **(kwargs or {}))


def _index(tensor: Tensor, index: Any) -> Tensor:
    index = index if isinstance(index, tuple) else (index,)
    dim, arrays = 0, []
    for i in index:
        if i is Ellipsis:
            dim += tensor.ndim - dim - _used_after_ellipsis(index)
        elif i is None:
            tensor, dim = tensor.unsqueeze(dim), dim + 1
        elif isinstance(i, slice):
            start, stop, step = i.indices(tensor.shape[dim])
            if step < 0:
                raise ValueError("slice step must be positive")
            tensor, dim = torch.ops.aten.slice(tensor, dim, start, stop, step), dim + 1
        elif isinstance(i, Tensor):
            arrays.append((dim, i))
            dim += 1
        elif isinstance(i, list):
            arrays.append((dim, torch.empty(len(i), dtype=torch.long, device=tensor.device)))
            dim += 1
        else:
            tensor = tensor.select(dim, int(i))
    if not arrays:
        return tensor
    places: list[Tensor | None] = [None] * tensor.ndim
    for place, array in arrays:
        places[place] = array
    return torch.ops.aten.index(tensor, places)


def _used_after_ellipsis(index: tuple) -> int:
    """Dimensions of the tensor that the entries after the ellipsis use up."""
    after = index[[i is Ellipsis for i in index].index(True) + 1 :]
    return sum(i is not None for i in after)


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Tensors made inside with `on_cuda` live on a fake GPU."""
    with FakeTensorMode(), _ByOperators():
        yield


def on_cuda(value: Any) -> Any:
    """A tensor, or a set, of the same shape on the fake GPU."""
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="cuda")
    return with_tensors(value, **{name: on_cuda(tensor_of(value, name)) for name in tensor_fields(value)})
