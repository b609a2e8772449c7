"""Rows that keep the constraints of a task at its next samples, from the integrator of the task itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.certificates.safe_inputs.compromise import relax_in_order
from constrained_nn.certificates.safe_inputs.limited import limit_rows
from constrained_nn.linalg import without_autocast
from constrained_nn.sets import Box, Polyhedron

# A layer meets a row to this share of the size of its terms; rows ask for so much more.
RTOL = 1e-9
# From this many inputs on, the corners of the box are too many; then each input is moved alone.
MOST_CORNERS = 4
# Room for what one input at a time does not show: how two inputs act together.
JOINTLY = 1.5

Function = Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Requirement:
    """A constraint `g(t, x, u) <= 0` and how it is kept.

    Args:
        name: Its name, and what counts of conflicts are reported under.
        g: Function `(t, x, u) -> (*batch)`.
        gains: Decay rates [1/s], one for each order in which the input acts on `g`: none where `g`
            depends on the input itself, one where its derivative does, two where its second
            derivative does.
    """

    name: str
    g: Function
    gains: tuple[float, ...] = ()

    @property
    def degree(self) -> int:
        """Relative degree: how often `g` is differentiated in time before the input shows."""
        return len(self.gains)


class SafeInputs:
    """Inputs that keep the constraints of a sampled task at its samples, within the input limits.

    With `x⁺ = advance(t, x, u)`, the state one sample later, an input is asked for

    `g(t, x, u) <= 0`                                      (degree 0),
    `g(t⁺, x⁺) <= (1 − alpha dt) g(t, x)`                  (degree 1),
    `s(t⁺, x⁺) <= (1 − alpha dt) s(t, x)`                  (degree 2), with
    `s(t, x) = max_v g(t⁺, advance(t, x, v)) − (1 − kappa dt) g(t, x)`,

    where `v` runs over the input limits: `s <= 0` means that no input of the next sample can undo
    `g(t⁺, x⁺) <= (1 − kappa dt) g(t, x)`. Each becomes a row `a·u <= b`: the plane through its values
    at the corners of the input limits, raised by the most that a corner or the center lies above it.

    Guarantee: at the samples of a simulation by `advance`, `g <= 0` stays true once it is (degree 1;
    degree 2: once `s <= 0` is true as well) while inputs are taken from `condition(t, x)` and the
    set is not empty, up to how far `g(t⁺, advance(t, x, u))` rises above its plane between corners
    and center of the limits (nothing where it is affine or convex in `u`). Nothing is claimed
    between samples, and nothing under a disturbance.

    Args:
        requirements: The constraints, the most important first.
        advance: State one sample later `(t, x, u) -> x`, with the input held.
        dt: Time between samples [s].
        low: Lower limits of the input `(m,)`, finite.
        high: Upper limits `(m,)`, finite.

    Returns:
        `condition(t, x)`: the set of safe inputs; a `Box` for a single input, else a `Polyhedron`.

    Raises:
        ValueError: A limit is not finite or the limits are crossed, or a gain is not in `(0, 1/dt]`.

    Example:
        >>> import torch
        >>> wall = Requirement("wall", lambda t, x, u: x[..., 0] - 1.0, gains=(5.0,))
        >>> one = torch.ones(1).double()
        >>> safe = SafeInputs([wall], lambda t, x, u: x + 0.1 * u, dt=0.1, low=-one, high=one)
        >>> safe.condition(0.0, torch.tensor([0.9]).double()).upper  # half of the way that is left
        tensor([0.5000], dtype=torch.float64)

    References:
        Agrawal, Sreenath, Discrete control barrier functions (RSS 2017), Eq. 6, for degree 1;
        Xiong et al., Discrete-time control barrier function of high relative degree (2022).
    """

    def __init__(
        self,
        requirements: Sequence[Requirement],
        advance: Function,
        *,
        dt: float,
        low: Float[Tensor, " m"],
        high: Float[Tensor, " m"],
    ) -> None:
        self.requirements = tuple(requirements)
        self.advance = advance
        self.dt = dt
        self.low, self.high = low, high
        if not bool((low.isfinite() & high.isfinite() & (low <= high)).all()):
            raise ValueError(
                f"SafeInputs: expected finite input limits low <= high, got {low.tolist()} and "
                f"{high.tolist()}. Rows are made from the corners of the limits; state what the "
                f"actuators can do."
            )
        for requirement in self.requirements:
            if any(not 0 < gain * dt <= 1 for gain in requirement.gains):
                raise ValueError(
                    f"SafeInputs: expected gains of '{requirement.name}' in (0, 1/dt] = "
                    f"(0, {1 / dt:.6g}] 1/s, got {requirement.gains}. A larger one would ask for "
                    f"more than all that is left within one sample."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the constraints, in the order of the rows."""
        return tuple(requirement.name for requirement in self.requirements)

    def value(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k"]:
        """What must not be positive now: `g` (degree 1) or `s` (degree 2); NaN for degree 0."""
        return torch.stack([self._level(r, t, x) for r in self.requirements], -1)

    @without_autocast
    def condition(self, t: Any, x: Float[Tensor, "*batch n"]) -> Polyhedron | Box:
        """Safe inputs at `x`."""
        A, upper = self.rows(t, x)
        low, high = self.low.to(x), self.high.to(x)
        return limit_rows(A, upper, low, high, acts_on=0 if len(low) == 1 else None)

    @without_autocast
    def compromise(
        self, t: Any, x: Float[Tensor, "batch n"]
    ) -> tuple[Polyhedron | Box, Float[Tensor, "batch k"]]:
        """A set that is not empty, and by how much each constraint gave way for it.

        Constraints keep their order: none gives way to one after it (see `relax_in_order`).
        """
        A, upper = self.rows(t, x)
        low, high = self.low.to(x), self.high.to(x)
        relaxed = upper + (relax_in_order(A, upper, low, high) - upper).detach()
        set = limit_rows(A, relaxed, low, high, acts_on=0 if len(low) == 1 else None)
        return set, (relaxed - upper).detach()

    def rows(self, t: Any, x: Float[Tensor, "*batch n"]) -> tuple[Tensor, Tensor]:
        """`A` `(*batch, k, m)` and `upper` `(*batch, k)` of the constraints, without the limits."""
        if not self.requirements:
            return x.new_zeros(*x.shape[:-1], 0, len(self.low)), x.new_zeros(*x.shape[:-1], 0)
        u = self._trials(x)
        here = x.unsqueeze(-2).expand(*x.shape[:-1], len(u), x.shape[-1])
        inputs = u.expand(*here.shape[:-1], -1)
        there = self.advance(_over_trials(t), here, inputs)
        rows = []
        for requirement in self.requirements:
            if requirement.degree == 0:
                values, bound = requirement.g(_over_trials(t), here, inputs), 0.0
            else:
                values = self._level(requirement, _over_trials(t + self.dt), there)
                bound = (1.0 - requirement.gains[-1] * self.dt) * self._level(requirement, t, x)
            rows.append(self._raise_plane(values, bound, u))
        return torch.stack([a for a, _ in rows], -2), torch.stack([b for _, b in rows], -1)

    def _level(self, requirement: Requirement, t: Any, x: Tensor) -> Tensor:
        """`g` (degree 1) or `s` (degree 2) at states `(*batch, n)`."""
        center = (0.5 * (self.low + self.high)).to(x).expand(*x.shape[:-1], -1)
        g = requirement.g(t, x, center)
        if requirement.degree < 2:
            return g if requirement.degree else torch.full_like(g, torch.nan)
        u = self._trials(x)
        here = x.unsqueeze(-2).expand(*x.shape[:-1], len(u), x.shape[-1])
        inputs = u.expand(*here.shape[:-1], -1)
        after = self.advance(_over_trials(t), here, inputs)
        reached = requirement.g(_over_trials(t + self.dt), after, inputs)
        if len(self.low) <= MOST_CORNERS:
            worst = reached.amax(-1)
        else:  # each input alone, and all that they can add
            middle = reached[..., :1]
            ends = (reached[..., 1:] - middle).unflatten(-1, (-1, 2)).amax(-1).clamp_min(0.0)
            worst = middle.squeeze(-1) + JOINTLY * ends.sum(-1)
        return worst - (1.0 - requirement.gains[0] * self.dt) * g

    def _trials(self, x: Tensor) -> Tensor:
        """Inputs that are tried `(p, m)`: the center of the limits, then corners or ends of each axis."""
        low, high = self.low.to(x), self.high.to(x)
        return torch.lerp(low, high, 0.5 + 0.5 * self._signs().to(x))

    def _signs(self) -> Tensor:
        """Trials in units of the half widths `(p, m)`, from −1 to 1."""
        m = len(self.low)
        if m <= MOST_CORNERS:
            corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=m)))
            return torch.cat([torch.zeros(1, m), corners])
        ends = torch.eye(m).repeat_interleave(2, 0)
        ends[1::2] *= -1.0
        return torch.cat([torch.zeros(1, m), ends])

    def _raise_plane(self, values: Tensor, bound: Tensor | float, u: Tensor) -> tuple[Tensor, Tensor]:
        """The row `a·u <= b` of `values(u) <= bound`, from its values `(*batch, p)` at the trials `u`."""
        signs = self._signs().to(values)
        outer = signs[1:]
        half = 0.5 * (self.high - self.low).to(values)
        slope = (values[..., 1:] @ outer) / outer.square().sum(0)  # per half width
        if len(self.low) <= MOST_CORNERS:
            level = values[..., 1:].mean(-1)
            above = (values - level.unsqueeze(-1) - slope @ signs.mT).amax(-1).clamp_min(0.0)
        else:
            level = values[..., 0]
            pairs = values[..., 1:].unflatten(-1, (-1, 2)).mean(-1) - level.unsqueeze(-1)
            above = JOINTLY * pairs.clamp_min(0.0).sum(-1)
        a = slope / torch.where(half > 0, half, 1.0)
        upper = bound - level - above + (a * u[0]).sum(-1)
        size = (a.abs() * torch.maximum(self.low.abs(), self.high.abs()).to(a)).sum(-1)
        return a, upper - RTOL * (size + upper.abs())


def _over_trials(t: Any) -> Any:
    """A time that differs between elements, for states with one more batch dimension."""
    return t.unsqueeze(-1) if isinstance(t, Tensor) and t.ndim else t
