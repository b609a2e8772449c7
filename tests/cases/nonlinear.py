"""Rows of nonlinear sets and of the layers that enforce them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.errors import ConvergenceError, InfeasibleError, SetTypeError, ShapeError
from constrained_nn.layers import HardNetPlusPlus, NearestPoint, Taped
from constrained_nn.sets import (
    Ball,
    Box,
    ConstraintSet,
    Intersection,
    NonlinearSet,
    Polyhedron,
    SmoothFunction,
    StageJacobian,
    TrajectoryMap,
    constraint_set,
)
from constrained_nn.solvers import GaussNewton
from tests.cases import sets
from tests.cases._rows import BadCall, Batch, Edge, LayerCase, SetCase
from tests.cases.sets import INF, rand, randn, tensor
from tests.oracles import hardnet_affine, numpy


def wave_rows(y: Tensor, context: Tensor) -> Tensor:
    """A surface `y₂ = sin(y₀) + c₀`, the squared distance of `(y₀, y₁)` to `(c₁, c₂)`, stretched, and `y₁`."""
    surface = y[..., 2] - torch.sin(y[..., 0]) - context[..., 0]
    away = y[..., :2] - context[..., 1:]
    return torch.stack([surface, away[..., 0].square() + 1.5 * away[..., 1].square(), y[..., 1]], -1)


def wave_slope(y: Tensor, context: Tensor) -> Tensor:
    """Derivative of `wave_rows`, by hand: on a fake GPU `torch.func` has none."""
    away, zero = y[..., :2] - context[..., 1:], torch.zeros_like(y[..., 0])
    surface = torch.stack([-torch.cos(y[..., 0]), zero, zero + 1.0], -1)
    ellipse = torch.stack([2.0 * away[..., 0], 3.0 * away[..., 1], zero], -1)
    return torch.stack([surface, ellipse, torch.stack([zero, zero + 1.0, zero], -1)], -2)


WAVE = SmoothFunction(wave_rows, 3, wave_slope)


def wave(generator: torch.Generator, batch: Batch) -> NonlinearSet:
    """On the surface and outside of an ellipse; the third row is free.

    Both bounds have infinite entries, so that finite differences leave them alone: moving one side of an equality
    empties the set.
    """
    context = 0.5 * randn(generator, *batch, 3)
    floor = 0.5 + rand(generator, *batch, 1)
    zero, free = torch.zeros_like(floor), torch.full_like(floor, INF)
    return NonlinearSet(WAVE, torch.cat([zero, floor, -free], -1), torch.cat([zero, free, free], -1), context)


def wave_inside(set: NonlinearSet) -> Tensor:
    c, lower = set.context, set.lower
    first = c[..., 1] + (lower[..., 1] + 0.5).sqrt()
    return torch.stack([first, c[..., 2].expand_as(first), torch.sin(first) + c[..., 0]], -1)


def wave_violation(set: NonlinearSet, y: np.ndarray) -> float:
    c = numpy(set.context)
    surface = abs(y[2] - np.sin(y[0]) - c[0])
    square = (y[0] - c[1]) ** 2 + 1.5 * (y[1] - c[2]) ** 2
    return max(surface, float(set.lower[1]) - square, 0.0)


def cart_step(x: Tensor, u: Tensor, p: Tensor) -> Tensor:
    """A point with speed `tanh(u)` and a drag that grows with its square."""
    position, speed = x[..., 0], x[..., 1]
    return torch.stack([position + 0.5 * speed, speed + 0.5 * torch.tanh(u[..., 0]) - 0.1 * speed**3], -1)


def cart_path(x: Tensor, u: Tensor, p: Tensor) -> Tensor:
    """Squared distance of the position to `p`, and the input."""
    return torch.stack([(x[..., 0] - p[..., 0]).square() + 0.1 * x[..., 1].square(), u[..., 0]], -1)


def cart_slope(x: Tensor, u: Tensor, z: Tensor, p: Tensor) -> StageJacobian:
    """Derivatives of `cart_step` and `cart_path`, by hand."""
    zero = torch.zeros_like(u[..., 0])
    one = zero + 1.0
    step_x = [[one, 0.5 * one], [zero, 1.0 - 0.3 * x[..., 1] * x[..., 1]]]
    push = 0.5 * (1.0 - torch.tanh(u[..., 0]) * torch.tanh(u[..., 0]))
    path_z = [[2.0 * (z[..., 0] - p[..., 0]), 0.2 * z[..., 1]], [zero, zero]]
    blocks = (step_x, [[zero], [push]], path_z, [[zero], [one]])
    return StageJacobian(*(torch.stack([torch.stack(row, -1) for row in rows], -2) for rows in blocks))


CART = TrajectoryMap(
    cart_step, cart_path, state_dim=2, input_dim=1, path_dim=2, horizon=2, derivative=cart_slope
)


def cart(generator: torch.Generator, batch: Batch) -> NonlinearSet:
    """Two stages of the point, out of a neighborhood of `p`, with bounded input."""
    start, away = 0.3 * randn(generator, *batch, 2), rand(generator, *batch, 1)
    lower, upper = CART.bounds(tensor(0.2, -INF), tensor(INF, 2.0))
    return NonlinearSet(CART, lower, upper, torch.cat([start, 2.0 + away], -1))


def cart_inside(set: NonlinearSet) -> Tensor:
    """Coasting."""
    x, p = set.context.split([2, 1], -1)
    inputs, states = torch.zeros_like(x[..., :1]), []
    for _ in range(CART.horizon):
        x = cart_step(x, inputs, p)
        states.append(x)
    u = torch.zeros_like(torch.stack(states, -2)[..., :1])
    return CART.join(torch.stack(states, -2), u)


def cart_violation(set: NonlinearSet, y: np.ndarray) -> float:
    c = numpy(set.context)
    x, p, worst = c[:2], c[2], 0.0
    for k in range(2):
        z, u = y[2 * k : 2 * k + 2], y[4 + k]
        ahead = [x[0] + 0.5 * x[1], x[1] + 0.5 * np.tanh(u) - 0.1 * x[1] ** 3]
        square = (z[0] - p) ** 2 + 0.1 * z[1] ** 2
        worst = max(worst, abs(z[0] - ahead[0]), abs(z[1] - ahead[1]), 0.2 - square, u - 2.0)
        x = z
    return worst


def wave_in_ball(generator: torch.Generator, batch: Batch) -> Intersection:
    """The surface and the ellipse, inside of a ball and of a half-space."""
    rows = wave(generator, batch)
    inside = wave_inside(rows)
    normal = randn(generator, *batch, 3)
    offset = (normal * inside).sum(-1, keepdim=True) + 0.1
    return Intersection(
        rows, Ball(inside, 1.0 + rand(generator, *batch)), Polyhedron(normal.unsqueeze(-2), upper=offset)
    )


def _nearest(set: NonlinearSet, y: np.ndarray) -> np.ndarray:
    """Nearest point by SLSQP from eight starts."""
    from scipy.optimize import minimize

    lower = float(set.lower[1])
    c = numpy(set.context)
    rows = [
        {"type": "eq", "fun": lambda z: z[2] - np.sin(z[0]) - c[0]},
        {"type": "ineq", "fun": lambda z: (z[0] - c[1]) ** 2 + 1.5 * (z[1] - c[2]) ** 2 - lower},
    ]
    found = []
    for angle in np.arange(8) * np.pi / 4:
        start = y + np.array([np.cos(angle), np.sin(angle), 0.0])
        options = {"maxiter": 300, "ftol": 1e-15}
        done = minimize(lambda z: 0.5 * ((z - y) ** 2).sum(), start, constraints=rows, options=options)
        if wave_violation(set, done.x) < 1e-7:
            found.append(done.x)
    return min(found, key=lambda z: float(((z - y) ** 2).sum()))


def disc_rows(y: Tensor, context: Tensor) -> Tensor:
    return y.square().sum(-1, keepdim=True)


DISC = SmoothFunction(disc_rows, 2)


def keep_out(batch: Batch = ()) -> NonlinearSet:
    """Outside of the unit disc."""
    return NonlinearSet(DISC, torch.ones(*batch, 1).double(), torch.full((*batch, 1), INF).double())


def _crossed() -> tuple[Tensor, NonlinearSet]:
    """Element 1 asks for `2 <= |y|² <= 1`."""
    return tensor([3.0, 0.0], [3.0, 0.0]), NonlinearSet(DISC, tensor([1.0], [2.0]), tensor([2.0], [1.0]))


def _edges() -> list[Edge]:
    return [
        Edge("along the ray", keep_out(), tensor(0.3, 0.4), tensor(0.6, 0.8)),
        Edge("outside", keep_out(), tensor(3.0, 4.0), tensor(3.0, 4.0)),
        Edge("boundary", keep_out(), tensor(1.0, 0.0), tensor(1.0, 0.0)),
    ]


@constraint_set
class Nowhere(ConstraintSet):
    """A set without rows and without projection."""

    center: Float[Tensor, "*#batch n"]

    @property
    def dim(self) -> int:
        return 2

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    def residual(self, y: Tensor) -> Tensor:
        return y - self.center

    def scale(self, y: Tensor) -> Tensor:
        return y.abs()


def precise() -> HardNetPlusPlus:
    return HardNetPlusPlus(method=GaussNewton(max_steps=12, atol=1e-12))


def precise_taped() -> HardNetPlusPlus:
    return HardNetPlusPlus(method=GaussNewton(max_steps=12, atol=1e-12), adjoint=Taped())


def one_undamped_step() -> HardNetPlusPlus:
    """All rows, no damping, one step: the closed form of HardNet-Aff where rows are affine."""
    return HardNetPlusPlus(method=GaussNewton.published(steps=1, damping=0.0))


def _closed_form(set: Polyhedron, y: np.ndarray) -> np.ndarray:
    return hardnet_affine(y, numpy(set.A), numpy(set.lower), numpy(set.upper))


def _disc(layer: type, y: Tensor):
    return lambda: layer().eval()(y, keep_out())


def _bad_calls(layer: type) -> list[BadCall]:
    name = layer.__name__
    box = Box(torch.zeros(2), torch.ones(2))
    members = Intersection(box, Nowhere(torch.zeros(2)))
    return [
        BadCall(name, SetTypeError, lambda: layer()(torch.zeros(2), members), "NonlinearSet"),
        BadCall(name, ShapeError, lambda: layer()(torch.zeros(3), box), "(*batch, 2)"),
        BadCall(name, InfeasibleError, lambda: layer().eval()(*_crossed()), "index [1]"),
        BadCall(name, ConvergenceError, _disc(layer, torch.zeros(2).double()), "center of a keep-out"),
    ]


ROWS = [
    SetCase("NonlinearSet", NonlinearSet, wave, wave_violation, wave_inside),
    SetCase("NonlinearSet-trajectory", NonlinearSet, cart, cart_violation, cart_inside),
    LayerCase(
        "HardNetPlusPlus",
        HardNetPlusPlus,
        precise,
        wave,
        None,
        wave_inside,
        _crossed,
        lambda: _edges()[1:],
        atol=1e-10,
        others={"Taped": precise_taped},
        gradient_atol=1e-5,
        iterative=True,
        compiles=False,
    ),
    LayerCase(
        "HardNetPlusPlus-trajectory",
        HardNetPlusPlus,
        precise,
        cart,
        None,
        cart_inside,
        atol=1e-9,
        others={"Taped": precise_taped},
        gradient_atol=1e-5,
        iterative=True,
        second_order=False,
        transforms=False,
    ),
    LayerCase(
        "HardNetPlusPlus-affine",
        HardNetPlusPlus,
        one_undamped_step,
        sets.polyhedron,
        _closed_form,
        sets.polyhedron_inside,
        atol=1e-10,
        second_order=False,
    ),
    LayerCase(
        "NearestPoint",
        NearestPoint,
        NearestPoint,
        wave,
        _nearest,
        wave_inside,
        _crossed,
        _edges,
        atol=1e-6,
        gradient_atol=1e-5,
        iterative=True,
        second_order=False,
        transforms=False,
    ),
    *_bad_calls(HardNetPlusPlus),
    *_bad_calls(NearestPoint),
    BadCall(
        "NonlinearSet",
        SetTypeError,
        lambda: NonlinearSet(disc_rows, torch.zeros(1), torch.ones(1)),  # pyright: ignore[reportArgumentType]
        "SmoothFunction(function, size)",
    ),
    BadCall(
        "NonlinearSet", ShapeError, lambda: NonlinearSet(DISC, torch.zeros(1), torch.ones(2)), "lower (1,)"
    ),
]
