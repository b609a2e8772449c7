"""Solutions of a differential equation under a held input: the Runge-Kutta step, and how far it is from the solution.

The classical formula `R(h)` has order 4: its first derivatives in `h` at 0, up to the fourth, are those of the solution
`Φ(h)`. By Taylor's theorem, in each component,

    Φ(h) − R(h) = h⁵ (Φ⁽⁵⁾(σ) − R⁽⁵⁾(τ)) / 5!,    0 <= σ, τ <= h.

`Φ⁽⁵⁾ / 5!` is a Taylor coefficient of the solution that starts from a point which the solution passes; `R⁽⁵⁾ / 5!` is
one of the formula as a function of `h`. Both are enclosed by power series of balls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flint import arb

from constrained_nn.verify.arithmetic.balls import interval, widen
from constrained_nn.verify.arithmetic.jets import Jet, order, run, solution
from constrained_nn.verify.arithmetic.program import Program
from constrained_nn.verify.arithmetic.vectors import Interpreter, Vector, apply, join

_TRIES = 12  # of a guess that contains all solutions
_ORDER = 4


def rk4(f: Interpreter, x: Vector, u: Vector, h: float) -> Vector:
    """One step of the classical Runge-Kutta formula for `dx/dt = f(x, u)`, `u` held."""

    def moved(direction: Vector, length: arb) -> Vector:
        return apply("add", x, apply("mul", Vector([length]), direction))

    def slope(at: Vector) -> Vector:
        return f(join(at, u))

    step, two = arb(h), Vector([arb(2)])
    k1 = slope(x)
    k2 = slope(moved(k1, step / 2))
    k3 = slope(moved(k2, step / 2))
    k4 = slope(moved(k3, step))
    total = apply("add", apply("add", k1, k4), apply("mul", two, apply("add", k2, k3)))
    return moved(total, step / 6)


def reach(f: Interpreter, x: Sequence[arb], u: Sequence[arb], h: float) -> list[arb] | None:
    """As `enclose_solutions`, for `dx/dt = f(x, u)` with `u` held."""
    held = Vector(list(u))
    return enclose_solutions(
        lambda states: f(join(Vector(states), held)).values, x, h, share=0.1, least=1e-12
    )


def enclose_solutions(
    field: Callable[[list[arb]], Sequence[arb]], x: Sequence[arb], h: float, *, share: float, least: float
) -> list[arb] | None:
    """Balls that contain all solutions from `x` for all times in `[0, h]`; None if none are found.

    If `x + [0, h] f(B)` lies in `B`, no solution leaves `B` before `h`, by Picard's iteration. The image lies in `B`
    then, and contains all solutions as well.

    Args:
        field: `f`, that is `dx/dt` over balls of states.
        x: States, balls.
        h: The time.
        share: By which a guess is widened, of its radius,
        least: and in any case.
    """
    span = interval(0.0, h)

    def move(states: list[arb]) -> list[arb]:
        return [a + span * d for a, d in zip(x, field(states), strict=True)]

    guess = move(list(x))
    for _ in range(_TRIES):
        if not all(g.is_finite() for g in guess):
            return None
        guess = [widen(g, share, least) for g in guess]
        image = move(guess)
        if all(g.contains(v) for g, v in zip(guess, image, strict=True)):
            return image
        guess = [g.union(v) for g, v in zip(guess, image, strict=True)]
    return None


def rk4_error(f: Program, x: Sequence[arb], tube: Sequence[arb], u: Sequence[arb], h: float) -> list[arb]:
    """Balls that contain `Φ(h) − R(h)` for all states in `x`; not finite where `f` has a kink.

    Args:
        f: Program `(x, u) -> dx/dt`.
        x: States, balls.
        tube: What `reach` found for them.
        u: The held input, balls.
        h: The step.
    """
    with order(_ORDER + 2):
        true = [jet.coefficient(_ORDER + 1) for jet in solution(f, tube, u, _ORDER + 1, None)]
        formula = [jet.coefficient(_ORDER + 1) for jet in _rk4_series(f, x, u, h)]
    return [arb(h) ** (_ORDER + 1) * (a - b) for a, b in zip(true, formula, strict=True)]


def _rk4_series(f: Program, x: Sequence[arb], u: Sequence[arb], h: float) -> list[Jet]:
    """The formula as a power series in its step, about every step in `[0, h]`."""
    step = Jet.of([interval(0.0, h), arb(1)])
    start, held = [Jet.of([v]) for v in x], [Jet.of([v]) for v in u]

    def moved(direction: list[Jet], share: arb) -> list[Jet]:
        length = step * Jet.of([share])
        return [a + length * d for a, d in zip(start, direction, strict=True)]

    half, two = arb(1) / 2, Jet.of([arb(2)])
    k1 = run(f, [*start, *held])
    k2 = run(f, [*moved(k1, half), *held])
    k3 = run(f, [*moved(k2, half), *held])
    k4 = run(f, [*moved(k3, arb(1)), *held])
    total = [a + d + two * (b + c) for a, b, c, d in zip(k1, k2, k3, k4, strict=True)]
    return moved(total, arb(1) / 6)
