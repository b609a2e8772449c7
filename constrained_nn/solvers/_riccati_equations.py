"""The two Riccati equations, and the search for their stabilizing solutions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from constrained_nn._linalg import branchless
from constrained_nn.solvers._doubling import balancing, cayley_start, doubling
from constrained_nn.solvers._matrix_equations import (
    all_finite,
    identity,
    norm,
    relative_residual,
    symmetric,
    tracked,
)
from constrained_nn.solvers._sylvester import SylvesterOperator, sylvester_operator

# Newton steps that polish a result of doubling, and those that a poor start may take.
_POLISH, _NEWTON = 3, 40


@dataclass(frozen=True)
class RiccatiEquation(ABC):
    """A Riccati equation without cross weight, in float64 and of one batch shape; `Q` and `R` are symmetric."""

    A: Tensor
    B: Tensor
    Q: Tensor
    R: Tensor

    @abstractmethod
    def gain(self, P: Tensor) -> Tensor:
        """`K` of the feedback that belongs to `P`."""

    @abstractmethod
    def terms(self, P: Tensor) -> tuple[Tensor, ...]:
        """Terms whose sum is the residual."""

    @abstractmethod
    def operator(self, P: Tensor) -> SylvesterOperator:
        """Solves for the Newton step of a residual: `D F(P)[X] = −residual`."""

    @abstractmethod
    def margin(self, closed_loop: Tensor) -> tuple[Tensor, Tensor]:
        """Distance of the eigenvalues to the boundary of stability, and its rounding error."""

    @abstractmethod
    def doubled(self) -> tuple[Tensor, Tensor]:
        """Solution by structure-preserving doubling, and its steps."""

    def map(self, function: Callable[[Tensor], Tensor]) -> RiccatiEquation:
        """The equation of other matrices."""
        return type(self)(*(function(getattr(self, f.name)) for f in fields(self)))

    def residual(self, P: Tensor) -> Tensor:
        """Sum of the terms."""
        first, *rest = self.terms(P)
        return sum(rest, first)

    def closed_loop(self, P: Tensor) -> Tensor:
        return self.A - self.B @ self.gain(P)

    def balanced(self) -> tuple[RiccatiEquation, Tensor]:
        """The equation in states `z` with `x = diag(d) z`, and `d`, constant powers of two."""
        fixed = self.map(Tensor.detach)
        d = balancing(fixed.A, _product(fixed.B, fixed.R), fixed.Q)
        A, B = self.A * d.unsqueeze(-2) / d.unsqueeze(-1), self.B / d.unsqueeze(-1)
        return type(self)(A, B, self.Q * d.unsqueeze(-2) * d.unsqueeze(-1), self.R), d

    def newton(self, P: Tensor) -> Tensor:
        return symmetric(P + self.operator(P).solve(self.residual(P)))


@dataclass(frozen=True)
class ContinuousRiccati(RiccatiEquation):
    def gain(self, P: Tensor) -> Tensor:
        return torch.linalg.solve_ex(self.R, self.B.mT @ P)[0]

    def terms(self, P: Tensor) -> tuple[Tensor, ...]:
        PA = P @ self.A
        return self.Q, PA, PA.mT, -(P @ self.B @ self.gain(P))

    def operator(self, P: Tensor) -> SylvesterOperator:
        closed = self.closed_loop(P)
        return sylvester_operator(closed.mT, closed, discrete=False)

    def margin(self, closed_loop: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.linalg.eigvals(closed_loop).real.amax(-1), norm(closed_loop)

    def doubled(self) -> tuple[Tensor, Tensor]:
        return doubling(*cayley_start(self.A, _product(self.B, self.R), self.Q))


@dataclass(frozen=True)
class DiscreteRiccati(RiccatiEquation):
    def gain(self, P: Tensor) -> Tensor:
        PB = P @ self.B
        return torch.linalg.solve_ex(self.R + self.B.mT @ PB, PB.mT @ self.A)[0]

    def terms(self, P: Tensor) -> tuple[Tensor, ...]:
        PA = P @ self.A
        return self.Q, -P, self.A.mT @ PA, -(PA.mT @ self.B @ self.gain(P))

    def operator(self, P: Tensor) -> SylvesterOperator:
        closed = self.closed_loop(P)
        return sylvester_operator(closed.mT, closed, discrete=True)

    def margin(self, closed_loop: Tensor) -> tuple[Tensor, Tensor]:
        return 1.0 - torch.linalg.eigvals(closed_loop).abs().amax(-1), torch.ones_like(closed_loop[..., 0, 0])

    def doubled(self) -> tuple[Tensor, Tensor]:
        return doubling(self.A, _product(self.B, self.R), self.Q)


def _product(B: Tensor, R: Tensor) -> Tensor:
    """`B R⁻¹ Bᵀ`, symmetric."""
    return symmetric(B @ torch.linalg.solve_ex(R, B.mT)[0])


class Found(NamedTuple):
    """A candidate with its verdict."""

    P: Tensor
    steps: Tensor
    residual: Tensor
    margin: Tensor
    stable: Tensor

    def ok(self, rtol: float) -> Tensor:
        return self.stable & (self.residual <= rtol)

    def improved(self, index: Tensor, other: Found) -> Found:
        """With the elements of `other` at `index` where they are better; steps add up."""
        old = Found(*(t[index] for t in self))
        better = other.stable & (~old.stable | (other.residual < old.residual))
        steps = other.steps + old.steps
        mixed = [
            torch.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b)
            for a, b in zip(other, old, strict=True)
        ]
        mixed[1] = steps
        return Found(*(t.index_copy(0, index, new) for t, new in zip(self, mixed, strict=True)))


def _judged(equation: RiccatiEquation, P: Tensor, steps: Tensor) -> Found:
    """Residual and stability of a candidate; a lost one (NaN) is unstable."""
    finite = all_finite(P)
    P = torch.where(finite[..., None, None], P, 0.0)
    residual = torch.where(finite, relative_residual(*equation.terms(P)), torch.inf)
    closed = equation.closed_loop(P)
    finite = finite & all_finite(closed)
    margin, scale = equation.margin(torch.where(finite[..., None, None], closed, 0.0))
    rounding = 10 * P.shape[-1] * torch.finfo(P.dtype).eps * scale
    return Found(P, steps, residual, torch.where(finite, margin, -torch.inf), finite & (margin > rounding))


def _by_doubling(equation: RiccatiEquation, rtol: float) -> Found:
    P, steps = equation.doubled()
    if branchless(P):
        lost = ~all_finite(P)[..., None, None]
        P = torch.where(lost, torch.nan, equation.newton(torch.where(lost, 0.0, P)))
        return _judged(equation, P, steps + 1)
    found = _judged(equation, P, steps)
    for _ in range(_POLISH):
        index = (found.stable & (found.residual > 1e-2 * rtol)).nonzero(as_tuple=True)[0]
        if not len(index):
            break
        part = equation.map(lambda M: M[index])  # noqa: B023
        one = torch.ones(len(index), dtype=torch.int32, device=P.device)
        found = found.improved(index, _judged(part, part.newton(found.P[index]), one))
    return found


def _by_newton(equation: RiccatiEquation, start: Tensor, rtol: float) -> Found:
    """Kleinman's iteration: quadratic, and from a stabilizing start it stays stabilizing."""
    P = start.clone()
    steps = torch.zeros(len(P), dtype=torch.int32, device=P.device)
    for k in range(_NEWTON):
        residual = relative_residual(*equation.terms(P))
        index = ((residual > 1e-2 * rtol) & (residual < torch.inf)).nonzero(as_tuple=True)[0]
        if not len(index):
            break
        P[index] = equation.map(lambda M: M[index]).newton(P[index])  # noqa: B023
        steps[index] = k + 1
    return _judged(equation, P, steps)


def _by_heavier_weight(equation: RiccatiEquation, rtol: float) -> Found:
    """Newton from the solution with all states weighted, for modes that do not enter the cost."""
    weight = norm(equation.Q) + norm(equation.R) + 1.0
    heavier = replace(
        equation, Q=equation.Q + weight[..., None, None] * identity(equation.A.shape[-1], equation.A)
    )
    start = _by_doubling(heavier, rtol)
    found = _by_newton(equation, start.P, rtol)
    return found._replace(steps=found.steps + start.steps, stable=found.stable & start.stable)


def search(equation: RiccatiEquation, start: Tensor | None, rtol: float) -> Found:
    """The stabilizing solution, by the cheapest way that leads there; while tracing, by doubling alone."""
    if branchless(equation.A):
        return _by_doubling(equation, rtol)
    attempts: list[Callable[[RiccatiEquation, float], Found]] = [_by_heavier_weight]
    if start is None:
        found = _by_doubling(equation, rtol)
    else:
        found = _by_newton(equation, start, rtol)
        attempts.insert(0, _by_doubling)
    for attempt in attempts:
        index = (~found.ok(rtol)).nonzero(as_tuple=True)[0]
        if not len(index):
            break
        found = found.improved(index, attempt(equation.map(lambda M: M[index]), rtol))  # noqa: B023
    return found


def with_derivatives(equation: RiccatiEquation, P: Tensor, solved: Tensor) -> Tensor:
    """`P` as a function of the matrices: two Newton steps with a constant derivative, each of which adds an order to
    the derivatives that come out right, in plain operations."""
    if not tracked(equation.A, equation.B, equation.Q, equation.R):
        return P
    keep = solved[..., None, None]
    X = torch.where(keep, P, 0.0)
    operator = equation.map(Tensor.detach).operator(X)
    for _ in range(2):
        X = symmetric(X + operator.solve(equation.residual(X)))
    return torch.where(keep, X, P)
