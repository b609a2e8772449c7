"""The tensors of a set by name, and its single elements."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor


def tensor_fields(set: Any) -> list[str]:
    """Names of the tensors of a set; those of its members are `sets.0.center`."""
    names = []
    for f in dataclasses.fields(set):
        value = getattr(set, f.name)
        if isinstance(value, Tensor):
            names.append(f.name)
        elif isinstance(value, tuple):
            names += [f"{f.name}.{i}.{name}" for i, m in enumerate(value) for name in tensor_fields(m)]
    return names


def owner(set: Any, field: str) -> tuple[Any, str]:
    """The set that holds a tensor, and its name there."""
    head, _, rest = field.partition(".")
    if not rest:
        return set, field
    index, _, inner = rest.partition(".")
    return owner(getattr(set, head)[int(index)], inner)


def tensor_of(set: Any, field: str) -> Tensor:
    """The tensor of that name."""
    return getattr(*owner(set, field))


def is_shared(set: Any, field: str) -> bool:
    """Whether a tensor of a set is the same for all elements."""
    holder, name = owner(set, field)
    return getattr(holder, name).ndim == holder.core_ndims[name]


def element(set: Any, index: int) -> Any:
    """One element of a set with one batch dimension."""
    names = [name for name in tensor_fields(set) if not is_shared(set, name)]
    return with_tensors(set, **{name: tensor_of(set, name)[index] for name in names})


def with_tensors(set: Any, **tensors: Tensor) -> Any:
    """The same set with other tensors."""
    own = {name: t for name, t in tensors.items() if "." not in name}
    for head in {name.partition(".")[0] for name in tensors if "." in name}:
        members = list(getattr(set, head))
        for i in range(len(members)):
            start = f"{head}.{i}."
            inner = {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
            members[i] = with_tensors(members[i], **inner)
        own[head] = tuple(members)  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(set, **own)


def expect(holds: Any, expected: str, got: Any, advice: str) -> None:
    """Raise `AssertionError` where something does not hold."""
    if not bool(holds):
        raise AssertionError(f"expected {expected}, got {got}. {advice}")


def expect_close(
    found: Tensor, wanted: Tensor, expected: str, advice: str, *, rtol: float = 1e-12, atol: float = 1e-12
) -> None:
    """Raise `AssertionError` where two tensors differ by more than rounding."""
    same = found.shape == wanted.shape and torch.allclose(found, wanted, rtol=rtol, atol=atol)
    got = f"{found.tolist()} instead of {wanted.tolist()}" if not same else ""
    expect(same, expected, got, advice)
