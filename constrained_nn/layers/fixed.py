"""Constant sets as modules, with the factor that belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingImports]

from constrained_nn.layers.contract import ProjectionLayer
from constrained_nn.linalg import branchless, lacks_values, recording
from constrained_nn.plain_state import PlainState
from constrained_nn.sets import ConstraintSet, map_tensors, tensors_of


class _Kept(NamedTuple):
    """A factor, and what it was computed from."""

    factor: Any
    tensors: tuple[Tensor, ...]
    trained: tuple[bool, ...]
    dtype: torch.dtype | None


class Fixed(PlainState):
    """A set that does not depend on the context, as a module.

    `Fixed(set)(context) = set` for every context. A tensor of the set that is an `nn.Parameter` is a parameter of the
    module, and is trained. The others are constants: they move, save and load with the network (`to`, `state_dict`,
    `deepcopy`), and no average of models and no `DistributedDataParallel` changes them.

    Guarantee: the factor that a layer has computed belongs to the set as it is now, whether a tensor was replaced,
    loaded, trained or changed in place. In a graph that was compiled or exported the factor is that of the time of
    recording: if the matrix has changed since, every element is flagged.

    Args:
        set: The set.

    Returns:
        `forward(context)`: the set.

    Raises:
        ValueError: A tensor of the set has a gradient and is not an `nn.Parameter`.

    Example:
        >>> import torch
        >>> from constrained_nn import Box
        >>> fixed = Fixed(Box(-torch.ones(2), torch.nn.Parameter(torch.ones(2))))
        >>> sorted(fixed.state_dict()), [name for name, _ in fixed.named_parameters()]
        (['lower', 'upper'], ['upper'])

    References:
        HardNet (arXiv 2410.10807), section 4.1, the case of a constant matrix.
    """

    def __init__(self, set: ConstraintSet) -> None:
        super().__init__()
        self._names = tuple(_names(set))
        for name, tensor in zip(self._names, tensors_of(set), strict=True):
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            elif tensor.requires_grad:
                raise ValueError(
                    f"Fixed: expected {name} to be a constant or an nn.Parameter, got a tensor of shape "
                    f"{tuple(tensor.shape)} with a gradient, which a constant would cut. Pass the set as a function "
                    f"of the context, or the tensor as torch.nn.Parameter."
                )
            else:
                self.keep(name, tensor.detach().clone(), saved=True)
        self._shapes = map_tensors(set, lambda t, name, core: t.detach().to("meta"))
        self._layers: tuple[ProjectionLayer, ...] = ()  # in a tuple, so as not to be a submodule
        self._kept_factor: _Kept | None = None

    def prepare(self, layer: ProjectionLayer) -> None:
        """Compute and keep the layer's factor of this set, from now on for the set as it is."""
        self._layers = (layer,)
        self._refresh()

    @property
    def factor(self) -> Any:
        """The layer's factor of the set as it is now; `None` before `prepare`, or if there is none."""
        if not self._layers:
            return None
        tensors = tuple(getattr(self, name) for name in self._names)
        if not self._is_current(tensors):
            if branchless(*tensors):  # nothing that is computed here may be kept
                return None
            self._refresh()
        return None if self._kept_factor is None else self._kept_factor.factor

    def forward(self, context: Tensor | None = None) -> ConstraintSet:
        tensors = iter([getattr(self, name) for name in self._names])
        return map_tensors(self._shapes, lambda t, name, core: next(tensors))

    def _refresh(self) -> None:
        tensors = tuple(getattr(self, name) for name in self._names)
        self._kept_factor = None
        if branchless(*tensors):
            return
        (layer,) = self._layers
        with torch.no_grad():
            copies = tuple(t.detach().clone() for t in tensors)
            trained = tuple(t.requires_grad for t in tensors)
            self._kept_factor = _Kept(layer.factor(self()), copies, trained, layer.compute_dtype)

    def _is_current(self, tensors: tuple[Tensor, ...]) -> bool:
        """Whether the kept factor is that of these tensors; their values count, not who has changed them."""
        kept = self._kept_factor
        if kept is None or kept.dtype != self._layers[0].compute_dtype:
            return False
        for t, old, trained in zip(tensors, kept.tensors, kept.trained, strict=True):
            if t.shape != old.shape or t.dtype != old.dtype or t.device != old.device:
                return False
            if t.requires_grad != trained:
                return False
        if recording() or any(map(lacks_values, tensors)):  # the layer looks, in the graph
            return True
        if any(map(is_functorch_wrapped_tensor, tensors)):
            return False
        return all(torch.equal(t, old) for t, old in zip(tensors, kept.tensors, strict=True))

    def _apply(self, fn: Callable, recurse: bool = True) -> Fixed:
        before = [getattr(self, name) for name in self._names]
        super()._apply(fn, recurse)
        self._kept_factor = None
        if self._layers and not any(map(lacks_values, before)):  # else there are no values yet
            self._refresh()
        return self

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        if self._layers:
            self._refresh()


def _names(set: ConstraintSet) -> Iterator[str]:
    """Names of the tensors of a set, as in `tensors_of`; those of members are `sets_0_lower` (a name has no dots)."""
    for name in set.core_ndims:
        value = getattr(set, name)
        if not isinstance(value, tuple):
            yield name
            continue
        for i, member in enumerate(value):
            inner = _names(member) if isinstance(member, ConstraintSet) else ()
            yield from (f"{name}_{i}_{own}" for own in inner)
            if not isinstance(member, ConstraintSet):
                yield f"{name}_{i}"
