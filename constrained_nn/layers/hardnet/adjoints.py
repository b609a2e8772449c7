"""How a result of Gauss-Newton steps is differentiated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from constrained_nn.solvers.gauss_newton import Outcome, at_solution, replay
from constrained_nn.solvers.gauss_newton import Retraced as _Retraced


@runtime_checkable
class Adjoint(Protocol):
    """Gives the result of an iteration its derivative in the start `y` and in the tensors of the set."""

    def __call__(
        self,
        build: Callable,
        outcome: Outcome,
        y: Tensor,
        tensors: Sequence[Tensor],
    ) -> Tensor: ...


@dataclass(frozen=True)
class Retraced:
    """The exact derivative of the map, going back along the way with one step's factorization at a time.

    It keeps the iterates, `n` numbers a step, and nothing else: less than the Jacobian of a single step.
    """

    def __call__(self, build, outcome, y, tensors) -> Tensor:
        return _Retraced.apply(outcome.y, build, outcome, y, *tensors)  # pyright: ignore


@dataclass(frozen=True)
class Taped:
    """The exact derivative of the map, every step on the tape of autograd: memory grows with the steps."""

    def __call__(self, build, outcome, y, tensors) -> Tensor:
        return replay(build, outcome, y, tensors)


@dataclass(frozen=True)
class Implicit:
    """The derivative of one undamped step from the solution, `dy = (I − J⁺J) dy₀ − J⁺ dc`, memory of one step.

    The map is not a projection and the solution does not determine it: every feasible point is a fixed point. This
    is the derivative of the map at the *solution* instead of at the start. It is exact for affine rows, exact in
    every direction across the constraints (where constraints move, the solution moves with them), and exact in the
    limit as the start approaches the set; along the constraints it takes the way as straight. It vanishes for the
    same loss gradients as the exact one. First derivatives only.
    """

    def __call__(self, build, outcome, y, tensors) -> Tensor:
        return at_solution(build, outcome, y, tensors)
