"""The two Riccati equations: gains, residuals to twice the working precision, and their derivative as an operator.

`F(P) = EᵀP A + AᵀP E + Q − Kᵀ R K` with `R K = BᵀP E + Nᵀ`, or `AᵀP A − EᵀP E + Q − Kᵀ R̃ K` with
`R̃ K = BᵀP A + Nᵀ`, `R̃ = R + BᵀP B`. Both are Lyapunov equations of the closed loop `A − B K` with the weight
`Q + KᵀR K − N K − KᵀNᵀ`, in which an error of `K` is of second order: this form is evaluated.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import ClassVar, NamedTuple, TypeVar

from torch import Tensor

from constrained_nn.solvers.equations.exact_products import sum_of_products, two_sum, unit_error
from constrained_nn.solvers.equations.matrices import (
    Array,
    identity,
    largest,
    namespace,
    norm,
    solve,
    symmetric,
)
from constrained_nn.solvers.equations.riccati.doubling import balancing, cayley_start, doubling
from constrained_nn.solvers.equations.sylvester import SylvesterOperator, sylvester_operator

EquationT = TypeVar("EquationT", bound="RiccatiEquation")


class Units(NamedTuple):
    """States `z` with `E x = diag(d) z`, and time in units of `1 / pace`: powers of two, so that nothing is rounded.

    Args:
        d: Units of the states `(*batch, n)`.
        pace: Unit of frequency `(*batch, 1, 1)`; `None` in discrete time.
    """

    d: Array
    pace: Array | None

    @property
    def outer(self) -> Array:
        """`P` in these units over `P` in the given ones."""
        return self.d[..., :, None] * self.d[..., None, :]

    def loop(self, A: Array) -> Array:
        """A closed loop or a system matrix."""
        A = A * self.d[..., None, :] / self.d[..., :, None]
        return A if self.pace is None else A / self.pace

    def equation(self, given: EquationT) -> EquationT:
        A, Q, R = self.loop(given.A), given.Q * self.outer, given.R
        if self.pace is not None:
            Q, R = Q / self.pace, R * self.pace
        B, N, E = given.B / self.d[..., :, None], given.N, given.E
        N = None if N is None else N * self.d[..., :, None]
        E = None if E is None else E * self.d[..., None, :] / self.d[..., :, None]
        return type(given)(A, B, Q, R, N, E)


@dataclass(frozen=True)
class RiccatiEquation(ABC):
    """A Riccati equation in float64, tensors or NumPy arrays of one batch shape; `Q` and `R` are symmetric.

    Args:
        A, B, Q, R: System, input, state weight, input weight.
        N: Cross weight, or `None` for 0.
        E: Descriptor matrix, or `None` for the identity.
    """

    A: Array
    B: Array
    Q: Array
    R: Array
    N: Array | None = None
    E: Array | None = None

    discrete: ClassVar[bool]

    @abstractmethod
    def gain(self, P: Array) -> Array:
        """`K` of the feedback that belongs to `P`."""

    @abstractmethod
    def terms(self, P: Array, K: Array) -> tuple[Array, ...]:
        """Terms whose sum is the residual, `K` the gain of `P`."""

    @abstractmethod
    def exact_residual(self, P: Array, K: Array) -> Array:
        """The residual of the given numbers, rounded once; `K` is the gain of `P`."""

    @abstractmethod
    def decrease(self, X: Array, closed: Array) -> Array:
        """By how much `(E x)ᵀ X (E x)` falls along `E ẋ = A x` or `E x⁺ = A x`, as the matrix of a quadratic form."""

    @abstractmethod
    def second_order(self, P: Array, closed: Array, D: Array) -> Array:
        """`F(P) + DF(P)[D] − F(P + D)` for small `D`, which is positive semidefinite."""

    @abstractmethod
    def sensitivity(self, P: Array, K: Array) -> Array:
        """The size that a relative change of the matrices gives to `F`, as a matrix; semidefinite where `P` is."""

    @abstractmethod
    def operator(self, closed: Tensor) -> SylvesterOperator:
        """Solves `DF(P)[X] = −C` of the equation with `E = I`."""

    @abstractmethod
    def doubled(self) -> tuple[Array, Array]:
        """Solution by structure-preserving doubling, and its steps."""

    def map(self: EquationT, function: Callable[[Array], Array]) -> EquationT:
        """The equation of other matrices."""
        given = (getattr(self, f.name) for f in fields(self))
        return type(self)(*(None if M is None else function(M) for M in given))

    def residual(self, P: Array) -> Array:
        """Sum of the terms."""
        first, *rest = self.terms(P, self.gain(P))
        return sum(rest, first)

    def closed_loop(self, K: Array) -> Array:
        return self.A - self.B @ K

    def times_E(self, M: Array) -> Array:
        return M if self.E is None else M @ self.E

    def standard(self: EquationT) -> EquationT:
        """The equation in `y = E x` without cross weight, by `u = v − R⁻¹ Nᵀ x`; it has the same solution."""
        A, Q = self.A, self.Q
        if self.N is not None:
            tilt = solve(self.R, self.N.mT)
            A, Q = A - self.B @ tilt, symmetric(Q - self.N @ tilt)
        if self.E is not None:
            A = solve(self.E.mT, A.mT).mT
            Q = symmetric(solve(self.E.mT, solve(self.E.mT, Q).mT))
        return type(self)(A, self.B, Q, self.R)

    def balanced(self: EquationT) -> tuple[EquationT, Units]:
        """The equation in units in which its matrices are of one size, and these units."""
        xp, fixed = namespace(self.A), self.standard()
        S, pace = fixed.spread(), None
        if not self.discrete:
            size = xp.maximum(largest(fixed.A), (largest(S) * largest(fixed.Q)) ** 0.5)
            size = xp.where(xp.isfinite(size) & (size > 0), size, 1.0)
            pace = xp.exp2(xp.round(xp.log2(size)))[..., None, None]
            fixed, S = replace(fixed, A=fixed.A / pace, Q=fixed.Q / pace), S / pace
        d = balancing(*(xp.where(xp.isfinite(M), M, 0.0) for M in (fixed.A, S, fixed.Q)))
        units = Units(d, pace)
        return units.equation(self), units

    def spread(self) -> Array:
        """`B R⁻¹ Bᵀ`, symmetric."""
        return symmetric(self.B @ solve(self.R, self.B.mT))

    def noise(self, P: Array, K: Array) -> Array:
        """A bound `(*batch)` of the error of `exact_residual`."""
        inner = 2 * self.A.shape[-1] + 3 * self.B.shape[-1]
        return unit_error(inner) * sum(norm(term) for term in self.terms(P, K))

    def plain_residual(self, P: Array, K: Array, closed: Array) -> tuple[Array, Array]:
        """The residual in working precision, and a bound `(*batch)` of its error."""
        KRK = K.mT @ (self.R @ K)
        total, size = self.Q + KRK, norm(self.Q) + norm(KRK)
        if self.N is not None:
            NK = self.N @ K
            total, size = total - (NK + NK.mT), size + 2.0 * norm(NK)
        system = (norm(self.A) + norm(self.B @ K)) * (1.0 if self.E is None else norm(self.E))
        size = size + 2.0 * norm(P) * system * (1.0 + norm(closed))
        noise = 2.0**-52 * math.sqrt(2 * self.A.shape[-1]) * size
        return symmetric(total - self.decrease(P, closed)), noise


@dataclass(frozen=True)
class ContinuousRiccati(RiccatiEquation):
    discrete = False

    def gain(self, P: Array) -> Array:
        right = self.B.mT @ self.times_E(P)
        return solve(self.R, right if self.N is None else right + self.N.mT)

    def terms(self, P: Array, K: Array) -> tuple[Array, ...]:
        PE = self.times_E(P)
        PA, PB = PE.mT @ self.A, PE.mT @ self.B
        return self.Q, PA, PA.mT, -((PB if self.N is None else PB + self.N) @ K)

    def exact_residual(self, P: Array, K: Array) -> Array:
        # M + Mᵀ + Q with M = Eᵀ P A + W K and W = Kᵀ R / 2 − Eᵀ P B − N
        PE = [P] if self.E is None else list(sum_of_products([(self.E.mT, P)]))
        W, low = sum_of_products([(0.5 * K.mT, self.R), *((-M, self.B) for M in PE)])
        if self.N is not None:
            W, error = two_sum(W, -self.N)
            low = low + error
        M, rest = sum_of_products([*((X, self.A) for X in PE), (W, K), (low, K)])
        twice, error = two_sum(M, M.mT)
        total, last = two_sum(self.Q, twice)
        return symmetric(total + (last + error + (rest + rest.mT)))

    def decrease(self, X: Array, closed: Array) -> Array:
        return -2.0 * symmetric(self.times_E(X).mT @ closed)

    def second_order(self, P: Array, closed: Array, D: Array) -> Array:
        DB = self.times_E(D).mT @ self.B
        return symmetric(DB @ solve(self.R, DB.mT))

    def sensitivity(self, P: Array, K: Array) -> Array:
        PE = P if self.E is None else self.E.mT @ P @ self.E
        input_part = symmetric(K.mT @ self.R @ K)
        return (
            norm(self.Q)[..., None, None] * unit(self) + 2.0 * norm(self.A)[..., None, None] * PE + input_part
        )

    def operator(self, closed: Tensor) -> SylvesterOperator:
        return sylvester_operator(closed.mT, closed, discrete=False)

    def doubled(self) -> tuple[Array, Array]:
        equation = self.standard()
        return doubling(*cayley_start(equation.A, equation.spread(), equation.Q))


@dataclass(frozen=True)
class DiscreteRiccati(RiccatiEquation):
    discrete = True

    def weight(self, P: Array) -> Array:
        """`R + Bᵀ P B`."""
        return self.R + self.B.mT @ P @ self.B

    def gain(self, P: Array) -> Array:
        right = self.B.mT @ P @ self.A
        return solve(self.weight(P), right if self.N is None else right + self.N.mT)

    def terms(self, P: Array, K: Array) -> tuple[Array, ...]:
        PA = P @ self.A
        right = PA.mT @ self.B
        inner = P if self.E is None else self.E.mT @ P @ self.E
        return self.Q, -inner, self.A.mT @ PA, -((right if self.N is None else right + self.N) @ K)

    def exact_residual(self, P: Array, K: Array) -> Array:
        # CᵀP C − EᵀP E + Q + Kᵀ(R K) − N K − KᵀNᵀ with C = A − B K to twice the precision
        C, low = sum_of_products([(-self.B, K)])
        C, error = two_sum(C, self.A)
        low = low + error
        PC, PC_low = sum_of_products([(P, C), (P, low)])
        RK, RK_low = sum_of_products([(self.R, K)])
        pairs = [(C.mT, PC), (C.mT, PC_low), (low.mT, PC), (K.mT, RK), (K.mT, RK_low)]
        if self.N is not None:
            pairs += [(-self.N, K), (-K.mT, self.N.mT)]
        minus, lost = P, 0.0
        if self.E is not None:
            PE, PE_low = sum_of_products([(P, self.E)])
            minus, lost = sum_of_products([(self.E.mT, PE), (self.E.mT, PE_low)])
        M, rest = sum_of_products(pairs)
        base, error = two_sum(self.Q, -minus)
        total, last = two_sum(base, M)
        return symmetric(total + (last + error + (rest - lost)))

    def decrease(self, X: Array, closed: Array) -> Array:
        kept = X if self.E is None else self.E.mT @ X @ self.E
        return symmetric(kept - closed.mT @ X @ closed)

    def second_order(self, P: Array, closed: Array, D: Array) -> Array:
        DB = closed.mT @ D @ self.B
        return symmetric(DB @ solve(self.weight(P), DB.mT))

    def sensitivity(self, P: Array, K: Array) -> Array:
        next_part = symmetric(self.A.mT @ P @ self.A + K.mT @ self.R @ K)
        return norm(self.Q)[..., None, None] * unit(self) + 2.0 * next_part

    def operator(self, closed: Tensor) -> SylvesterOperator:
        return sylvester_operator(closed.mT, closed, discrete=True)

    def doubled(self) -> tuple[Array, Array]:
        equation = self.standard()
        return doubling(equation.A, equation.spread(), equation.Q)


def with_derivatives(equation: RiccatiEquation, P: Tensor) -> Tensor:
    """`P` as a function of the matrices: two Newton steps with a constant derivative, each of which adds an order to
    the derivatives that come out right, in plain operations."""
    fixed = equation.map(Tensor.detach)
    closed, left = fixed.closed_loop(fixed.gain(P)), None
    if fixed.E is not None:
        left = solve(fixed.E.mT, unit(fixed))  # E⁻ᵀ
        closed = closed @ left.mT
    operator = fixed.operator(closed)
    for _ in range(2):
        right = equation.residual(P)
        P = symmetric(P + operator.solve(right if left is None else left @ right @ left.mT))
    return P


def unit(equation: RiccatiEquation) -> Array:
    """Unit matrices of the size of the equation `(*batch, n, n)`."""
    return identity(equation.A.shape[-1], equation.A) + 0.0 * equation.A
