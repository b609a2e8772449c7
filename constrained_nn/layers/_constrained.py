"""A network whose output satisfies its constraints, and constants as modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from constrained_nn._linalg import without_autocast
from constrained_nn.errors import SetTypeError
from constrained_nn.layers._base import ProjectionLayer
from constrained_nn.sets import ConstraintSet
from constrained_nn.solvers import Solution


@dataclass(frozen=True, eq=False)
class Enforced:
    """Raw output, enforced output and how far apart they are.

    A penalty on the enforced output has zero gradient, because it satisfies the constraints; penalize
    `distance` instead.

    Args:
        raw: Output of the backbone `(*batch, n)`.
        value: Enforced output `(*batch, n)`.
        solution: Per-element status, steps and violation.
    """

    raw: Float[Tensor, "*batch n"]
    value: Float[Tensor, "*batch n"]
    solution: Solution

    @property
    def distance(self) -> Float[Tensor, "*batch"]:
        """Euclidean distance between raw and enforced output; its subgradient where they agree is 0."""
        return torch.linalg.vector_norm(self.value - self.raw, dim=-1)


class Fixed(nn.Module):
    """A constant set as a module: its tensors are buffers, its factor is computed once.

    `Fixed(set)(context) = set` for every context.

    Guarantee: moves, saves and loads with the network (`to`, `state_dict`, `deepcopy`); the factor always belongs to
    the set as it is now.

    Args:
        set: The constant set.

    Returns:
        `forward(context)`: the set.

    Example:
        >>> import torch
        >>> from constrained_nn import Box
        >>> fixed = Fixed(Box(-torch.ones(2), torch.ones(2)))
        >>> sorted(fixed.state_dict())
        ['lower', 'upper']

    References:
        HardNet (arXiv 2410.10807), section 4.1, the case of a constant matrix.
    """

    def __init__(self, set: ConstraintSet) -> None:
        super().__init__()
        tensors, self._structure = tree_flatten(set)
        self._names = tuple(_names(set))
        for name, tensor in zip(self._names, tensors, strict=True):
            self.register_buffer(name, tensor.detach().clone())
        self._factor_kind: Any = None
        self._factor_names: tuple[str, ...] = ()
        self._prepared_for: tuple[ProjectionLayer, ...] = ()  # in a tuple, so as not to be a submodule

    def prepare(self, layer: ProjectionLayer) -> None:
        """Compute and keep the layer's factor of this set.

        The factor follows the set: it is not saved, and computed again after a load or a change of dtype.
        """
        factor = layer.factor(self())
        if factor is not None:
            self._prepared_for = (layer,)
            self._factor_kind = type(factor)
            self._factor_names = tuple(f"factor_{name}" for name in factor._fields)
            for name, value in zip(self._factor_names, factor, strict=True):
                self.register_buffer(name, value, persistent=False)

    def _prepare_again(self) -> None:
        if self._prepared_for and not any(buffer.is_meta for buffer in self.buffers()):
            self.prepare(*self._prepared_for)

    def _apply(self, fn: Callable, recurse: bool = True) -> Fixed:
        before = [buffer.dtype for buffer in self.buffers()]
        super()._apply(fn, recurse)
        if [buffer.dtype for buffer in self.buffers()] != before:
            self._prepare_again()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self._factor_names:
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._prepare_again()

    @property
    def factor(self) -> Any:
        """The kept factor, or `None` before `prepare`."""
        if self._factor_kind is None:
            return None
        return self._factor_kind(*(getattr(self, name) for name in self._factor_names))

    def forward(self, context: Tensor | None = None) -> ConstraintSet:
        return tree_unflatten([getattr(self, name) for name in self._names], self._structure)


def _names(set: ConstraintSet) -> list[str]:
    """Names of the tensors of a set; those of members are `sets_0_lower` (a buffer's name has no dots)."""
    names: list[str] = []
    for name in set.core_ndims:
        value = getattr(set, name)
        if isinstance(value, tuple):
            names += [f"{name}_{i}_{inner}" for i, member in enumerate(value) for inner in _names(member)]
        else:
            names.append(name)
    return names


class Constrained(nn.Module):
    """Network whose every output satisfies its constraints.

    `layer(backbone(context), constraint(context))`.

    Guarantee: that of the layer, for every parameter of the backbone, trained or not.

    Args:
        backbone: Module `context -> y`, `(*batch, k) -> (*batch, n)`.
        constraint: Function `context -> ConstraintSet`, or `Fixed(set)`.
        layer: The layer that enforces it.

    Returns:
        `forward(context)`: enforced output `(*batch, n)`.

    Example:
        >>> import torch
        >>> from constrained_nn import Box, Constrained, Fixed, HardNetAffine
        >>> box = Fixed(Box(torch.zeros(2), torch.ones(2)))
        >>> net = Constrained(torch.nn.Linear(3, 2), box, HardNetAffine())
        >>> bool(((y := net(100 * torch.randn(8, 3))) >= 0).all() and (y <= 1).all())
        True

    References:
        HardNet (arXiv 2410.10807), section 4, the composition of network and enforcement layer.
    """

    def __init__(
        self,
        backbone: nn.Module,
        constraint: Callable[[Tensor], ConstraintSet],
        layer: ProjectionLayer,
    ) -> None:
        super().__init__()
        if isinstance(layer, type):
            raise TypeError(
                f"Constrained: expected a layer, got the class {layer.__name__}. Write {layer.__name__}()."
            )
        if not callable(constraint) or isinstance(constraint, ProjectionLayer):
            raise SetTypeError(
                f"Constrained: expected constraint to be a function of the input, got {type(constraint).__name__}. "
                f"Wrap a constant set as Fixed(set)."
            )
        self.backbone = backbone
        self.constraint = constraint
        self.layer = layer
        if isinstance(constraint, Fixed):
            constraint.prepare(layer)

    @property
    def _factor(self) -> Any:
        return self.constraint.factor if isinstance(self.constraint, Fixed) else None

    @without_autocast
    def _set(self, context: Tensor) -> ConstraintSet:
        return self.constraint(context)

    def evaluate(self, context: Float[Tensor, "*batch k"]) -> Enforced:
        """Raw and enforced output with status; for penalties, logs and statistics."""
        raw = self.backbone(context)
        solution = self.layer.solve(raw, self._set(context), factor=self._factor)
        return Enforced(raw, solution.value, solution)

    def forward(self, context: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch n"]:
        return self.layer(self.backbone(context), self._set(context), factor=self._factor)
