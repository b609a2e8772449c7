"""Equalities by completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from constrained_nn.layers import Completion
from constrained_nn.sets import ConstraintSet, IntervalSet, Polyhedron
from constrained_nn.settings import require_real
from constrained_nn.training.methods.base import Method, squared_excess


@dataclass(frozen=True)
class Completed(Method):
    """The network outputs the free variables, a method works on those, and the equalities give the others.

    The set is made of rows, of which the last are the equalities `C y = d` of the completion.

    Args:
        complete: The completion.
        free: What is done with the free variables, whose rows are the other rows of the set.
        weight: Weight of the squared residual of the decision in the loss.
    """

    complete: Completion
    free: Method
    weight: float = 0.0

    name: ClassVar[str] = "completed"
    summary: ClassVar[str] = "equalities by completion, another method for the free variables"

    def __post_init__(self) -> None:
        require_real("Completed", "weight", self.weight, least=0.0)

    def decide(self, raw: Tensor, set: ConstraintSet, step: int | None = None) -> Tensor:
        whole, k = Polyhedron.of(set), len(self.complete.dependent)
        d = whole.upper[..., -k:]
        rows = Polyhedron(whole.A[..., :-k, :], whole.lower[..., :-k], whole.upper[..., :-k])
        return self.complete(self.free.decide(raw, self.complete.reduce(rows, d), step), d)

    def penalty(self, raw: Tensor, y: Tensor, set: IntervalSet, step: int | None = None) -> Tensor:
        return squared_excess(self.weight, y, set)
