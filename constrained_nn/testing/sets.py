"""What every constraint set promises."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from constrained_nn.sets import ConstraintSet, ProjectableSet, take_apart
from constrained_nn.testing.tensors import (
    element,
    expect,
    expect_close,
    is_shared,
    tensor_fields,
    tensor_of,
    with_tensors,
)

BATCH = 6
_SHAPES = "Write every operation over leading batch dimensions, with the decision last."


def check_set(
    build: Callable[[torch.Generator, tuple[int, ...]], Any], *, atol: float = 1e-10, seed: int = 0
) -> None:
    """Check a constraint set on random points: batches, bad elements, copies, parts and projection.

    Args:
        build: `(generator, batch) -> set`, whose float64 tensors carry `batch` or are shared.
        atol: Largest violation of a projected point for data of size one; it may move by ten times as much when it is
            projected again.
        seed: Seed of the draws.

    Raises:
        AssertionError: A promise of `ConstraintSet` is broken.
    """
    generator = torch.Generator().manual_seed(seed)
    set = build(generator, (BATCH,))
    y = 3.0 * torch.randn(BATCH, set.dim, generator=generator, dtype=torch.float64)
    _check_shapes(set, y)
    _check_elements(set, y)
    _check_bad_elements(set, y)
    _check_copies(set, y)
    _check_parts(set, y)
    if isinstance(set, ProjectableSet):
        _check_projection(set, y, generator, atol)


def _check_shapes(set: ConstraintSet, y: torch.Tensor) -> None:
    name = type(set).__name__
    expect(set.batch_shape in ((BATCH,), ()), f"{name}.batch_shape ({BATCH},)", set.batch_shape, _SHAPES)
    shape = set.residual(y).shape
    expect(shape[:-1] == (BATCH,), f"{name}.residual(y) of shape ({BATCH}, m)", tuple(shape), _SHAPES)
    scale = set.scale(y)
    expect(scale.shape == shape, f"{name}.scale(y) of shape {tuple(shape)}", tuple(scale.shape), _SHAPES)
    advice = "It is the size of the terms of each row, |A||y| + |b| for affine rows."
    expect((scale >= 0).all(), f"{name}.scale(y) >= 0", scale.min(), advice)
    equality = set.equality(y).shape[-1]
    expect(equality == shape[-1], f"{shape[-1]} entries of {name}.equality(y)", equality, _SHAPES)


def _check_elements(set: ConstraintSet, y: torch.Tensor) -> None:
    name, singles = type(set).__name__, [element(set, i) for i in range(BATCH)]
    loop = torch.stack([s.residual(y[i]) for i, s in enumerate(singles)])
    expect_close(set.residual(y), loop, f"{name}.residual of a batch to be that of its elements", _SHAPES)
    if isinstance(set, ProjectableSet):
        loop = torch.stack([s.project(y[i]) for i, s in enumerate(singles)])
        expect_close(set.project(y), loop, f"{name}.project of a batch to be that of its elements", _SHAPES)


def _check_bad_elements(set: ConstraintSet, y: torch.Tensor) -> None:
    name, healthy = type(set).__name__, torch.arange(BATCH) != 2
    bad = y.clone()
    bad[2] = torch.nan
    poisoned = [("y", set, bad)]
    for field in tensor_fields(set):
        if not is_shared(set, field):
            tensor = tensor_of(set, field).clone()
            tensor[2] = torch.nan
            poisoned.append((field, with_tensors(set, **{field: tensor}), y))
    advice = "Reduce over the last dimension only, and compare so that NaN is False."
    for field, other, point in poisoned:
        expected = f"NaN in {field} of one element to leave the others of {name} alone"
        same = torch.equal(other.violation(point)[healthy], set.violation(y)[healthy])
        expect(same, expected, other.violation(point), advice)
        held = other.contains(point, atol=1e30)[2] and not other.violation(point)[2].isfinite()
        expect(not held, f"an element with NaN in {field} not to be contained in {name}", "True", advice)
        if isinstance(other, ProjectableSet) and isinstance(set, ProjectableSet):
            point = point.clone().requires_grad_()
            value = other.project(point)
            expect_close(value[healthy].detach(), set.project(y)[healthy].detach(), expected, advice)
            (gradient,) = torch.autograd.grad(value[healthy].sum(), point)
            finite = gradient[healthy].isfinite().all()
            expect(finite, f"finite derivatives of {name}.project there", gradient, advice)


def _check_copies(set: ConstraintSet, y: torch.Tensor) -> None:
    leaves, spec = tree_flatten(set)
    for other in (pickle.loads(pickle.dumps(set)), copy.deepcopy(set), tree_unflatten(leaves, spec)):
        same = type(other) is type(set) and torch.equal(other.residual(y), set.residual(y))
        expect(
            same,
            f"a copy of {type(set).__name__} to be the same set",
            other,
            "Decorate it with @constraint_set.",
        )


def _check_parts(set: ConstraintSet, y: torch.Tensor) -> None:
    parts = list(take_apart(set))
    if len(parts) == 1 and parts[0][1] is set:
        return
    pieces = [part.violation(y[..., start : start + part.dim]) for start, part in parts]
    outside = torch.stack([p.expand(BATCH) for p in pieces]).amax(0) > 1e-9
    expect(
        torch.equal(outside, set.violation(y) > 1e-9),
        f"the parts of {type(set).__name__} to hold where the set does",
        outside.tolist(),
        "Together they are the whole set; `start` is the first component of a part.",
    )


def _check_projection(set: ProjectableSet, x: torch.Tensor, generator: torch.Generator, atol: float) -> None:
    name = type(set).__name__
    px = set.project(x)
    missed = set.violation(px) > atol * (1.0 + set.scale(px).amax(-1))
    expect(
        not missed.any(), f"{name}.project(y) in the set", set.violation(px), "It is the nearest point of it."
    )
    expect_close(
        set.project(px),
        px,
        f"{name}.project to leave its result alone",
        "A point inside stays.",
        atol=10 * atol,
    )
    y = x + torch.randn(x.shape, generator=generator, dtype=x.dtype)
    py = set.project(y)
    moved, gap = (px - py).square().sum(-1), ((px - py) * (x - y)).sum(-1)
    advice = "Another map than the nearest point belongs into a layer."
    expect((moved <= gap + 1e-10).all(), f"|Px - Py|² <= (Px - Py)·(x - y) for {name}", moved - gap, advice)
