"""Control barrier functions: state -> half-spaces of safe inputs."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from constrained_nn.linalg import matvec, without_autocast
from constrained_nn.protocols import BarrierFunction, ControlAffine, FusedBarrierFunction
from constrained_nn.sets import Polyhedron


class ControlBarrier:
    """Control barrier function with one row for each barrier.

    `∇h·(drift + actuation u) + rate h >= 0`, that is `A u <= upper` with `A = −∇h·actuation`.

    Guarantee: in continuous time an input in `condition(t, x)` at every instant keeps `h >= 0` once it holds.
    With an input held over a step the guarantee is that of the step's own analysis, not of this class.

    Args:
        barrier: `h(x)` `(*batch, k)` with its gradient; if it offers `safe_rows`, they are used.
        plant: The control-affine plant that the barrier is written for.
        rate: Decay rate `alpha` [1/s].

    Returns:
        `condition(t, x)`: the set of safe inputs, `k` rows in `m` dimensions.

    Raises:
        ValueError: `rate` is not positive.

    Example:
        >>> from control_envs.tasks import UnicycleObstacles
        >>> import torch
        >>> task = UnicycleObstacles()
        >>> cbf = ControlBarrier(task.barrier, task.plant, rate=task.alpha)
        >>> cbf.condition(0.0, torch.tensor([[-3.0, 0.2, -0.5, 1.0, 0.0]])).A.shape
        torch.Size([1, 2, 2])

    References:
        Ames et al., Control Barrier Functions: Theory and Applications (2019), Eq. 12.
    """

    def __init__(self, barrier: BarrierFunction, plant: ControlAffine, *, rate: float) -> None:
        if not rate > 0:
            raise ValueError(
                f"ControlBarrier: expected rate > 0 [1/s], got {rate}. Larger acts later and harder."
            )
        self.barrier = barrier
        self.plant = plant
        self.rate = rate
        self._fused = isinstance(barrier, FusedBarrierFunction)

    def value(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k"]:
        """`h(x)`; nonnegative is safe."""
        return self.barrier.value(x)

    def gradient(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k n"]:
        """`∂h/∂x`."""
        return self.barrier.gradient(x)

    @without_autocast
    def condition(self, t: Any, x: Float[Tensor, "*batch n"]) -> Polyhedron:
        """Safe inputs at `x`: rows `A u <= upper`."""
        if self._fused:
            A, upper = self.barrier.safe_rows(x, self.rate)  # pyright: ignore[reportAttributeAccessIssue]
            return Polyhedron(A, upper=upper)
        h, gradient = self.barrier.value(x), self.barrier.gradient(x)
        drift = matvec(gradient, self.plant.drift(t, x))
        return Polyhedron(-(gradient @ self.plant.actuation(t, x)), upper=drift + self.rate * h)
