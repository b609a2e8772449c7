"""Cones with an apex: second-order and positive semidefinite."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import ShapeError
from constrained_nn.linalg import normalize, psd_project, safe_norm, smat, svec, symmetric_eigenvalues
from constrained_nn.sets.base import (
    IntervalSet,
    ProjectableSet,
    are_tensors,
    check_match,
    check_point,
    constraint_set,
)


@constraint_set
class SecondOrderCone(IntervalSet, ProjectableSet):
    """Second-order cone with apex and slope: friction cones, thrust cones, cones of sight.

    `{y = (t, z) : |z - z₀| <= slope (t - t₀)}` with `apex = (t₀, z₀)`; the axis `t` is the first component.

    Guarantee: `project` is exact to a few rounding errors of `|y| + |apex|`. On the surface its derivative is the
    identity (that of the inside), at the apex that of the polar cone (0).

    Args:
        apex: Apex `(*batch, n)`, axis first, in the unit of `y`; zeros for the standard cone.
        slope: Radius per unit of height `(*batch)`, positive; 1 for the standard cone, the friction coefficient
            for a contact force `(normal, tangential)`.

    Raises:
        ShapeError: `apex` has fewer than two components, or dtype, device or batch shapes do not match.

    Example:
        >>> import torch
        >>> friction = SecondOrderCone(torch.zeros(3), torch.tensor(0.5))
        >>> friction.project(torch.tensor([10.0, 5.0, 0.0]))
        tensor([10.,  5.,  0.])
        >>> friction.project(torch.tensor([-2.0, 0.5, 0.0]))
        tensor([0., 0., 0.])

    References:
        Boyd and Vandenberghe, Convex Optimization (2004), exercise 8.3(c), here with a slope.
    """

    apex: Float[Tensor, "*#batch n"]
    slope: Float[Tensor, "*#batch"]

    def __post_init__(self) -> None:
        if not are_tensors(self.apex, self.slope):
            return
        if self.apex.ndim < 1 or self.apex.shape[-1] < 2:
            raise ShapeError(
                f"SecondOrderCone: expected apex of shape (*batch, n) with n >= 2, got {tuple(self.apex.shape)}. "
                f"The first component is the axis; use `torch.zeros(n)` for the standard cone."
            )
        check_point("SecondOrderCone", "apex", self.apex, "", slope=self.slope)

    @property
    def dim(self) -> int:
        return self.apex.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(self.apex.shape[:-1], self.slope.shape)

    @property
    def lower(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return torch.full_like(self.slope, -torch.inf).unsqueeze(-1)

    @property
    def upper(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return torch.zeros_like(self.slope).unsqueeze(-1)

    def value(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1"]:
        d = y - self.apex
        return (safe_norm(d[..., 1:]) - self.slope * d[..., 0]).unsqueeze(-1)

    def jacobian(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch 1 n"]:
        outward, _ = normalize((y - self.apex)[..., 1:])
        axis = -self.slope.unsqueeze(-1).expand(*outward.shape[:-1], 1)
        return torch.cat([axis, outward.expand(*axis.shape[:-1], self.dim - 1)], -1).unsqueeze(-2)

    def shrink(self, margin: Float[Tensor, "*#batch 1"]) -> SecondOrderCone:
        slope = torch.where(self.slope > 0, self.slope, torch.inf)  # a cone without interior stays
        first = torch.nn.functional.one_hot(torch.zeros_like(self.slope, dtype=torch.long), self.dim)
        return SecondOrderCone(self.apex + first * (margin / slope.unsqueeze(-1)), self.slope)

    def project(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        d = y - self.apex
        t, z, slope = d[..., :1], d[..., 1:], self.slope.unsqueeze(-1)
        norm = safe_norm(z).unsqueeze(-1)
        outside, polar = norm > slope * t, slope * norm <= -t
        # the branch that is not taken is computed from harmless numbers, so that its derivatives stay finite
        direction, norm = normalize(torch.where(outside & polar.logical_not(), z, 0.0))
        height = (slope * norm + t) / (slope * slope + 1.0)
        ray = torch.cat([height, direction * (slope * height)], -1)
        # NaN passes through the first branch, never through the second
        return torch.where(outside, self.apex + torch.where(polar, 0.0, ray), y)

    def validate(self) -> None:
        super().validate()
        if (bad := self.slope <= 0).any():
            index = tuple(bad.nonzero()[0].tolist())
            raise ValueError(
                f"SecondOrderCone.validate: expected slope > 0, got {self.slope[index].item():g} at index "
                f"{list(index)}. Flip the sign of the axis, or use a Halfspace."
            )


@constraint_set
class PSDCone(ProjectableSet):
    """Cone of symmetric matrices that are at least a given one.

    `{svec S : S ⪰ smat(apex)}`; the decision is the upper triangle by rows, off-diagonal entries times √2
    (`svec`), so that Euclidean distance is Frobenius distance.

    Guarantee: `project` clips eigenvalues, to a few rounding errors of `|y| + |apex|`; first and second derivatives
    are exact also at repeated eigenvalues. Between two vanishing eigenvalues the derivative is that of the
    outside (0). `residual` holds the negative parts of the eigenvalues.

    Args:
        apex: svec of the smallest matrix `(*batch, n (n + 1) / 2)`; zeros for `S ⪰ 0`, `svec(δ I)` for `S ⪰ δ I`.

    Raises:
        ShapeError: The length of `apex` is not `n (n + 1) / 2`, or its dtype is not floating.

    Example:
        >>> import torch
        >>> PSDCone(torch.zeros(3)).project(torch.tensor([2.0, 0.0, -1.0]))
        tensor([2., 0., 0.])

    References:
        Boyd and Vandenberghe, Convex Optimization (2004), section 8.1.1; Malick and Sendov, Clarke generalized
        Jacobian of the projection onto the cone of positive semidefinite matrices (2006).
    """

    apex: Float[Tensor, "*#batch n"]

    def __post_init__(self) -> None:
        if not are_tensors(self.apex):
            return
        if self.apex.ndim < 1 or self.order * (self.order + 1) // 2 != self.apex.shape[-1] or self.order < 1:
            raise ShapeError(
                f"PSDCone: expected apex of shape (*batch, n (n + 1) / 2), got {tuple(self.apex.shape)}. "
                f"It is a symmetric matrix as `svec`; `torch.zeros(6)` for matrices of order 3."
            )
        check_match("PSDCone", "apex", self.apex)

    @property
    def order(self) -> int:
        """Number of rows of the matrix."""
        return (math.isqrt(8 * self.apex.shape[-1] + 1) - 1) // 2 if self.apex.ndim else 0

    @property
    def dim(self) -> int:
        return self.apex.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return self.apex.shape[:-1]

    def residual(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        return symmetric_eigenvalues(smat(y - self.apex)).clamp_max(0.0)

    def scale(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch m"]:
        size = safe_norm(y) + safe_norm(self.apex)
        return size.unsqueeze(-1).expand(*size.shape, self.order)

    def shrink(self, margin: Float[Tensor, "*#batch m"]) -> PSDCone:
        eye = torch.eye(self.order, dtype=margin.dtype, device=margin.device)
        return PSDCone(self.apex + margin.amax(-1, keepdim=True) * svec(eye))

    def project(self, y: Float[Tensor, "*#batch n"]) -> Float[Tensor, "*batch n"]:
        return self.apex + svec(psd_project(smat(y - self.apex)))
