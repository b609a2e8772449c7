"""A set and two layers as a newcomer writes them: no future import, a setting beside the tensor, nothing defended."""

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.layers import ProjectionLayer
from constrained_nn.layers.contract.base import AtOnce
from constrained_nn.sets import Box, ProjectableSet, constraint_set


@constraint_set
class NonnegativeSum(ProjectableSet):
    """Decisions whose sum is at least `floor`."""

    floor: Float[Tensor, "*#batch"]
    n: int = 2

    @property
    def dim(self) -> int:
        return self.n

    @property
    def batch_shape(self) -> torch.Size:
        return self.floor.shape

    def residual(self, y):
        return torch.relu(self.floor - y.sum(-1)).unsqueeze(-1)

    def scale(self, y):
        return (y.abs().sum(-1) + self.floor.abs()).unsqueeze(-1)

    def project(self, y):
        return y + self.residual(y) / self.n


class Own(ProjectionLayer[NonnegativeSum]):
    """Enforces the set and says nothing about single elements."""

    accepts = (NonnegativeSum,)
    guarantee = "exact"

    def enforce(self, y, set, factor, warm_start):
        return set.project(y)


class Infinite(ProjectionLayer[Box]):
    """Returns what overflows, and offers it at once."""

    accepts = (Box,)
    guarantee = "none"

    def at_once(self, y, set, factor):
        return AtOnce(y * torch.inf)

    def enforce(self, y, set, factor, warm_start):
        return y * torch.inf


class Idle(Own):
    """Returns its input."""

    def enforce(self, y, set, factor, warm_start):
        return y


@constraint_set
class Coarse(NonnegativeSum):
    """Its projection ends a little outside."""

    def project(self, y):
        return y + (1.0 - 1e-6) * self.residual(y) / self.n
