"""Lyapunov functions: state -> half-space of velocities along which they decrease."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from constrained_nn.errors import ShapeError
from constrained_nn.linalg import matvec, without_autocast
from constrained_nn.plain_state import PlainState
from constrained_nn.sets import Halfspace


class AngleEmbedding(PlainState):
    """Coordinates of a deviation in which full turns are no distance.

    Each angle `e` becomes `sin e` in its place and `1 − cos e` at the end; other entries stay.

    Args:
        dim: Number of states `n`.
        angles: Positions of the angles [rad].
    """

    is_angle: Tensor
    places: Tensor

    def __init__(self, dim: int, angles: Sequence[int]) -> None:
        super().__init__()
        places = torch.zeros(len(angles), dim)
        places[range(len(angles)), list(angles)] = 1.0
        self.keep("places", places, saved=True)
        self.keep("is_angle", places.sum(0) > 0, saved=True)

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return sum(self.places.shape)

    def forward(self, e: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch k"]:
        half = torch.sin(0.5 * matvec(self.places.to(e.dtype), e))
        return torch.cat([torch.where(self.is_angle, e.sin(), e), 2.0 * half.square()], -1)

    def pull_back(
        self, e: Float[Tensor, "*batch n"], gradient: Float[Tensor, "*batch k"]
    ) -> Float[Tensor, "*batch n"]:
        """`Jᵀ gradient`, with `J` the derivative of the coordinates."""
        n = e.shape[-1]
        places = self.places.to(e.dtype)
        turned = (gradient[..., n:] * matvec(places, e).sin()) @ places
        return torch.where(self.is_angle, e.cos(), 1.0) * gradient[..., :n] + turned


class LyapunovFunction(nn.Module, ABC):
    """A function `V` of the state with `V(origin) = 0`, positive elsewhere, that shall decrease at `rate`.

    Args:
        dim: Number of states `n`.
        rate: Decay rate `alpha` [1/s] of `condition`.
        origin: The equilibrium `(n,)`; default 0.
        angles: Positions of states that are angles: `V` is the same after a full turn.

    Raises:
        ValueError: `rate` is negative.
        ShapeError: `origin` does not have `dim` entries.
    """

    # whether the function is convex in the coordinates of `measure`
    convex_in_coordinates: ClassVar[bool] = False
    origin: Tensor

    def __init__(
        self, dim: int, *, rate: float, origin: Tensor | None = None, angles: Sequence[int] = ()
    ) -> None:
        super().__init__()
        if not rate >= 0:
            raise ValueError(
                f"{type(self).__name__}: expected rate >= 0 [1/s], got {rate}. V decreases as exp(−rate t)."
            )
        origin = torch.zeros(dim) if origin is None else origin.detach().clone()
        if origin.shape != (dim,):
            raise ShapeError(
                f"{type(self).__name__}: expected origin of shape ({dim},), got {tuple(origin.shape)}. It is the "
                f"state where V is 0."
            )
        self.rate = rate
        self.embedding = AngleEmbedding(dim, angles) if angles else None
        self.register_buffer("origin", origin)

    @property
    def coordinates(self) -> int:
        """Number of coordinates that `measure` sees: the states, and one more for each angle."""
        return self.origin.shape[0] if self.embedding is None else self.embedding.dim

    @property
    def convex(self) -> bool:
        """Whether `V` is convex in the state for every parameter."""
        return self.convex_in_coordinates and self.embedding is None

    @abstractmethod
    def measure(
        self, z: Float[Tensor, "*batch k"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch k"]]:
        """`V` and its gradient in the coordinates of the deviation from the origin."""

    def value_and_gradient(
        self, x: Float[Tensor, "*batch n"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch n"]]:
        """`V(x)` and `∇V(x)`, both differentiable in the state and in the parameters."""
        e = x - self.origin
        if self.embedding is None:
            return self.measure(e)
        value, gradient = self.measure(self.embedding(e))
        return value, self.embedding.pull_back(e, gradient)

    def value(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """`V(x)`."""
        return self.value_and_gradient(x)[0]

    def gradient(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """`∇V(x)`."""
        return self.value_and_gradient(x)[1]

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        return self.value(x)

    @without_autocast
    def condition(self, t: Any, x: Float[Tensor, "*batch n"]) -> Halfspace:
        """Velocities `dx/dt` with `∇V·dx/dt <= −rate V`."""
        value, gradient = self.value_and_gradient(x)
        return Halfspace(gradient, -self.rate * value)


class QuadraticLyapunov(LyapunovFunction):
    """Quadratic Lyapunov function with a learnable matrix.

    `V(x) = eᵀ P e`, `P = F Fᵀ + floor I`, `e = x − origin`.

    Guarantee: `V >= floor |e|²` for every parameter, and the gradient `2 P e` vanishes at the origin only. With
    `angles`, `e` are the coordinates `sin e` and `1 − cos e`, and the gradient also vanishes half a turn away.

    Args:
        P: Initial matrix `(k, k)`, symmetric, `P − floor I` positive definite; `k` is the number of states, and one
            more for each angle.
        rate: Decay rate `alpha` [1/s] of `condition`.
        floor: Least curvature.
        origin: The equilibrium `(n,)`; default 0.
        angles: Positions of states that are angles.

    Returns:
        `value(x)`, `gradient(x)`; `condition(t, x)`: the half-space of velocities.

    Raises:
        ValueError: `P − floor I` is not positive definite.

    Example:
        >>> import torch
        >>> V = QuadraticLyapunov(torch.diag(torch.tensor([1.0, 4.0])), rate=0.5)
        >>> x = torch.tensor([1.0, 1.0])
        >>> round(V.value(x).item(), 4), V.gradient(x).detach().round(decimals=4)
        (5.0, tensor([2., 8.]))

    References:
        Khalil, Nonlinear Systems (2002), section 4.3.
    """

    convex_in_coordinates = True

    def __init__(
        self,
        P: Float[Tensor, "k k"],
        *,
        rate: float,
        floor: float = 1e-3,
        origin: Tensor | None = None,
        angles: Sequence[int] = (),
    ) -> None:
        super().__init__(P.shape[-1] - len(angles), rate=rate, origin=origin, angles=angles)
        eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
        factor, info = torch.linalg.cholesky_ex(P.detach() - floor * eye)
        if int(info):
            least = torch.linalg.eigvalsh(P.detach()).min().item()
            raise ValueError(
                f"QuadraticLyapunov: expected P with eigenvalues above floor = {floor}, got {least:.3g}. Lower the "
                f"floor, or add to P."
            )
        self.floor = floor
        self.factor = nn.Parameter(factor)

    def measure(
        self, z: Float[Tensor, "*batch k"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch k"]]:
        half = matvec(self.factor.mT, z)
        value = half.square().sum(-1) + self.floor * z.square().sum(-1)
        return value, 2.0 * (matvec(self.factor, half) + self.floor * z)
