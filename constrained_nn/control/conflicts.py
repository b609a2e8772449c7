"""What a safety filter does where its condition cannot be met."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from constrained_nn.certificates import SafeInputs
from constrained_nn.layers import ProjectionLayer


class ConflictRule(ABC):
    """Inputs for the elements of a batch whose set of safe inputs is empty, or was not reached.

    Attributes:
        counts: Instants and elements at which each constraint gave way, by name, since `reset`.
        asked: Instants and elements that were asked for an input, since `reset`.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.asked = 0

    @abstractmethod
    def resolve(self, t: Any, x: Tensor, raw: Tensor, layer: ProjectionLayer) -> Tensor:
        """Inputs `(k, m)` for states `(k, n)` and raw inputs `(k, m)` in conflict."""

    def reset(self) -> None:
        """Start to count anew."""
        self.counts, self.asked = {}, 0

    def count(self, names: list[str], gave_way: Tensor) -> None:
        """Add what gave way, `(k, constraints)`."""
        for name, number in zip(names, gave_way.sum(0).tolist(), strict=True):
            if number:
                self.counts[name] = self.counts.get(name, 0) + int(number)


class InOrder(ConflictRule):
    """Constraints in their order: each as far as the input limits and those before it allow.

    The limits of the input always hold. The first constraint gets what they leave, the second what
    the first leaves, and so on; then the layer looks for the input in the set that results.

    Args:
        safe: The condition, most important constraint first.
    """

    def __init__(self, safe: SafeInputs) -> None:
        super().__init__()
        self.safe = safe

    def resolve(self, t: Any, x: Tensor, raw: Tensor, layer: ProjectionLayer) -> Tensor:
        set, slack = self.safe.compromise(t, x)
        self.count(list(self.safe.names), slack > 0)
        solution = layer.solve(raw, set)
        limits = self.safe.low.to(x), self.safe.high.to(x)
        # what a layer could not reach is not sent to an actuator beyond its limits
        return torch.where(
            solution.ok.unsqueeze(-1),
            solution.value,
            torch.minimum(torch.maximum(solution.value.nan_to_num(), limits[0]), limits[1]),
        )


class Brake(ConflictRule):
    """A law of last resort, such as `task.brake`: applied as it is.

    Args:
        law: Function `(t, x) -> u`, whose safety is its author's to show.
    """

    def __init__(self, law: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.law = law

    def resolve(self, t: Any, x: Tensor, raw: Tensor, layer: ProjectionLayer) -> Tensor:
        self.count(["brake"], torch.ones(len(x), 1, dtype=torch.bool))
        return self.law(t, x)


def rule_of(condition: Callable[..., Any]) -> ConflictRule | None:
    """`InOrder` for the condition of `SafeInputs`; none for others, where the layer's policy decides."""
    safe = getattr(condition, "__self__", None)
    return InOrder(safe) if isinstance(safe, SafeInputs) else None


def enforce_or_resolve(
    rule: ConflictRule, t: Any, x: Tensor, raw: Tensor, set: Any, layer: ProjectionLayer
) -> Tensor:
    """The enforced input; elements in conflict, and those alone, by the rule."""
    solution = layer.solve(raw, set)
    rule.asked += solution.ok.numel()
    conflict = ~solution.ok
    if not bool(conflict.any()):
        return solution.value
    some = conflict.nonzero(as_tuple=True)
    at = t[some] if isinstance(t, Tensor) and t.ndim else t
    resolved = rule.resolve(at, x[some], raw[some], layer)
    return solution.value.index_put(some, resolved)
