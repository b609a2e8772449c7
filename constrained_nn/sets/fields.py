"""How a set declares its tensors: by the shape in an annotation, or by `batched(core=...)`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, field
from types import FunctionType
from typing import Any, get_args, get_origin

from torch import Tensor

_CORE = "core dimensions"


def batched(*, core: int, default: Any = MISSING) -> Any:
    """A field that holds a tensor `(*batch, ...)` with `core` dimensions behind the batch.

    `A: Tensor = batched(core=2)` says the same as `A: Float[Tensor, "*#batch m n"]`, without jaxtyping.

    Args:
        core: Dimensions of one element: 0 for a number, 1 for a vector, 2 for a matrix.
        default: Default value, as in a dataclass.
    """
    return field(default=default, metadata={_CORE: core})


def core_ndim(cls: type, declared: Field) -> int | None:
    """Dimensions of a tensor without its batch: 2 for `Float[Tensor, "*#batch m n"]`; `None` for a setting.

    Raises:
        TypeError: The field is a tensor of unknown shape.
    """
    if _CORE in declared.metadata:
        return declared.metadata[_CORE]
    kind = _resolved(cls, declared)
    if get_origin(kind) is tuple:
        return 0
    options = (kind, *get_args(kind))
    shape = next((o.dim_str for o in options if hasattr(o, "dim_str")), None)
    if shape is not None:
        return sum(not name.startswith(("*", "...")) for name in shape.split())
    if Tensor in options:
        raise TypeError(
            f"constraint_set: expected the annotation of {cls.__name__}.{declared.name} to give the shape of the "
            f"tensor, got {kind}. "
            f"Write it as Float[Tensor, '*#batch n'] (jaxtyping), batch dimensions first, or as batched(core=1)."
        )
    return None


def _resolved(cls: type, declared: Field) -> Any:
    """The annotation itself, where a module keeps annotations as text (`from __future__ import annotations`)."""
    kind = declared.type
    if not isinstance(kind, str):
        return kind
    for owner in cls.__mro__:
        if declared.name in inspect.get_annotations(owner):
            try:
                return eval(kind, _names(owner), dict(vars(owner)))
            except NameError as error:
                raise TypeError(
                    f"constraint_set: expected the annotation of {cls.__name__}.{declared.name} to be known when the "
                    f"class is made, got {kind} ({error}). Import its names at run time, or declare a tensor as "
                    f"batched(core=1)."
                ) from None
    return kind


def _names(owner: type) -> dict[str, Any]:
    """Names that the body of a class could see: those of its module, and of the functions around its methods."""
    names = dict(vars(sys.modules.get(owner.__module__, sys)))
    methods: list[Callable] = [getattr(v, "fget", v) for v in vars(owner).values()]
    for method in methods:
        if isinstance(method, FunctionType):
            names |= method.__globals__
    return names
