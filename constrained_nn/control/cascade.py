"""Saturated cascade for the planar vertical take-off and landing aircraft, with adaptation by its Lyapunov function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.control.adaptive import AdaptationLaw, Gradient, as_gain, count_features, dtype_of
from constrained_nn.control.base import DynamicController, check_reference


class CascadeValues(NamedTuple):
    """Gains of the cascade as positive numbers.

    Args:
        k: `(2, 2)`, row a = axis: weights of position and velocity error in the saturations.
        c: `(2, 2)`, row a = axis: sizes of the two saturations [m/s^2].
        roll: `(2,)`, gains of the roll angle and its rate [1/s^2, 1/s].
        P: Gain of the adaptation `(2, 2)`.
    """

    k: Tensor
    c: Tensor
    roll: Tensor
    P: Tensor


class CascadeGains(nn.Module):
    """Free numbers behind the gains of `SaturatedCascade`.

    Everything is positive through `exp`; the vertical saturations together stay below gravity,
    `c_y = g e^θ / (1 + Σ e^θ)`, so that the thrust never vanishes. All begin at 1, as published.

    Args:
        gravity: `g` [m/s^2].
        dtype: Type of the numbers.
    """

    def __init__(self, *, gravity: float = 9.81, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.gravity = gravity
        self.k = nn.Parameter(torch.zeros(2, 2, dtype=dtype))
        self.c_x = nn.Parameter(torch.zeros(2, dtype=dtype))
        self.c_y = nn.Parameter(torch.full((2,), gravity - 2.0, dtype=dtype).log().neg())
        self.roll = nn.Parameter(torch.zeros(2, dtype=dtype))

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """`k (2, 2)`, `c (2, 2)`, `roll (2,)`."""
        up = self.c_y.exp()
        c_y = self.gravity * up / (1.0 + up.sum())
        return self.k.exp(), torch.stack([self.c_x.exp(), c_y]), self.roll.exp()


class _Outer(NamedTuple):
    """What the outer loop says: virtual acceleration and desired roll, with derivatives."""

    e: Tensor
    rate: Tensor
    w: Tensor
    v: Tensor  # virtual acceleration plus gravity (*batch, 2)
    thrust: Tensor
    roll: Tensor
    roll_rate: Tensor
    inner: Tensor  # v'
    lag: Tensor  # nominal acceleration minus that of the reference (*batch, 2)


class SaturatedCascade(DynamicController):
    """Tracking controller of the PVTOL with bounded virtual acceleration and an adaptive estimate of the matched force.

    `v = z'' − c_0 tanh(k_0 e + k_1 e') − c_1 tanh(k_1 e')` for each axis, `u_1 = |v + (0, g)|`,
    `φ_d = atan(−v_x / (v_y + g))`, `u_2 = φ_d'' − p_0 (φ − φ_d) − p_1 (φ' − φ_d')`; then `u − A y(x)` with
    `A' = P (Bᵀ ∇V) yᵀ`.

    `V = Σ [c_0 log cosh w_0 + c_1 log cosh w_1 + ½ k_0 e'²] + ½ ηᵀ Q η`, `η = (φ − φ_d, φ' − φ_d')`, and derivatives of
    `φ_d` along the nominal accelerations. Gradients of `V` are in closed form.

    Guarantee: none in general: most of the wind's force is not in the range of `B`, and only the matched part can be
    cancelled. `c_{y0} + c_{y1} < g` keeps the thrust positive for modest references.

    Args:
        features: Module `y`, `(*batch, 6) -> (*batch, p)`.
        gains: `CascadeGains`, or any module that returns `k`, `c`, `roll`.
        P: Gain of the adaptation: number, matrix `(2, 2)` or module.
        law: How `A` changes.
        gravity: `g` of the prior [m/s^2].
        published_roll_rate: Use the measured roll rate where the derivative of the desired one belongs, in
            `φ_d''`, as the published code does.

    Returns:
        `forward(t, x, reference, z)`: input (thrust, angular acceleration) `(*batch, 2)` and rate of the state `z`
        `(*batch, 2 p)`. Rows of `reference` `(*batch, 5, 2)` are position to fourth derivative.

    Raises:
        ShapeError: There is no reference, or one of another size.

    Example:
        >>> import torch
        >>> from constrained_nn.control import ConstantFeature
        >>> hover = SaturatedCascade(ConstantFeature())
        >>> u, _ = hover(0.0, torch.zeros(6).double(), torch.zeros(5, 2).double(), torch.zeros(2).double())
        >>> u.detach().round(decimals=6)
        tensor([9.8100, 0.0000], dtype=torch.float64)

    References:
        Richards et al., Control-oriented meta-learning (arXiv 2204.06716), the PVTOL case.
    """

    def __init__(
        self,
        features: nn.Module,
        gains: nn.Module | None = None,
        *,
        P: Tensor | float | nn.Module = 1.0,
        law: AdaptationLaw | None = None,
        gravity: float = 9.81,
        published_roll_rate: bool = False,
    ) -> None:
        super().__init__()
        dtype = dtype_of(features, P)
        self.features = features
        self.gains = CascadeGains(gravity=gravity, dtype=dtype) if gains is None else gains
        self.P = as_gain(P, 2, dtype)
        self.law = law or Gradient()
        self.gravity, self.published_roll_rate = gravity, published_roll_rate
        self.count = count_features(features, 6, dtype)
        self.state_dim = 2 * self.count

    def values(self) -> CascadeValues:
        """The gains as positive numbers and matrices."""
        return CascadeValues(*self.gains(), P=self.P())

    def forward(
        self,
        t: Any,
        x: Float[Tensor, "*batch n"],
        reference: Float[Tensor, "*batch k 2"],
        z: Float[Tensor, "*batch s"],
    ) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch s"]]:
        return self._respond(x, reference, z, self.values())

    def prepared(self) -> Callable[[Any, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The same function with the gains worked out once."""
        values = self.values()
        return lambda t, x, reference, z: self._respond(x, reference, z, values)

    def advance(self, z: Tensor, rate: Tensor, next_rate: Tensor, dt: float) -> Tensor:
        """The law's discrete form."""
        Z, before, after = (a.unflatten(-1, (2, self.count)) for a in (z, rate, next_rate))
        return self.law.advance(Z, before, after, self.P(), dt).flatten(-2)

    def _respond(
        self, x: Tensor, reference: Tensor, z: Tensor, gains: CascadeValues
    ) -> tuple[Tensor, Tensor]:
        check_reference(self, reference, 5, 2)
        outer = self._outer(x, reference, gains)
        angle, turn = x[..., 2] - outer.roll, x[..., 5] - outer.roll_rate
        u2 = self._roll_acceleration(x, reference, gains, outer)
        u2 = u2 - gains.roll[0] * angle - gains.roll[1] * turn
        y = self.features(x)
        Z = z.unflatten(-1, (2, self.count))
        A = self.law.estimate(Z)
        u = torch.stack([outer.thrust, u2], -1) - (A @ y[..., None])[..., 0]
        signal = self._signal(x, gains, outer, angle, turn)
        return u, self.law.rate(Z, gains.P, signal, y).flatten(-2)

    def _outer(self, x: Tensor, reference: Tensor, gains: CascadeValues) -> _Outer:
        k, c = gains.k, gains.c
        e = x[..., 0:2] - reference[..., 0, :]
        rate = x[..., 3:5] - reference[..., 1, :]
        w = torch.stack([k[:, 0] * e + k[:, 1] * rate, k[:, 1] * rate], -1)  # (*batch, axis, saturation)
        gravity = torch.stack([0.0 * e[..., 0], 0.0 * e[..., 1] + self.gravity], -1)
        v = reference[..., 2, :] - (c * torch.tanh(w)).sum(-1) + gravity
        thrust = v.norm(dim=-1)
        roll = torch.atan(-v[..., 0] / v[..., 1])
        direction = torch.stack([-torch.sin(x[..., 2]), torch.cos(x[..., 2])], -1)
        lag = thrust[..., None] * direction - gravity - reference[..., 2, :]
        inner = reference[..., 3, :] - (c * _sech2(w) * _rate_of(w, k, rate, lag)).sum(-1)
        return _Outer(e, rate, w, v, thrust, roll, _cross(v, inner) / thrust**2, inner, lag)

    def _roll_acceleration(self, x: Tensor, reference: Tensor, gains: CascadeValues, o: _Outer) -> Tensor:
        """`φ_d''` along the nominal accelerations."""
        k, c = gains.k, gains.c
        thrust_rate = (o.v * o.inner).sum(-1) / o.thrust
        sine, cosine = torch.sin(x[..., 2]), torch.cos(x[..., 2])
        turn = x[..., 5]
        jerk = torch.stack(
            [
                -thrust_rate * sine - o.thrust * cosine * turn,
                thrust_rate * cosine - o.thrust * sine * turn,
            ],
            -1,
        )
        w_rate = _rate_of(o.w, k, o.rate, o.lag)
        w_acceleration = _rate_of(o.w, k, o.lag, jerk - reference[..., 3, :])
        slope = _sech2(o.w)
        curve = -2.0 * slope * torch.tanh(o.w)
        second = reference[..., 4, :] - (c * (curve * w_rate**2 + slope * w_acceleration)).sum(-1)
        through = turn if self.published_roll_rate else o.roll_rate
        return (_cross(o.v, second) - 2.0 * through * thrust_rate * o.thrust) / o.thrust**2

    def _signal(self, x: Tensor, gains: CascadeValues, o: _Outer, angle: Tensor, turn: Tensor) -> Tensor:
        """`Bᵀ ∇V`: derivative of `V` along thrust and angular acceleration."""
        k, c = gains.k, gains.c
        k1 = k[:, 1]
        p0, p1 = gains.roll[0], gains.roll[1]
        m1 = (p0 * (p0 + 1.0) + p1**2) * angle + p1 * turn  # Q η
        m2 = p1 * angle + (p0 + 1.0) * turn
        saturated, slope = torch.tanh(o.w), _sech2(o.w)
        direct = k1 * (c * saturated).sum(-1) + k[:, 0] * o.rate
        D = -k1 * (c * slope).sum(-1)  # dv_a / de'_a
        square = o.thrust**2
        vx, vy = o.v[..., 0], o.v[..., 1]
        sine, cosine = torch.sin(x[..., 2]), torch.cos(x[..., 2])
        dthrust = o.v * D / o.thrust[..., None]
        # dv'_a / de'_b: through the saturations' arguments (a = b), and through the nominal acceleration
        curve = -2.0 * slope * saturated
        own = (
            -(c * curve * k1[:, None] * _rate_of(o.w, k, o.rate, o.lag)).sum(-1)
            - c[:, 0] * slope[..., 0] * k[:, 0]
        )
        push = torch.stack([-sine, cosine], -1) * D  # times dthrust_b = dv'_a / de'_b through the thrust
        column_x = push * dthrust[..., :1] + torch.stack([own[..., 0], 0.0 * own[..., 0]], -1)
        column_y = push * dthrust[..., 1:] + torch.stack([0.0 * own[..., 1], own[..., 1]], -1)
        roll_v = torch.stack([-vy * D[..., 0], vx * D[..., 1]], -1) / square[..., None]
        numerator_v = torch.stack(
            [
                _cross(o.v, column_x) + D[..., 0] * o.inner[..., 1],
                _cross(o.v, column_y) - o.inner[..., 0] * D[..., 1],
            ],
            -1,
        )
        rate_v = (numerator_v - 2.0 * (o.roll_rate * o.thrust)[..., None] * dthrust) / square[..., None]
        slope_v = direct - m1[..., None] * roll_v - m2[..., None] * rate_v
        return torch.stack([cosine * slope_v[..., 1] - sine * slope_v[..., 0], m2], -1)

    def value(
        self, x: Float[Tensor, "*batch n"], reference: Float[Tensor, "*#batch k 2"]
    ) -> Float[Tensor, "*batch"]:
        """`V` without the part of the estimate."""
        gains = self.values()
        o = self._outer(x, reference, gains)
        angle, turn = x[..., 2] - o.roll, x[..., 5] - o.roll_rate
        p0, p1 = gains.roll[0], gains.roll[1]
        inner = (p0 * (p0 + 1.0) + p1**2) * angle**2 + 2.0 * p1 * angle * turn + (p0 + 1.0) * turn**2
        outer = (gains.c * _log_cosh(o.w)).sum((-2, -1)) + 0.5 * (gains.k[:, 0] * o.rate**2).sum(-1)
        return outer + 0.5 * inner


def _rate_of(w: Tensor, k: Tensor, rate: Tensor, acceleration: Tensor) -> Tensor:
    """Time derivative of the saturations' arguments `(*batch, axis, saturation)`."""
    damping = k[:, 1] * acceleration
    return torch.stack([k[:, 0] * rate + damping, damping], -1)


def _cross(v: Tensor, rate: Tensor) -> Tensor:
    """`v_x v_y' − v_x' v_y`; over `|v|²` it is the rate of the angle `atan(−v_x / v_y)`."""
    return v[..., 0] * rate[..., 1] - rate[..., 0] * v[..., 1]


def _sech2(w: Tensor) -> Tensor:
    return 1.0 - torch.tanh(w) ** 2


def _log_cosh(w: Tensor) -> Tensor:
    size = w.abs()
    return size + torch.log1p(torch.exp(-2.0 * size)) - 0.6931471805599453


def flat_state(reference: Float[Tensor, "*batch k 2"], gravity: float = 9.81) -> tuple[Tensor, Tensor]:
    """State `(*batch, 6)` and input `(*batch, 2)` of the PVTOL that follow a reference exactly without wind.

    Rows of the reference `(*batch, 5, 2)` are position to fourth derivative.
    """
    position, velocity, v, jerk, snap = reference[..., :5, :].unbind(-2)
    v = torch.stack([v[..., 0], v[..., 1] + gravity], -1)
    square = v.square().sum(-1)
    roll = torch.atan(-v[..., 0] / v[..., 1])
    rate = _cross(v, jerk) / square
    turn = (_cross(v, snap) - 2.0 * rate * (v * jerk).sum(-1)) / square
    state = torch.cat([position, roll[..., None], velocity, rate[..., None]], -1)
    return state, torch.stack([square.sqrt(), turn], -1)
