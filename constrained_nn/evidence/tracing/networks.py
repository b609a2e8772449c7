"""Networks, policies, layers and certificate functions as straight-line programs, from their weights."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from constrained_nn.certificates import LyapunovFunction, NeuralLyapunov, QuadraticLyapunov
from constrained_nn.control import AffineModel, AnchoredController, AnchoredModel
from constrained_nn.errors import SetTypeError
from constrained_nn.evidence.tracing.builder import Builder
from constrained_nn.evidence.tracing.closed_forms import clamp, enforce_row, enforce_rows, quadratic
from constrained_nn.layers import Constrained, EuclideanProjection, Fixed, HardNetAffine, Parallel
from constrained_nn.sets import Box, Polyhedron, take_apart

_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.SiLU: "silu",
    nn.Sigmoid: "sigmoid",
}


def trace_module(module: nn.Module, inputs: int) -> dict[str, Any]:
    """The program of a module `(*batch, inputs) -> (*batch, k)`, as a JSON value; of `V` for a Lyapunov function.

    The weights are taken as they are, each the rational number that it is, and the functions are those of real
    arithmetic: what the machine computes differs from them by rounding. `nn.Softplus` turns linear beyond its
    threshold, which differs by less than `exp(−threshold) / beta`.

    Raises:
        SetTypeError: A part of it is not known. `emit_module.register(Kind)` makes a new kind known.
    """
    builder = Builder(inputs)
    return builder.program(emit_module(module, builder, 0))


@singledispatch
def emit_module(module: nn.Module, builder: Builder, a: int) -> int:
    """Write the instructions of a module for the input in register `a`; returns the register of its output.

    Raises:
        SetTypeError: The module is of an unknown kind.
    """
    kind = type(module)
    if kind in _ACTIVATIONS:
        return builder.emit(_ACTIVATIONS[kind], a)
    raise SetTypeError(
        f"trace_module: expected affine layers, activations, policies and closed-form layers, got {kind.__name__}. "
        f"Write its instructions with `emit_module.register({kind.__name__})`."
    )


@emit_module.register
def _(module: nn.Linear, builder: Builder, a: int) -> int:
    return builder.affine(a, _array(module.weight), None if module.bias is None else _array(module.bias))


@emit_module.register
def _(module: nn.Sequential, builder: Builder, a: int) -> int:
    for part in module:
        a = emit_module(part, builder, a)
    return a


@emit_module.register(nn.Identity)
@emit_module.register(nn.Dropout)
def _(module: nn.Module, builder: Builder, a: int) -> int:
    if isinstance(module, nn.Dropout) and module.training:
        raise SetTypeError(
            "trace_module: expected a module in eval mode, got Dropout in training. Call eval()."
        )
    return a


@emit_module.register
def _(module: nn.GELU, builder: Builder, a: int) -> int:
    if module.approximate != "none":
        raise SetTypeError("trace_module: expected GELU(approximate='none'), got the tanh approximation.")
    return builder.emit("gelu", a)


@emit_module.register
def _(module: nn.Softplus, builder: Builder, a: int) -> int:
    if module.beta == 1:
        return builder.emit("softplus", a)
    beta = builder.constant([module.beta])
    return builder.emit("div", builder.emit("softplus", builder.emit("mul", a, beta)), beta)


@emit_module.register
def _(module: nn.Hardtanh, builder: Builder, a: int) -> int:
    return clamp(builder, a, module.min_val, module.max_val)


@emit_module.register
def _(module: nn.LeakyReLU, builder: Builder, a: int) -> int:
    if not 0 <= module.negative_slope <= 1:
        raise SetTypeError("trace_module: expected LeakyReLU with a slope from 0 to 1.")
    return builder.emit("max", a, builder.emit("mul", a, builder.constant([module.negative_slope])))


@emit_module.register
def _(module: AnchoredController, builder: Builder, a: int) -> int:
    """`hold + above tanh(relu(s) / above) − below tanh(relu(−s) / below)`, `s = backbone(x) − backbone(origin)`."""
    there = emit_module(module.backbone, builder, builder.constant(_array(module.origin)))
    s = builder.emit("sub", emit_module(module.backbone, builder, a), there)
    below, above = _array(module.below), _array(module.above)
    hold = builder.constant(_array(module.hold))
    if np.isinf(below).all() and np.isinf(above).all():
        return builder.emit("add", hold, s)
    if not (np.isfinite(below).all() and np.isfinite(above).all()):
        raise SetTypeError("trace_module: expected an AnchoredController with limits on every side, or none.")
    if (below == above).all():
        return builder.emit("add", hold, _limit(builder, s, above))
    up = _limit(builder, builder.emit("relu", s), above)
    down = _limit(builder, builder.emit("relu", builder.emit("neg", s)), below)
    return builder.emit("add", hold, builder.emit("sub", up, down))


def _limit(builder: Builder, s: int, room: np.ndarray) -> int:
    limit = builder.constant(room)
    return builder.emit("mul", limit, builder.emit("tanh", builder.emit("div", s, limit)))


@emit_module.register
def _(module: Constrained, builder: Builder, a: int) -> int:
    """A backbone behind a closed-form layer with a constant set: a box, one row, or rows of full rank."""
    set = module.constraint(torch.zeros(1)) if isinstance(module.constraint, Fixed) else None
    y = emit_module(module.backbone, builder, a)
    parts = [] if set is None else [part for _, part in take_apart(set)]
    alone = parts[0] if set is not None and len(parts) == 1 and parts[0].dim == set.dim else None
    if isinstance(module.layer, HardNetAffine | EuclideanProjection):
        if isinstance(alone, Box):
            return clamp(builder, y, _array(alone.lower), _array(alone.upper))
        if isinstance(alone, Polyhedron) and alone.A.shape[-2] == 1 and alone.A.ndim == 2:
            bounds = {"lower": _array(alone.lower), "upper": _array(alone.upper)}
            finite = {k: builder.constant(b) for k, b in bounds.items() if np.isfinite(b).all()}
            return enforce_row(builder, y, builder.constant(_array(alone.A[0])), **finite)
    if (
        isinstance(module.layer, HardNetAffine)
        and isinstance(module.layer.metric, Parallel)
        and set is not None
        and all(isinstance(part, Box | Polyhedron) for part in parts)
        and _is_independent(module.layer, rows := Polyhedron.of(set))
    ):
        A, lower, upper = _array(rows.A), _array(rows.lower), _array(rows.upper)
        bounded = np.isfinite(lower) | np.isfinite(upper)
        return enforce_rows(builder, y, A[bounded], lower[bounded], upper[bounded])
    raise SetTypeError(
        f"trace_module: expected a box or one row behind HardNetAffine or EuclideanProjection, or independent rows "
        f"behind HardNetAffine, as Fixed(set), got {type(module.layer).__name__} with {type(set).__name__}. Other "
        f"layers have no closed form here."
    )


def _is_independent(layer: HardNetAffine, rows: Polyhedron) -> bool:
    """Whether a layer uses its closed form: as many outputs as rows or more, and rows of full rank."""
    if rows.A.ndim != 2 or rows.A.shape[0] > rows.A.shape[1]:
        return False
    factor = layer.factor(rows)
    return factor is not None and bool(factor.qr.independent.all())


@emit_module.register
def _(module: QuadraticLyapunov, builder: Builder, a: int) -> int:
    e = _deviation(module, builder, a)
    half = builder.affine(e, _array(module.factor).T)
    return builder.emit("add", _square(builder, half), _times(builder, module.floor, _square(builder, e)))


@emit_module.register
def _(module: NeuralLyapunov, builder: Builder, a: int) -> int:
    """`g(e) − g(0) − ∇g(0)·e + floor |e|²`, the network at the origin written out as well."""
    e = _deviation(module, builder, a)
    with torch.no_grad():
        weights = [_array(nn.functional.softplus(U) / U.shape[-1]) for U in (*module.through, module.last)]
    layers = [(_array(layer.weight), _array(layer.bias)) for layer in module.direct]  # pyright: ignore
    there = here = rise = bregman = -1
    for k, (W, b) in enumerate(layers):
        direct = builder.affine(e, W)
        offset = builder.constant(b)
        if k:
            there_before = builder.affine(here, weights[k - 1])
            offset = builder.emit("add", offset, there_before)
            direct = builder.emit("add", direct, builder.affine(rise, weights[k - 1]))
        # of each unit: its value at the origin, its rise from there, and what of the rise is beyond first order
        here = builder.emit("softplus", offset)
        there = builder.emit("softplus", builder.emit("add", offset, direct))
        slope = builder.emit("sigmoid", offset)
        rise = builder.emit("sub", there, here)
        beyond = builder.emit("sub", rise, builder.emit("mul", slope, direct))
        if k:
            carried = builder.emit("mul", slope, builder.affine(bregman, weights[k - 1]))
            beyond = builder.emit("add", beyond, carried)
        bregman = beyond
    total = builder.affine(bregman, weights[-1][None])
    return builder.emit("add", total, _times(builder, module.floor, _square(builder, e)))


def _deviation(module: LyapunovFunction, builder: Builder, a: int) -> int:
    if module.embedding is not None:
        raise SetTypeError("trace_module: expected a Lyapunov function without angles, got one with.")
    return builder.emit("sub", a, builder.constant(_array(module.origin)))


def _square(builder: Builder, a: int) -> int:
    return builder.emit("sum", builder.emit("square", a))


def _times(builder: Builder, factor: float, a: int) -> int:
    return builder.emit("mul", builder.constant([factor]), a)


def trace_closed_loop(model: nn.Module, policy: nn.Module, inputs: int) -> dict[str, Any]:
    """The program of `x -> model(x, policy(x))` for an `AnchoredModel` or an `AffineModel`, as a JSON value.

    Raises:
        SetTypeError: The model is of another kind, or a part of it is not known.
    """
    builder = Builder(inputs)
    u = emit_module(policy, builder, 0)
    if isinstance(model, AnchoredModel):
        there = emit_module(model.backbone, builder, builder.constant(_array(model.anchor)))
        here = emit_module(model.backbone, builder, builder.join(0, u))
        return builder.program(builder.emit("sub", here, there))
    if isinstance(model, AffineModel):
        there = emit_module(model.backbone, builder, builder.constant(_array(model.origin)))
        here = emit_module(model.backbone, builder, 0)
        held = builder.constant(_array(model.hold))
        return builder.program(
            builder.emit("sub", _velocity(builder, here, u, inputs), _velocity(builder, there, held, inputs))
        )
    raise SetTypeError(
        f"trace_closed_loop: expected an AnchoredModel or an AffineModel, got {type(model).__name__}."
    )


def _velocity(builder: Builder, parts: int, u: int, n: int) -> int:
    """`d + B u` of a register with `d` `(n)` and the rows of `B` `(n, m)`."""
    m = builder.sizes[u]
    rows = [builder.take(parts, range(n + i * m, n + (i + 1) * m)) for i in range(n)]
    driven = [builder.emit("sum", builder.emit("mul", row, u)) for row in rows]
    return builder.emit("add", builder.take(parts, range(n)), builder.join(*driven))


def trace_quadratic(P: Any, center: Any) -> dict[str, Any]:
    """The program of `(x − center)ᵀ P (x − center)`."""
    builder = Builder(len(np.asarray(P)))
    return builder.program(quadratic(builder, 0, P, center))


def _array(t: Tensor) -> np.ndarray:
    return t.detach().double().cpu().numpy()
