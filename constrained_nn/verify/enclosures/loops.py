"""Closed loops over boxes: decrease of a Lyapunov function, and the ball around the equilibrium that an LMI closes.

Three kinds of motion of a plant under `u = π(x)`:

    step         x⁺ = F(x, π(x)),  F the integrator's formula as a program;
    held         x⁺ = Φ(x, π(x)),  the solution of dx/dt = f(x, u) after the time h, u held; f as a program;
    continuous   dx/dt = f(x, π(x)),  V quadratic.

A solution is a Runge-Kutta step `F` and a remainder, `Φ ∈ F + δ`.

Outside the ellipsoid `E = {(x − c)ᵀ P (x − c) <= r}` every state with `V <= level` must have `V(x⁺) − V(x) <= −margin`,
or `dV/dt <= −margin`. Inside, with all Jacobians `J` of the loop over a box that contains `E`,

    step, held   ρ² P − Jᵀ P J ≻ 0,        ρ √r + ‖F(c) − c‖_P + ‖δ‖_P <= √r,
    continuous   −(Jᵀ P + P J) − 2 ρ P ≻ 0,   ‖f(c)‖_P <= ρ √r:

the loop maps `E` into itself. Without remainder it is a contraction in the norm of `P`, and every motion in `E` tends
to one equilibrium.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from flint import arb, arb_mat

from constrained_nn.verify.arithmetic import (
    Interpreter,
    Map,
    Vector,
    above,
    apply,
    below,
    enclose,
    interval,
    join,
    reach,
    rk4,
    rk4_error,
)
from constrained_nn.verify.cover import middle

MOST_PARTS = 12  # bisections of the box around E
LABELS = "oid?"  # of a leaf: V > level; inside E; decrease; open


@dataclass(frozen=True, eq=False)
class InnerEllipsoid:
    """`E`.

    Args:
        P: Its matrix `(n, n)`, symmetric.
        center: `c` `(n)`.
        radius: `r`, in the unit of `V`.
    """

    P: arb_mat
    center: tuple[float, ...]
    radius: float

    def value(self, x: Sequence[arb]) -> arb:
        """`(x − c)ᵀ P (x − c)` of balls."""
        e = arb_mat(len(x), 1, [v - c for v, c in zip(x, self.center, strict=True)])
        return (e.transpose() * (self.P * e)).entries()[0]

    def norm(self, e: Sequence[arb]) -> arb:
        """An upper bound of `√(eᵀ P e)` over balls; NaN where there is none."""
        largest = above(self.value([v + c for v, c in zip(e, self.center, strict=True)]))
        return arb(max(largest, 0.0)).sqrt()

    def contains(self, lower: Sequence[float], upper: Sequence[float]) -> bool:
        """Whether a box lies in `E`: it is convex, so that the corners decide."""
        corners = itertools.product(*zip(lower, upper, strict=True))
        return all(self.value([arb(v) for v in corner]) <= self.radius for corner in corners)

    def hull(self) -> tuple[list[float], list[float]] | None:
        """A box that contains `E`: half-widths `√(r (P⁻¹)ᵢᵢ)`."""
        try:
            inverse = self.P.inv()
        except ZeroDivisionError:
            return None
        widths = [(arb(self.radius) * inverse[i, i]).sqrt() for i in range(len(self.center))]
        if not all(w.is_finite() for w in widths):
            return None
        ends = [(below(c - w), above(c + w)) for c, w in zip(self.center, widths, strict=True)]
        return [a for a, _ in ends], [b for _, b in ends]


@dataclass(frozen=True, eq=False)
class Loop:
    """A plant under feedback with a Lyapunov function.

    Args:
        plant: Program `(x, u)`: of the next state for `step`, else of `dx/dt`.
        controller: Program `x -> u`.
        value: `V`.
        gradient: `∇V`, for `continuous` motion.
        motion: `step`, `held` or `continuous`.
        hold: `h` [s].
        level: Of `{V <= level}`.
        margin: By how much `V` decreases.
        lower: Lower ends of the domain `(n)`.
        upper: Upper ends.
        inner: `E`.
        factor: `ρ`.
    """

    plant: Interpreter
    controller: Interpreter
    value: Map
    gradient: Map | None
    motion: str
    hold: float
    level: float
    margin: float
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    inner: InnerEllipsoid
    factor: float

    def move(self, x: Vector) -> Vector:
        """`x⁺` (of `held` motion without its remainder), or `dx/dt`."""
        u = self.controller(x)
        return rk4(self.plant, x, u, self.hold) if self.motion == "held" else self.plant(join(x, u))

    @property
    def continuous(self) -> bool:
        return self.motion == "continuous"

    def remainder(self, lower: Sequence[float], upper: Sequence[float]) -> list[arb] | None:
        """`δ` of `held` motion over a box; None if the solutions are not proved to stay in the domain meanwhile."""
        x = Vector.box(lower, upper).values
        u = enclose(self.controller, lower, upper).values
        tube = reach(self.plant, x, u, self.hold)
        if tube is None or not self._in_domain(tube):
            return None
        return rk4_error(self.plant.program, x, tube, u, self.hold)

    def _in_domain(self, y: Sequence[arb]) -> bool:
        return all(a <= v and v <= b for a, v, b in zip(self.lower, y, self.upper, strict=True))

    def change(self, x: Vector) -> Vector:
        """`V(x⁺) − V(x)` or `dV/dt`, then what `move` gives."""
        y = self.move(x)
        if self.gradient is not None and self.continuous:
            return join(apply("sum", apply("mul", self.gradient(x), y)), y)
        return join(apply("sub", self.value(y), self.value(x)), y)

    def is_outside(self, lower: Sequence[float], upper: Sequence[float]) -> bool:
        """Whether `V > level` in all of a box."""
        return bool(enclose(self.value, lower, upper).values[0] > self.level)

    def bound_change(self, lower: Sequence[float], upper: Sequence[float]) -> tuple[float, bool, Vector]:
        """An upper bound of the change of `V` over a box; whether the motion stays in the domain; the enclosure."""
        found = enclose(self.change, lower, upper)
        change, y = found.values[0], found.values[1:]
        if self.motion != "held":
            return above(change), self._stays(y, lower, upper), found
        if not (change <= -self.margin and self._in_domain(y)):  # the remainder costs more than the rest
            return above(change), False, found
        error = self.remainder(lower, upper)
        if error is None:
            return float("inf"), False, found
        change = change + self._bound_shift(y, error)
        return above(change), self._in_domain([v + e for v, e in zip(y, error, strict=True)]), found

    def _bound_shift(self, y: Sequence[arb], error: Sequence[arb]) -> arb:
        """`V(y + δ) − V(y) ∈ ∇V · δ`, the gradient between the two."""
        n = range(len(y))
        between = [v + interval(0, 1) * e for v, e in zip(y, error, strict=True)]
        slopes = self.value(Vector(between, [[arb(i == j) for j in n] for i in n])).jacobian
        assert slopes is not None
        return sum((s * e for s, e in zip(slopes[0], error, strict=True)), arb(0))

    def _stays(self, y: Sequence[arb], lower: Sequence[float], upper: Sequence[float]) -> bool:
        """`x⁺` is in the domain; in continuous time `V > level` where the box meets the boundary of the domain."""
        if not self.continuous:
            return self._in_domain(y)
        for i in range(len(lower)):
            for end, edge in ((lower[i], self.lower[i]), (upper[i], self.upper[i])):
                face = [[*side[:i], edge, *side[i + 1 :]] for side in (list(lower), list(upper))]
                if end == edge and not self.is_outside(*face):
                    return False
        return True

    def proves(self, label: str, lower: Sequence[float], upper: Sequence[float]) -> float | None:
        """Whether a leaf has what its label says: the bound of the change (−inf if none is needed), or None."""
        if label == "o":
            return float("-inf") if self.is_outside(lower, upper) else None
        if label == "i":
            return float("-inf") if self.inner.contains(lower, upper) else None
        bound, stays, _ = self.bound_change(lower, upper)
        return bound if stays and bound <= -self.margin else None

    def closes(self) -> str | None:
        """What is missing for `E` to be contracted into itself, or None."""
        hull = self.inner.hull()
        if hull is None or not positive_definite(self.inner.P):
            return "the matrix of the inner ellipsoid is not proved positive definite"
        if not all(
            a < low and high < b for a, low, high, b in zip(self.lower, *hull, self.upper, strict=True)
        ):
            return "the inner ellipsoid is not inside the domain"
        if not self._contracts(*hull):
            return "the linearization is not proved a contraction over the inner ellipsoid"
        center = [arb(c) for c in self.inner.center]
        at_center = self.move(Vector(center)).values
        factor = arb(self.factor)
        rest = at_center if self.continuous else [y - c for y, c in zip(at_center, center, strict=True)]
        drift = self.inner.norm(rest)
        if self.motion == "held":
            error = self.remainder(*hull)
            if error is None:
                return "the solutions from the inner ellipsoid are not enclosed"
            drift = drift + self.inner.norm(error)
        root = arb(self.inner.radius).sqrt()
        enough = drift <= factor * root if self.continuous else factor * root + drift <= root
        return None if enough else "the inner ellipsoid is not proved to be mapped into itself"

    def _contracts(self, lower: Sequence[float], upper: Sequence[float]) -> bool:
        """Whether the linear inequality holds for all Jacobians over a box, by parts, wherever it meets `E`.

        The matrices that satisfy it form a convex set, to which every mean of Jacobians along a segment in `E`
        belongs as well, whatever parts the segment crosses.
        """
        n, P, factor = len(lower), self.inner.P, arb(self.factor)
        stack = [(list(lower), list(upper), 0)]
        while stack:
            low, high, depth = stack.pop()
            part = Vector.box(low, high)
            if self.inner.value(part.values) > self.inner.radius:
                continue
            J = arb_mat(n, n, [d for row in self.move(part).jacobian or [] for d in row])
            if self.continuous:
                gap = -(J.transpose() * P + P * J) - 2 * factor * P
            else:
                gap = factor * factor * P - J.transpose() * (P * J)
            if positive_definite(gap):
                continue
            if depth == MOST_PARTS:
                return False
            axis = depth % n
            cut = middle(low[axis], high[axis])
            stack.append((low, [*high[:axis], cut, *high[axis + 1 :]], depth + 1))
            stack.append(([*low[:axis], cut, *low[axis + 1 :]], high, depth + 1))
        return True

    def fails_at(self, x: Sequence[float]) -> arb | None:
        """The change of `V` at a state of the domain with `V <= level`, outside `E`, if it is above `−margin`."""
        if not self.is_about(x):
            return None
        found = self.change(Vector.constant(x)).values
        change = found[0]
        if self.motion == "held":
            error = self.remainder(x, x)
            if error is None:
                return None
            change = change + self._bound_shift(found[1:], error)
        return change if change > -self.margin else None

    def is_about(self, x: Sequence[float]) -> bool:
        """Whether a state is proved to be in the domain and outside `E`, with `V <= level`."""
        point = Vector.constant(x)
        inside = all(a <= v <= b for a, v, b in zip(self.lower, x, self.upper, strict=True))
        return (
            inside
            and bool(self.value(point).values[0] <= self.level)
            and bool(self.inner.value(point.values) > self.inner.radius)
        )


def positive_definite(M: arb_mat) -> bool:
    """Whether every symmetric matrix in a matrix of balls is positive definite: all pivots of `L D Lᵀ` are positive."""
    n = M.nrows()
    A = [[M[i, j] + M[j, i] for j in range(n)] for i in range(n)]
    for i in range(n):
        if not A[i][i] > 0:
            return False
        for j in range(i + 1, n):
            factor = A[j][i] / A[i][i]
            for k in range(i + 1, j + 1):
                A[j][k] = A[k][j] = A[j][k] - factor * A[k][i]
    return True


def quadratic(P: arb_mat, center: Sequence[float]) -> tuple[Map, Map]:
    """`V(x) = (x − c)ᵀ P (x − c)` and its gradient `2 P (x − c)`."""
    n = len(center)
    point = Vector.constant(center)
    rows = [[P[i, j] for j in range(n)] for i in range(n)]

    def times(e: Vector) -> Vector:
        parts = [apply("sum", apply("mul", Vector(row), e)) for row in rows]
        return join(*parts)

    def value(x: Vector) -> Vector:
        e = apply("sub", x, point)
        return apply("sum", apply("mul", e, times(e)))

    def gradient(x: Vector) -> Vector:
        return apply("mul", Vector([arb(2)]), times(apply("sub", x, point)))

    return value, gradient
