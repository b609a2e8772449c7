"""Networks of the experiments on learned chaos."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.certificates import EnergyFunction
from constrained_nn.operators import (
    MLP,
    DeepONet,
    FieldIncrement,
    GatedOperator,
    Increment,
    TransportOperator,
)


class ClippedToBall(nn.Module):
    """Next state of a backbone, moved along the ray into a ball: bounded, whatever the state was before.

    Args:
        backbone: The next state `(*batch, n)`.
        center: Center of the ball `(n,)`.
        radius: Its radius.
    """

    center: Tensor

    def __init__(self, backbone: nn.Module, center: Float[Tensor, " n"], radius: float) -> None:
        super().__init__()
        self.backbone, self.radius = backbone, radius
        self.register_buffer("center", center)

    def forward(self, w: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        d = self.backbone(w) - self.center
        return self.center + d * (self.radius / d.norm(dim=-1, keepdim=True)).clamp_max(1.0)


def shadow(
    energy: EnergyFunction, mean: Float[Tensor, " n"], plane: Float[Tensor, "2 n"]
) -> tuple[Float[Tensor, 2], Float[Tensor, "2 2"]]:
    """Center and shape of the ellipse over which all states with `V <= c` lie, in a plane through `mean`.

    With `x = center + A z`, `V = |z|²`: center `plane (center − mean)`, shape `c (plane A)(plane
    A)ᵀ`.
    """
    z = torch.zeros_like(energy.coordinates(mean)).requires_grad_()
    points = plane @ (energy.state(z) - mean)
    rows = [torch.autograd.grad(p, z, retain_graph=True)[0] for p in points]
    half = torch.stack(rows)
    return points.detach(), (energy.level.to(half.dtype) * half @ half.mT).detach()


def fronts(
    states: Float[Tensor, "count samples n"], inner: int, width: int, depth: int, kernel: int
) -> nn.Module:
    """Next state of the Kuramoto-Sivashinsky equation."""
    backbone = GatedOperator(1, width=width, depth=depth, kernel=kernel)
    return FieldIncrement(
        backbone,
        (states.shape[-1],),
        inner=(inner,),
        deviation=float(states.std()),
        step=float(states.diff(dim=1).std()),
        conserve_mean=True,
        limit=4.0,
    )


class NextField(nn.Module):
    """Next state of a field by a backbone without anything around it: `w⁺ = deviation G(w / deviation)`.

    Args:
        backbone: `G`, from fields `(batch, 1, *shape)` to the same, in float32.
        shape: Grid of the state; states are flattened.
        deviation: Standard deviation of the states.
    """

    def __init__(self, backbone: nn.Module, shape: tuple[int, ...], deviation: float) -> None:
        super().__init__()
        self.backbone, self.shape, self.deviation = backbone, shape, deviation

    def forward(self, w: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        field = (w / self.deviation).float().reshape(-1, 1, *self.shape)
        return self.deviation * self.backbone(field).reshape(w.shape).to(w.dtype)


def published_fronts(
    states: Float[Tensor, "count samples n"],
    channels: tuple[int, ...],
    hidden: tuple[int, ...],
    basis: int,
    harmonics: int,
) -> nn.Module:
    """Next state of the Kuramoto-Sivashinsky equation by the published backbone."""
    shape = (states.shape[-1],)
    net = DeepONet(shape, channels=channels, hidden=hidden, basis=basis, harmonics=harmonics)
    return NextField(net, shape, float(states.std()))


def vorticity(
    states: Float[Tensor, "count samples n"], points: int, inner: int, width: int, depth: int, wavenumber: int
) -> nn.Module:
    """Next vorticity of the Kolmogorov flow, on the frequencies that the solver keeps; the force is known."""
    kept = (points - 1) // 3
    y = 2.0 * torch.pi / inner * torch.arange(inner, dtype=torch.float32)
    force = torch.cos(wavenumber * y).expand(1, inner, inner)  # states are (x, y)
    deviation = float(states[:, ::10].std())
    step = float(states[:, :200].diff(dim=1).std())
    modes = min(kept + 1, (inner + 1) // 2)
    return FieldIncrement(
        TransportOperator((modes, modes), width=width, depth=depth, inputs=2, scale=step / deviation),
        (points, points),
        inner=(inner, inner),
        deviation=deviation,
        step=step,
        static=force,
        conserve_mean=True,
        limit=8.0,
        resolved=(2 * kept + 1, 2 * kept + 1),
    )


def convection(states: Float[Tensor, "count samples n"], hidden: tuple[int, ...]) -> nn.Module:
    """Next state of Lorenz' three modes."""
    return Increment.from_data(MLP(3, 3, hidden), states)
