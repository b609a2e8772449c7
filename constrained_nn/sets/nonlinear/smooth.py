"""Smooth maps `c(y, context)` with their derivatives: what the rows of a `NonlinearSet` are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class SmoothMap(ABC):
    """Rows `c(y, context)`, differentiable, and their Jacobian in `y`.

    A map is a value without tensors (tensors that vary or learn come in through `context`); two maps are equal
    when they are the same object or compare equal.
    """

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension `n` of `y`."""

    @abstractmethod
    def value(self, y: Float[Tensor, "*batch n"], context: Float[Tensor, "*batch k"]) -> Tensor:
        """The rows `(*batch, m)`."""

    @abstractmethod
    def jacobian(self, y: Float[Tensor, "*batch n"], context: Float[Tensor, "*batch k"], rows: int) -> Tensor:
        """Their derivative in `y` `(*batch, m, n)`; `rows` is `m`."""


@dataclass(frozen=True)
class SmoothFunction(SmoothMap):
    """Rows from a function written with torch.

    `c(y, context)`; the Jacobian by `torch.func`: forward mode for up to two columns a row, else reverse mode.

    Args:
        function: `(y (..., n), context (..., k)) -> (..., m)`, for any leading dimensions.
        size: Dimension `n` of `y`.
        derivative: `(y, context) -> (..., m, n)`, if it is known in closed form.
    """

    function: Callable[[Any, Any], Tensor]
    size: int
    derivative: Callable[[Any, Any], Tensor] | None = None

    @property
    def dim(self) -> int:
        return self.size

    def value(self, y: Float[Tensor, "*batch n"], context: Float[Tensor, "*batch k"]) -> Tensor:
        return self.function(y, context)

    def jacobian(self, y: Float[Tensor, "*batch n"], context: Float[Tensor, "*batch k"], rows: int) -> Tensor:
        if self.derivative is not None:
            return self.derivative(y, context)
        return batched_jacobian(self.function, y, context, forward=self.size <= 2 * rows)


class StageJacobian(NamedTuple):
    """Derivatives of the rows of a trajectory, stage by stage `(*batch, T, ...)`.

    With `x` the state before a stage, `u` its input and `z` the state after it, stage `k` has the rows
    `z − step(x, u)` and `path(z, u)`.

    Args:
        step_x: `∂ step/∂x` `(*batch, T, nx, nx)`; of no effect in stage 0.
        step_u: `∂ step/∂u` `(*batch, T, nx, nu)`.
        path_z: `∂ path/∂z` `(*batch, T, p, nx)`.
        path_u: `∂ path/∂u` `(*batch, T, p, nu)`.
    """

    step_x: Tensor
    step_u: Tensor
    path_z: Tensor
    path_u: Tensor


@dataclass(frozen=True)
class TrajectoryMap(SmoothMap):
    """Rows of a trajectory: dynamics, then path constraints, stage by stage.

    `x_{k+1} − step(x_k, u_k)` and `path(x_{k+1}, u_k)` for `k = 0 … T − 1`, with `y = (x_1 … x_T, u_0 … u_{T−1})`.

    A row touches neighboring stages only, so that the normal matrix of any selection of rows is banded; layers
    use that. Equal dynamics at all stages; bounds may differ between stages (`±inf` where a path row does not
    apply).

    Args:
        step: `(x (..., nx), u (..., nu), p (..., q)) -> (..., nx)`, the state after a stage.
        path: `(x (..., nx), u (..., nu), p (..., q)) -> (..., r)`, of the state after the stage and its input.
        state_dim: `nx`; the context is the start state `(*batch, nx)` followed by parameters `p` `(*batch, q)`.
        input_dim: `nu`.
        path_dim: `r`.
        horizon: `T`.
        derivative: `(x, u, z, p) -> StageJacobian`, with `z` the state after the stage, if it is known in closed form.
    """

    step: Callable[[Any, Any, Any], Tensor]
    path: Callable[[Any, Any, Any], Tensor]
    state_dim: int
    input_dim: int
    path_dim: int
    horizon: int
    derivative: Callable[[Any, Any, Any, Any], StageJacobian] | None = None

    @property
    def dim(self) -> int:
        return self.horizon * (self.state_dim + self.input_dim)

    @property
    def stage_rows(self) -> int:
        """Rows of one stage."""
        return self.state_dim + self.path_dim

    def split(self, y: Float[Tensor, "*batch n"]) -> tuple[Tensor, Tensor]:
        """States `(*batch, T, nx)`, after the start state, and inputs `(*batch, T, nu)`."""
        states, inputs = y.split([self.horizon * self.state_dim, self.horizon * self.input_dim], -1)
        return states.unflatten(-1, (self.horizon, self.state_dim)), inputs.unflatten(
            -1, (self.horizon, self.input_dim)
        )

    def join(self, states: Tensor, inputs: Tensor) -> Float[Tensor, "*batch n"]:
        """The inverse of `split`."""
        return torch.cat([states.flatten(-2), inputs.flatten(-2)], -1)

    def bounds(
        self, lower: Float[Tensor, "*#batch r"], upper: Float[Tensor, "*#batch r"]
    ) -> tuple[Tensor, Tensor]:
        """Bounds of all rows `(*batch, m)`: zero for the dynamics, and those of the path rows `(*batch, [T,] r)`."""
        sides = []
        for side in (lower, upper):
            side = side if side.ndim > 1 and side.shape[-2] == self.horizon else side.unsqueeze(-2)
            side = side.expand(*side.shape[:-2], self.horizon, self.path_dim)
            zeros = side.new_zeros(*side.shape[:-1], self.state_dim)
            sides.append(torch.cat([zeros, side], -1).flatten(-2))
        return sides[0], sides[1]

    def value(self, y: Float[Tensor, "*batch n"], context: Float[Tensor, "*batch k"]) -> Tensor:
        x, u, z, p = self._stages(y, context)
        return torch.cat([z - self.step(x, u, p), self.path(z, u, p)], -1).flatten(-2)

    def _stages(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z, u = self.split(y)
        start, p = context.split([self.state_dim, context.shape[-1] - self.state_dim], -1)
        batch = z.shape[:-2]
        start = start.unsqueeze(-2).expand(*batch, 1, self.state_dim)
        x = torch.cat([start, z[..., :-1, :]], -2)
        return x, u, z, p.unsqueeze(-2).expand(*batch, self.horizon, p.shape[-1])

    def stage_jacobian(
        self, y: Float[Tensor, "*batch n"], context: Float[Tensor, "*batch k"]
    ) -> StageJacobian:
        """Derivatives of the rows in the form that a banded factorization takes."""
        x, u, z, p = self._stages(y, context)
        if self.derivative is not None:
            return self.derivative(x, u, z, p)
        nx = self.state_dim

        def step(xu: Tensor, p: Tensor) -> Tensor:
            return self.step(xu[..., :nx], xu[..., nx:], p)

        def path(zu: Tensor, p: Tensor) -> Tensor:
            return self.path(zu[..., :nx], zu[..., nx:], p)

        columns = nx + self.input_dim
        of_step = batched_jacobian(step, torch.cat([x, u], -1), p, forward=columns <= 2 * nx)
        of_path = batched_jacobian(path, torch.cat([z, u], -1), p, forward=columns <= 2 * self.path_dim)
        return StageJacobian(of_step[..., :nx], of_step[..., nx:], of_path[..., :nx], of_path[..., nx:])

    def jacobian(self, y: Float[Tensor, "*batch n"], context: Float[Tensor, "*batch k"], rows: int) -> Tensor:
        d = self.stage_jacobian(y, context)
        nx, T = self.state_dim, self.horizon
        eye = torch.eye(T, dtype=y.dtype, device=y.device)
        after, before = eye[:, None, :, None], eye.roll(1, 0).tril()[:, None, :, None]
        one = torch.eye(nx, dtype=y.dtype, device=y.device).expand_as(d.step_x)
        # (*batch, stage of the row, row, stage of the column, column)
        in_x = torch.cat([one, d.path_z], -2).unsqueeze(-2) * after
        in_x = in_x - torch.cat([d.step_x, torch.zeros_like(d.path_z)], -2).unsqueeze(-2) * before
        in_u = torch.cat([-d.step_u, d.path_u], -2).unsqueeze(-2) * after
        return torch.cat([in_x.flatten(-2), in_u.flatten(-2)], -1).flatten(-3, -2)


def batched_jacobian(
    function: Callable[[Any, Any], Tensor], y: Tensor, context: Tensor, *, forward: bool
) -> Tensor:
    """`∂ function/∂y` `(*batch, m, n)` for a function that works element by element over the batch."""
    batch = y.shape[:-1]
    mode = torch.func.jacfwd if forward else torch.func.jacrev
    if not batch:
        return mode(function)(y, context)
    context = context.expand(*batch, context.shape[-1])
    flat = torch.func.vmap(mode(function))(y.flatten(0, -2), context.flatten(0, -2))
    return flat.unflatten(0, batch)
