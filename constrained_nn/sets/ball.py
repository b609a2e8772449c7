"""Balls: Euclidean, ellipsoidal and of the 1-norm."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import ShapeError
from constrained_nn.linalg import (
    matvec,
    normalize,
    project_ellipsoid,
    project_simplex,
    rmatvec,
    safe_norm,
    symmetric_eigenvalues,
)
from constrained_nn.sets.base import (
    CenteredSet,
    are_tensors,
    check_batch,
    check_match,
    check_point,
    constraint_set,
)

_ADVICE = "Give it one entry for each component of y."


@constraint_set
class Ball(CenteredSet):
    """Euclidean ball.

    `{y : |y - center| <= radius}`.

    Guarantee: `project` is exact to a few rounding errors of `|y| + |center| + radius`. On the sphere its derivative
    is the identity (that of the inside). A negative radius is the empty set.

    Args:
        center: Center `(*batch, n)`, in the unit of `y`.
        radius: Radius `(*batch)`, in the unit of `y`.

    Raises:
        ShapeError: `center` has no last dimension, or dtype, device or batch shapes do not match.

    Example:
        >>> import torch
        >>> ball = Ball(torch.zeros(2), torch.tensor(5.0))
        >>> ball.project(torch.tensor([6.0, 8.0]))
        tensor([3., 4.])

    References:
        Boyd and Vandenberghe, Convex Optimization (2004), section 8.1.1.
    """

    center: Float[Tensor, "*#batch n"]
    radius: Float[Tensor, "*#batch"]

    def __post_init__(self) -> None:
        if are_tensors(self.center, self.radius):
            check_point("Ball", "center", self.center, _ADVICE, radius=self.radius)

    @property
    def upper(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.radius.unsqueeze(-1)

    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1"]:
        return safe_norm(y - self.center).unsqueeze(-1)

    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1 n"]:
        return normalize(y - self.center)[0].unsqueeze(-2)

    def shrink(self, margin: Float[Tensor, "*#batch 1"]) -> Ball:
        return Ball(self.center, (self.radius - margin.squeeze(-1)).clamp_min(0.0))

    def project(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        d = y - self.center
        radius = self.radius.clamp_min(0.0).unsqueeze(-1)
        inside = safe_norm(d.detach()).unsqueeze(-1) <= radius.detach()
        direction, _ = normalize(torch.where(inside, 0.0, d))
        return torch.where(inside, y, self.center + direction * radius)


@constraint_set
class Ellipsoid(CenteredSet):
    """Ellipsoid, the sublevel set of a quadratic function.

    `{y : (y - center)ᵀ P (y - center) <= level}`, with `P` positive semidefinite (only its symmetric part counts);
    directions in which `P` vanishes are free.

    Guarantee: `project` solves the secular equation of its multiplier to rounding, for `cond(P)` up to 1e12. On
    the boundary its derivative is the identity (that of the inside). A negative level is the empty set.

    Args:
        center: Center `(*batch, n)`, in the unit of `y`.
        P: Matrix `(*batch, n, n)` or shared `(n, n)`, in level units per squared unit of `y`.
        level: Level `(*batch)`, for example that of a Lyapunov function.

    Raises:
        ShapeError: `P` is not square of size `n`, `center` has no last dimension, or dtype, device or batch
            shapes do not match.

    Example:
        >>> import torch
        >>> P = torch.tensor([[1.0, 0.0], [0.0, 4.0]])
        >>> Ellipsoid(torch.zeros(2), P, torch.tensor(4.0)).project(torch.tensor([4.0, 0.0]))
        tensor([2., 0.])

    References:
        Boyd and Vandenberghe, Convex Optimization (2004), section 2.2.2 and exercise 4.22 (secular equation).
    """

    center: Float[Tensor, "*#batch n"]
    P: Float[Tensor, "*#batch n n"]
    level: Float[Tensor, "*#batch"]

    def __post_init__(self) -> None:
        if not are_tensors(self.center, self.P, self.level):
            return
        check_point("Ellipsoid", "center", self.center, _ADVICE, level=self.level)
        n = self.center.shape[-1]
        if self.P.ndim < 2 or self.P.shape[-2:] != (n, n):
            raise ShapeError(
                f"Ellipsoid: expected P of shape (*batch, {n}, {n}) for a center with {n} components, got "
                f"{tuple(self.P.shape)}. A diagonal matrix is `torch.diag_embed(weights)`."
            )
        check_match("Ellipsoid", "center", self.center, P=self.P)
        check_batch("Ellipsoid", center=self.center.shape[:-1], P=self.P.shape[:-2], level=self.level.shape)

    @property
    def upper(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.level.unsqueeze(-1)

    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1"]:
        d = y - self.center
        return (d * matvec(self.P, d)).sum(-1, keepdim=True)

    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1 n"]:
        return matvec(self.P + self.P.mT, y - self.center).unsqueeze(-2)

    def shrink(self, margin: Float[Tensor, "*#batch 1"]) -> Ellipsoid:
        return Ellipsoid(self.center, self.P, (self.level - margin.squeeze(-1)).clamp_min(0.0))

    def project(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        d = y - self.center
        nearest = self.center + project_ellipsoid(d, self.P, self.level.clamp_min(0.0))
        return torch.where(self.value(y) <= self.upper, y, nearest)

    def coordinates(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        """`z = Lᵀ d`, `P = L Lᵀ` positive definite, in which `value(y) = |z|²`."""
        return rmatvec(torch.linalg.cholesky_ex(self.P).L, y - self.center)

    def from_coordinates(self, z: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        """The inverse of `coordinates`."""
        upper = torch.linalg.cholesky_ex(self.P).L.mT
        d = torch.linalg.solve_triangular(upper, z.unsqueeze(-1), upper=True).squeeze(-1)
        return self.center + d

    def validate(self) -> None:
        super().validate()
        smallest = symmetric_eigenvalues(self.P)
        if (bad := smallest[..., 0] < -1e-12 * smallest[..., -1].abs()).any():
            index = tuple(bad.nonzero()[0].tolist())
            raise ValueError(
                f"Ellipsoid.validate: expected P positive semidefinite, got eigenvalue "
                f"{smallest[..., 0][index].item():g} at index {list(index)}. Build it as Lᵀ L, or project it "
                f"with PSDCone."
            )


@constraint_set
class L1Ball(CenteredSet):
    """Ball of the 1-norm.

    `{y : Σ |yᵢ - centerᵢ| <= radius}`.

    Guarantee: `project` is exact to a few rounding errors of `|y| + |center| + radius`: soft thresholding with a
    threshold found by sorting. On the boundary its derivative is the identity (that of the inside), at a kink
    that of the face with more nonzero entries. A negative radius is the empty set.

    Args:
        center: Center `(*batch, n)`, in the unit of `y`.
        radius: Radius `(*batch)`, in the unit of `y`.

    Raises:
        ShapeError: `center` has no last dimension, or dtype, device or batch shapes do not match.

    Example:
        >>> import torch
        >>> L1Ball(torch.zeros(2), torch.tensor(1.0)).project(torch.tensor([2.0, -0.5]))
        tensor([1., 0.])

    References:
        Duchi, Shalev-Shwartz, Singer and Chandra, Efficient projections onto the l1-ball (2008), Eq. 8.
    """

    center: Float[Tensor, "*#batch n"]
    radius: Float[Tensor, "*#batch"]

    def __post_init__(self) -> None:
        if are_tensors(self.center, self.radius):
            check_point("L1Ball", "center", self.center, _ADVICE, radius=self.radius)

    @property
    def upper(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.radius.unsqueeze(-1)

    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1"]:
        return (y - self.center).abs().sum(-1, keepdim=True)

    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1 n"]:
        return (y - self.center).sign().unsqueeze(-2)

    def shrink(self, margin: Float[Tensor, "*#batch 1"]) -> L1Ball:
        return L1Ball(self.center, (self.radius - margin.squeeze(-1)).clamp_min(0.0))

    def project(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        d = y - self.center
        shrunk = d.sign() * project_simplex(d.abs(), self.radius.clamp_min(0.0))
        return torch.where(self.value(y) > self.upper, self.center + shrunk, y)
