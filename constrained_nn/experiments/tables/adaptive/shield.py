"""Hard constraints behind the adaptive controller: an input box, and a disc to keep out of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from control_envs.dynamics import air_velocity

if TYPE_CHECKING:
    from torch import Tensor

    from constrained_nn.sets import Polyhedron


@dataclass(frozen=True)
class Shield:
    """Inputs of the planar rotorcraft that keep its center out of a disc, whatever the wind in `[0, wind]`.

    With `d = |p − c| − (radius + margin)`, normal `n` and `h = d' + rate d`, the row is `h' + rate
    h >= 0` for the worst drag: each body component of the drag is monotone in the wind, so that its
    two ends bound it.

    Args:
        plant: The rotorcraft with its drag.
        center, radius: The disc [m].
        margin: Added to the radius for the time between two samples [m].
        rate: `rate` [1/s].
        wind: Largest wind [m/s].
        limit: Size of the three inputs around hover [N].
    """

    plant: Any
    center: tuple[float, float] = (1.2, 1.2)
    radius: float = 0.6
    margin: float = 0.01
    rate: float = 4.0
    wind: float = 9.0
    limit: float = 30.0

    def clearance(self, x: Tensor) -> Tensor:
        """Distance of the center from the disc `(*batch,)` [m]; negative inside."""
        return (x[..., :2] - x.new_tensor(self.center)).norm(dim=-1) - self.radius

    def box(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest input."""
        hover = like.new_tensor([float(self.plant.gravity), 0.0, 0.0])
        return hover - self.limit, hover + self.limit

    def worst_drag(self, x: Tensor, normal: Tensor) -> Tensor:
        """Smallest `n · drag` over the winds of the range."""
        import torch

        c, s = torch.cos(x[..., 2]), torch.sin(x[..., 2])
        along = c * normal[..., 0] + s * normal[..., 1]
        across = c * normal[..., 1] - s * normal[..., 0]
        total = torch.zeros_like(c)
        still, storm = (air_velocity(x, x.new_tensor([w]), torch) for w in (0.0, self.wind))
        for size, coefficient, a, b in (
            (along, self.plant.drag_x, still[0], storm[0]),
            (across, self.plant.drag_y, still[1], storm[1]),
        ):
            total = total - coefficient * torch.maximum(size * a * a.abs(), size * b * b.abs())
        return total

    def condition(self, t: Any, x: Tensor) -> Polyhedron:
        """The box and the row of the disc."""
        import torch

        from constrained_nn.sets import Polyhedron

        offset = x[..., :2] - x.new_tensor(self.center)
        distance = offset.norm(dim=-1)
        normal = offset / distance[..., None]
        velocity = x[..., 3:5]
        approach = (normal * velocity).sum(-1)
        sideways = (velocity.square().sum(-1) - approach**2) / distance
        h = approach + self.rate * (distance - self.radius - self.margin)
        free = sideways + self.worst_drag(x, normal) - self.plant.gravity * normal[..., 1]
        push = (normal[..., None, :] @ self.plant.B(x[..., :3])[..., :2, :])[..., 0, :]
        upper = free + self.rate * approach + self.rate * h
        low, high = self.box(x)
        eye = torch.eye(3, dtype=x.dtype, device=x.device).expand(*x.shape[:-1], 3, 3)
        return Polyhedron(
            torch.cat([-push[..., None, :], eye], -2),
            lower=torch.cat(
                [torch.full_like(upper, -torch.inf)[..., None], low.expand(*x.shape[:-1], 3)], -1
            ),
            upper=torch.cat([upper[..., None], high.expand(*x.shape[:-1], 3)], -1),
        )
