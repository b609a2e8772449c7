"""What `forward` does with elements that could not be enforced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from constrained_nn.errors import ConvergenceError, InfeasibleError
from constrained_nn.linalg import branchless
from constrained_nn.solvers import Solution, Status


@runtime_checkable
class FailurePolicy(Protocol):
    """Turns a `Solution` into the tensor that `forward` returns."""

    def __call__(self, solution: Solution, layer: str) -> Tensor: ...


@dataclass(frozen=True)
class Nan:
    """Failed elements become NaN, in value and not in the gradient of the others."""

    def __call__(self, solution: Solution, layer: str) -> Tensor:
        return torch.where(solution.ok.unsqueeze(-1), solution.value, torch.nan)


@dataclass(frozen=True)
class LeastViolation:
    """Failed elements keep their least-violation point; the layer counts them in `layer.counts`."""

    def __call__(self, solution: Solution, layer: str) -> Tensor:
        return solution.value


@dataclass(frozen=True)
class Raise:
    """Any failed element raises.

    Under `torch.compile`, `torch.export` and `torch.func` no value can be inspected: failed elements become
    NaN there, which fails closed.

    Raises:
        InfeasibleError: An element has no feasible point.
        ConvergenceError: An element failed for another reason.
    """

    def __call__(self, solution: Solution, layer: str) -> Tensor:
        if branchless(solution.value):
            return Nan()(solution, layer)
        if not solution.ok.all():
            infeasible = bool((solution.status == Status.INFEASIBLE).any())
            raise (InfeasibleError if infeasible else ConvergenceError)(
                f"{layer}: expected every element to be enforced, got {solution.describe_failures()} To go on "
                f"with flagged elements pass on_failure=LeastViolation() or Nan(), or call `solve`."
            )
        return solution.value
