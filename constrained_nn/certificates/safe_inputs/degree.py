"""Relative degree of a constraint: how often it is differentiated before the input shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Function = Callable[[Any, Tensor, Tensor], Tensor]

# Shares of the typical size below which a number counts as nothing, and as little.
NOTHING, LITTLE = 1e-9, 1e-2
BISECTIONS = 50


class DegreeError(ValueError):
    """A constraint that rows in the input cannot keep; the message says why and what to do."""


@dataclass(frozen=True)
class Judgement:
    """What was found about one constraint.

    Args:
        degree: Relative degree, 0, 1 or 2.
        boundary: Number of states on `g = 0` that were found, on which this rests.
        fades: Share of them on which the inputs do next to nothing about it, though it is approached.
    """

    degree: int
    boundary: int
    fades: float


def judge(
    name: str, g: Function, derivative: Function, states: Tensor, low: Tensor, high: Tensor
) -> Judgement:
    """Relative degree of `g(t, x, u) <= 0` at time 0, from states with `g < 0` and `g > 0`.

    States on the boundary are found by bisection between the two kinds. Where `states` holds no
    state with `g > 0`, the degree is judged on all of them.

    Args:
        name: Name of the constraint, for messages.
        g: The constraint.
        derivative: `dx/dt`, a function `(t, x, u)`.
        states: States `(count, n)` in float64.
        low: Lower input limits `(m,)`.
        high: Upper input limits `(m,)`.

    Raises:
        DegreeError: `g` is not finite, its gradient vanishes on the boundary, or its relative degree
            is above 2 or differs between states of the boundary.
    """
    center, half = 0.5 * (low + high), 0.5 * (high - low)
    x = _on_boundary(g, states, center)
    boundary = len(x)
    x = x if boundary else states
    values = g(0.0, x, center.expand(len(x), -1))
    if not bool(values.isfinite().all()):
        raise DegreeError(
            f"constraint '{name}': expected finite values in the region of states, got "
            f"{float(values[~values.isfinite()][0])}. Write it without division by zero there."
        )
    slope = torch.func.vmap(torch.func.grad(lambda x, u: g(0.0, x, u)))(x, center.expand(len(x), -1))
    length = torch.linalg.vector_norm(slope, dim=-1)
    if boundary and bool((length <= NOTHING * length.amax()).any()):
        where = x[length.argmin()].tolist()
        raise DegreeError(
            f"constraint '{name}': expected a gradient on the boundary, got none at "
            f"x = {[round(v, 3) for v in where]}. Write g so that it changes its sign there, such as "
            f"a distance and not its square."
        )

    def rate(function: Function) -> Function:
        def along(t: Any, x: Tensor, u: Tensor) -> Tensor:
            flow = derivative(t, x, u)
            return torch.func.jvp(lambda x: function(t, x, u), (x,), (flow,))[1]

        return along

    functions = [g, rate(g), rate(rate(g))]
    for degree, function in enumerate(functions):
        effect = _effect(function, x, center, half)
        if bool((effect > NOTHING * _size(function, x, center)).any()):
            return _judge_spread(name, degree, effect, functions, x, center, half, boundary)
    raise DegreeError(
        f"constraint '{name}': expected a relative degree of at most 2, got more: no input shows in "
        f"its second derivative. Constrain a quantity that the inputs reach sooner, such as an angle "
        f"or a speed, or leave it out of training and watch it in the evaluation."
    )


def _judge_spread(
    name: str,
    degree: int,
    effect: Tensor,
    functions: list[Function],
    x: Tensor,
    center: Tensor,
    half: Tensor,
    boundary: int,
) -> Judgement:
    """The judgement, or an error where some states of the boundary have a higher degree than others."""
    typical = effect.median()
    none = effect <= NOTHING * typical.clamp_min(effect.amax() * NOTHING)
    if boundary and bool(none.any()) and degree < 2:
        # where the inputs do nothing in this derivative, do they in the next?
        raise DegreeError(
            f"constraint '{name}': expected one relative degree, got {degree} on most of the boundary "
            f"and more at x = {[round(v, 3) for v in x[none][0].tolist()]}. Split the constraint, or "
            f"restrict the region of states (state_low, state_high)."
        )
    fades = 0.0
    if degree and boundary:
        approach = functions[1](0.0, x, center.expand(len(x), -1)) > 0 if degree == 2 else effect > -1
        weak = (effect < LITTLE * typical) & approach
        fades = float(weak.double().mean())
    return Judgement(degree, boundary, fades)


def _effect(function: Function, x: Tensor, center: Tensor, half: Tensor) -> Tensor:
    """How much each input alone, moved over its limits, changes a function, summed `(count,)`."""
    total = x.new_zeros(len(x))
    for j in range(len(center)):
        step = torch.zeros_like(center)
        step[j] = half[j]
        ends = [function(0.0, x, (center + s * step).expand(len(x), -1)) for s in (-1.0, 1.0)]
        total = total + (ends[1] - ends[0]).abs()
    return total


def _size(function: Function, x: Tensor, center: Tensor) -> Tensor:
    value = function(0.0, x, center.expand(len(x), -1)).abs()
    return value.amax().clamp_min(torch.finfo(x.dtype).tiny)


def _on_boundary(g: Function, states: Tensor, center: Tensor) -> Tensor:
    """States with `g = 0` between those of both signs; none where one sign is missing."""
    values = g(0.0, states, center.expand(len(states), -1))
    safe, unsafe = states[values < 0], states[values > 0]
    count = min(len(safe), len(unsafe))
    if not count:
        return states[:0]
    inside, outside = safe[:count].clone(), unsafe[:count].clone()
    for _ in range(BISECTIONS):
        middle = 0.5 * (inside + outside)
        bad = (g(0.0, middle, center.expand(count, -1)) > 0).unsqueeze(-1)
        inside, outside = torch.where(bad, inside, middle), torch.where(bad, middle, outside)
    return inside
