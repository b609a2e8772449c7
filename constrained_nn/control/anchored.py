"""Networks with a known value at an equilibrium: feedback that holds it, models that rest there."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.control.base import Controller
from constrained_nn.errors import ShapeError
from constrained_nn.plain_state import PlainState


class AnchoredController(Controller, PlainState):
    """A network as feedback that holds an equilibrium, within input limits.

    `u = v + limit(backbone(x) − backbone(origin))`, `limit(s) = (upper − v) tanh(s / (upper − v))` for `s > 0`,
    `(v − lower) tanh(s / (v − lower))` for `s < 0`.

    Guarantee: for every parameter `u(origin) = v` and `lower <= u <= upper`; near the origin the limit has slope 1.

    Args:
        backbone: Network `(*batch, n) -> (*batch, m)`.
        origin: The equilibrium `(n,)`.
        hold: Input `v` that holds it `(m,)`.
        lower: Smallest input `(m,)`, below `hold`; default: no limits.
        upper: Largest input `(m,)`, above `hold`; default: no limits.

    Returns:
        `forward(t, x)`: the input `(*batch, m)`.

    Raises:
        ShapeError: `hold` and the limits differ in shape.
        ValueError: `hold` is not strictly inside the limits.

    Example:
        >>> import torch
        >>> one = torch.ones(1)
        >>> policy = AnchoredController(torch.nn.Linear(2, 1), torch.zeros(2), 0 * one, -2 * one, 3 * one)
        >>> policy(0.0, torch.zeros(2)).item()
        0.0

    References:
        Min, Richards, Azizan, Data-driven control with inherent Lyapunov stability (arXiv 2303.03157), the policy.
    """

    origin: Tensor
    hold: Tensor
    below: Tensor
    above: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        origin: Float[Tensor, " n"],
        hold: Float[Tensor, " m"],
        lower: Float[Tensor, " m"] | None = None,
        upper: Float[Tensor, " m"] | None = None,
    ) -> None:
        super().__init__()
        lower = torch.full_like(hold, -torch.inf) if lower is None else lower
        upper = torch.full_like(hold, torch.inf) if upper is None else upper
        if not hold.shape == lower.shape == upper.shape:
            raise ShapeError(
                f"AnchoredController: expected lower and upper of shape {tuple(hold.shape)} like hold, got "
                f"{tuple(lower.shape)} and {tuple(upper.shape)}. Give one number for each input."
            )
        if not bool(((lower < hold) & (hold < upper)).all()):
            raise ValueError(
                f"AnchoredController: expected lower < hold < upper, got {lower.tolist()}, {hold.tolist()}, "
                f"{upper.tolist()}. An input on its limit cannot hold an equilibrium."
            )
        self.backbone = backbone
        self.register_buffer("origin", origin.detach().clone())
        self.register_buffer("hold", hold.detach().clone())
        self.keep("below", (hold - lower).detach(), saved=True)  # infinite where there is no limit
        self.keep("above", (upper - hold).detach(), saved=True)

    def forward(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        s = self.backbone(x) - self.backbone(self.origin)
        room = torch.where(s < 0, self.below, self.above)
        limited = torch.where(room < torch.inf, room, 1.0)
        u = self.hold + torch.where(room < torch.inf, limited * torch.tanh(s / limited), s)
        # rounding of the sum may step over a limit by one unit
        return torch.minimum(torch.maximum(u, self.hold - self.below), self.hold + self.above)


class AnchoredModel(nn.Module):
    """A network as a model of a plant that rests at a known equilibrium.

    `dx/dt = backbone(x, u) − backbone(origin, hold)`.

    Args:
        backbone: Network of the state and the input, one after the other, `(*batch, n + m) -> (*batch, n)`.
        origin: The equilibrium `(n,)`.
        hold: Input that holds it `(m,)`; empty for a plant without input.
    """

    anchor: Tensor

    def __init__(self, backbone: nn.Module, origin: Float[Tensor, " n"], hold: Float[Tensor, " m"]) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("anchor", torch.cat([origin, hold]).detach().clone())

    def forward(
        self, x: Float[Tensor, "*batch n"], u: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch n"]:
        return self.backbone(torch.cat([x, u], -1)) - self.backbone(self.anchor)


class AffineModel(nn.Module):
    """A network as a control-affine model of a plant that rests at a known equilibrium.

    `dx/dt = d(x) − d(origin) − B(origin) hold + B(x) u`; the network gives `d` and the rows of `B`.

    Args:
        backbone: Network `(*batch, n) -> (*batch, n + n m)`.
        origin: The equilibrium `(n,)`.
        hold: Input that holds it `(m,)`.
    """

    origin: Tensor
    hold: Tensor

    def __init__(self, backbone: nn.Module, origin: Float[Tensor, " n"], hold: Float[Tensor, " m"]) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("origin", origin.detach().clone())
        self.register_buffer("hold", hold.detach().clone())

    def parts(
        self, x: Float[Tensor, "*batch n"]
    ) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n m"]]:
        """Drift `(*batch, n)` and input matrix `(*batch, n, m)`."""
        n, m = self.origin.shape[0], self.hold.shape[0]
        here, there = self.backbone(x), self.backbone(self.origin)
        B, B0 = (net[..., n:].unflatten(-1, (n, m)) for net in (here, there))
        return here[..., :n] - there[:n] - B0 @ self.hold, B

    def forward(
        self, x: Float[Tensor, "*batch n"], u: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch n"]:
        drift, B = self.parts(x)
        return drift + (B @ u.unsqueeze(-1)).squeeze(-1)

    @property
    def state_dim(self) -> int:
        return self.origin.shape[0]

    @property
    def input_dim(self) -> int:
        return self.hold.shape[0]

    def drift(
        self, t: Any, x: Float[Tensor, "*batch n"], w: Tensor | None = None
    ) -> Float[Tensor, "*batch n"]:
        """The part without input; a model knows no disturbance."""
        return self.parts(x)[0]

    def actuation(self, t: Any, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n m"]:
        """The input matrix."""
        return self.parts(x)[1]
