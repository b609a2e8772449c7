"""Rows `lower <= c(y) <= upper` of a flat batch, with bounds on the variables, and the units of the rows."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from constrained_nn.linalg import nearest_between
from constrained_nn.solvers.gauss_newton.linearized import Linearized

# Units of rows are powers of two, kept as exponents in a byte; this one means "not in the step".
OFF = -128
_LARGEST_EXPONENT = 120


@runtime_checkable
class Problem(Protocol):
    """Rows of a flat batch; `box` are bounds on the variables themselves, `None` if there are none."""

    lower: Tensor
    upper: Tensor
    box: tuple[Tensor, Tensor] | None

    def value(self, y: Float[Tensor, "batch n"]) -> Float[Tensor, "batch m"]: ...

    def jacobian(self, y: Float[Tensor, "batch n"]) -> Float[Tensor, "batch m n"]: ...

    def linearize(self, y: Float[Tensor, "batch n"]) -> Linearized: ...

    def allowance(self, y: Float[Tensor, "batch n"]) -> Float[Tensor, "batch m"]:
        """What rounding adds to each row at `y`."""
        ...

    def pick(self, index: Int[Tensor, " few"]) -> Problem: ...


def residual_of(problem: Problem, value: Float[Tensor, "batch m"]) -> Float[Tensor, "batch m"]:
    """Signed distance of each row to its interval."""
    return value - nearest_between(value, problem.lower, problem.upper)


def plain_residual(problem: Problem, value: Float[Tensor, "batch m"]) -> Float[Tensor, "batch m"]:
    """`residual_of` where nobody differentiates it."""
    return value - torch.clamp(value, problem.lower, problem.upper)


def equality_of(problem: Problem, like: Tensor) -> Bool[Tensor, "batch m"]:
    """Rows without room."""
    return (problem.lower == problem.upper).expand_as(like)


def into_box(problem: Problem, y: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """`y` within the bounds of the variables, with the derivative of the side that holds."""
    return y if problem.box is None else nearest_between(y, *problem.box)


def row_exponents(
    linear: Linearized, residual: Float[Tensor, "batch m"], y: Float[Tensor, "batch n"]
) -> Int[Tensor, "batch m"]:
    """Units of the rows as exponents of two: the length of the gradient, or `|r| / (1 + |y|)` where that is larger.

    In these units a residual is the distance to the row in first order, at most `1 + |y|`, whatever the row was
    written in. A power of two scales without rounding and has no derivative.
    """
    reach = 1.0 + torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    size = torch.maximum(linear.squares().sqrt(), residual.abs() / reach)
    known = (size > 0) & (size < torch.inf)
    exponent = torch.log2(torch.where(known, size, 1.0)).round()
    return exponent.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT).to(torch.int8)


def weights(rows: Int[Tensor, "batch m"], dtype: torch.dtype) -> Float[Tensor, "batch m"]:
    """One over the unit of each row, and zero for rows that are not in the step."""
    return torch.where(rows == OFF, 0.0, torch.exp2(-rows.to(dtype)))
