"""Control barrier functions for an input that is held between two samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.certificates.safe_inputs import limit_rows
from constrained_nn.linalg import matvec, without_autocast
from constrained_nn.protocols import Clearance, ControlAffine
from constrained_nn.sets import Box, Polyhedron


class SampledBarrier:
    """Control barrier functions whose rows keep `h >= 0` while the input is held, and the limits of the input.

    With `h = e`, or `h = e' + kappa e` where the input acts on `e''` only, and `h'' >= −m`, `m = m_0 + Σ m_j u_j`:

    `∇h·(drift + actuation u) + rate h >= (hold/2) m(x, u)`,  `low <= u <= high`.

    Guarantee: an input in `condition(t, x)` gives `h(x(s)) >= (1 − rate s) h(x) + s (hold − s) m/2 >= 0` for all `s`
    from 0 to `hold`, where the bound `m` is right and `rate hold <= 1`; then `e >= 0` as well. Rows
    that are exceeded by up to `rate floor` keep `h >= −floor`: for `h` in between the row is that of `h = 0`, so that
    rounding cannot empty the set. `constrained-nn certify TASK` proves the bound, that inputs exist, and invariance.

    Args:
        clearances: `e`, its curvature `m` and gains, such as `task.clearances`.
        plant: The control-affine plant.
        hold: Time for which an input is held [s].
        low: Lower limits of the input `(m,)`.
        high: Upper limits `(m,)`.
        acts_on: The one input that all rows touch; then the set is a `Box`, which HardNet-Aff enforces in closed
            form. Default: the only input of the plant, or none: a `Polyhedron`.
        floor: How far below 0 a barrier may come by the rounding of the layer, in its unit.

    Returns:
        `condition(t, x)`: the set of safe inputs.

    Raises:
        ValueError: `hold` is not positive, or `rate hold > 1`.

    Example:
        >>> from control_envs.tasks import DoubleIntegratorTask
        >>> import torch
        >>> task = DoubleIntegratorTask()
        >>> low, high = torch.tensor(task.input_low), torch.tensor(task.input_high)
        >>> barrier = SampledBarrier(task.clearances, task.plant, hold=task.dt, low=low, high=high)
        >>> barrier.condition(0.0, torch.tensor([0.0, 0.1]).double()).upper  # brake before the wall
        tensor([-0.0503], dtype=torch.float64)

    References:
        Ames et al., Control Barrier Functions: Theory and Applications (2019), Eq. 12; Breeden, Garg, Panagou,
        Control Barrier Functions in Sampled-Data Systems (2021), for margins of held inputs.
    """

    def __init__(
        self,
        clearances: Sequence[Clearance],
        plant: ControlAffine,
        *,
        hold: float,
        low: Float[Tensor, " m"],
        high: Float[Tensor, " m"],
        acts_on: int | None = None,
        floor: float = 1e-6,
    ) -> None:
        fastest = max(c.gains[-1] for c in clearances)
        if not hold > 0 or fastest * hold > 1:
            raise ValueError(
                f"SampledBarrier: expected hold > 0 [s] and rate hold <= 1, got hold {hold} and rate {fastest}. "
                f"Sample faster, or take a smaller last gain."
            )
        self.clearances = tuple(clearances)
        self.plant = plant
        self.hold = hold
        self.low, self.high = low, high
        self.acts_on = 0 if acts_on is None and len(low) == 1 else acts_on
        self.floor = floor

    def value(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k"]:
        """`h(x)`; nonnegative is safe."""
        return torch.stack([self._barrier(i, x) for i in range(len(self.clearances))], -1)

    def gradient(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k n"]:
        """`∂h/∂x`."""
        rows = []
        for i in range(len(self.clearances)):
            h, pull, *_ = torch.func.vjp(lambda x, i=i: self._barrier(i, x), x)
            rows.append(pull(torch.ones_like(h))[0])
        return torch.stack(rows, -2)

    def clearance(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k"]:
        """`e(x)`; nonnegative is safe."""
        return torch.stack([c.value(x, torch) for c in self.clearances], -1)

    def rows(self, t: Any, x: Float[Tensor, "*batch n"]) -> tuple[Tensor, Tensor]:
        """`A` `(*batch, k, m)` and `upper` `(*batch, k)` of the barriers' rows, without the limits."""
        h, gradient = self.value(x), self.gradient(x)
        m = torch.stack([c.curvature(x, torch) for c in self.clearances], -2)
        rate = x.new_tensor([c.gains[-1] for c in self.clearances])
        # between −floor and 0 an input exists that lets h stay, but perhaps none that lets it grow
        h = torch.where(h < -self.floor, h, h.clamp_min(0.0))
        A = 0.5 * self.hold * m[..., 1:] - gradient @ self.plant.actuation(t, x)
        drift = matvec(gradient, self.plant.drift(t, x))
        return A, drift + rate * h - 0.5 * self.hold * m[..., 0]

    @without_autocast
    def condition(self, t: Any, x: Float[Tensor, "*batch n"]) -> Polyhedron | Box:
        """Safe inputs at `x`."""
        A, upper = self.rows(t, x)
        return limit_rows(A, upper, self.low.to(x), self.high.to(x), acts_on=self.acts_on)

    def _barrier(self, i: int, x: Tensor) -> Tensor:
        """`e`, or `e' + kappa e` with `e'` along the drift."""
        clearance = self.clearances[i]
        if len(clearance.gains) == 1:
            return clearance.value(x, torch)
        drift = self.plant.drift(0.0, x)
        e, rate, *_ = torch.func.jvp(lambda x: clearance.value(x, torch), (x,), (drift,))
        return rate + clearance.gains[0] * e
