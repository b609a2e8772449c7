"""A set that a newcomer makes of simpler ones: `parts()` and the abstract methods, nothing else."""

import torch
from torch import Tensor

from constrained_nn.sets import Box, ConstraintSet, Polyhedron, batched, constraint_set


@constraint_set
class Budget(ConstraintSet):
    """Amounts between 0 and 1 whose weighted sum is at most `limit`."""

    weights: Tensor = batched(core=1)
    limit: Tensor = batched(core=0)

    @property
    def dim(self) -> int:
        return self.weights.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(self.weights.shape[:-1], self.limit.shape)

    def parts(self):
        row = Polyhedron(self.weights.unsqueeze(-2), upper=self.limit.unsqueeze(-1))
        return [(0, row), (0, Box(torch.zeros_like(self.weights), torch.ones_like(self.weights)))]

    def residual(self, y):
        return torch.cat([part.residual(y) for _, part in self.parts()], -1)

    def scale(self, y):
        return torch.cat([part.scale(y) for _, part in self.parts()], -1)


@constraint_set
class Last(ConstraintSet):
    """The last of three components is at most `limit`."""

    limit: Tensor = batched(core=0)

    @property
    def dim(self) -> int:
        return 3

    @property
    def batch_shape(self) -> torch.Size:
        return self.limit.shape

    def parts(self):
        limit = self.limit.unsqueeze(-1)
        return [(2, Box(torch.full_like(limit, -torch.inf), limit))]

    def residual(self, y):
        return torch.relu(y[..., 2:] - self.limit.unsqueeze(-1))

    def scale(self, y):
        return y[..., 2:].abs() + self.limit.abs().unsqueeze(-1)
