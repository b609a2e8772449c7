"""What every layer promises."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import torch

from constrained_nn.layers import ProjectionLayer
from constrained_nn.solvers import Status
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
_PURE = "Let `enforce` depend on `y`, the set, `factor` and `warm_start` alone, element by element."
_COMPARE = "Compare in `residual` so that NaN stays NaN."


def check_layer(
    layer: ProjectionLayer,
    build: Callable[[torch.Generator, tuple[int, ...]], Any],
    *,
    atol: float = 1e-9,
    seed: int = 0,
) -> None:
    """Check a layer on random sets and decisions: what it reports, batches, bad elements, derivatives and copies.

    Args:
        layer: The layer.
        build: `(generator, batch) -> set`, feasible, whose float64 tensors carry `batch` or are shared.
        atol: Largest violation for data of size one, and difference between two ways to the same value.
        seed: Seed of the draws.

    Raises:
        AssertionError: A promise of `ProjectionLayer` is broken.
    """
    generator = torch.Generator().manual_seed(seed)
    set = build(generator, (BATCH,))
    y = 3.0 * torch.randn(BATCH, set.dim, generator=generator, dtype=torch.float64)
    name = type(layer).__name__
    expect(layer.takes(set), f"{name}.accepts to name {type(set).__name__}", layer.accepts, "Add the class.")
    expect(isinstance(layer.guarantee, str), f"{name}.guarantee to be words", layer.guarantee, "State it.")
    _check_result(layer, set, y, atol)
    _check_elements(layer, set, y, atol)
    _check_bad_elements(layer, set, y)
    _check_who_watches(layer, set, y)
    _check_copies(layer, set, y)


def _check_result(layer: ProjectionLayer, set: Any, y: torch.Tensor, atol: float) -> None:
    name, solution = type(layer).__name__, layer.solve(y, set)
    advice = "Draw a feasible set; a value outside of it is MISSED whatever `enforce` says."
    expect(solution.ok.all(), f"{name} to enforce every element", solution.describe_failures(), advice)
    for field in ("status", "steps", "violation"):
        shape = tuple(getattr(solution, field).shape)
        expect(shape == (BATCH,), f"{field} of shape ({BATCH},) from {name}", shape, "One number an element.")
    limit = atol * (1.0 + set.scale(solution.value).amax(-1))
    violation = set.violation(solution.value)
    expect((violation <= limit).all(), f"a violation below {atol}", violation, advice)
    wrong = (solution.violation - violation).abs() > limit
    expect(
        not wrong.any(), "the violation that is reported to be that of the value", solution.violation, advice
    )


def _check_elements(layer: ProjectionLayer, set: Any, y: torch.Tensor, atol: float) -> None:
    solution = layer.solve(y, set)
    for i in range(BATCH):
        single = layer.solve(y[i], element(set, i))
        expected = f"element {i} of a batch of {type(layer).__name__} to be the same alone"
        alone, together = single.value.detach(), solution.value[i].detach()
        expect_close(alone, together, expected, _PURE, rtol=1e-9, atol=atol)
        expect(single.status == solution.status[i], expected, single.status, _PURE)


def _check_bad_elements(layer: ProjectionLayer, set: Any, y: torch.Tensor) -> None:
    healthy, reference = torch.arange(BATCH) != 2, layer.solve(y, set)
    bad = y.clone()
    bad[2] = torch.nan
    poisoned = [("y", bad, set)]
    for field in tensor_fields(set):
        if not is_shared(set, field) and tensor_of(set, field).numel():
            tensor = tensor_of(set, field).clone()
            tensor[(2,) + (-1,) * (tensor.ndim - 1)] = torch.nan
            poisoned.append((field, y, with_tensors(set, **{field: tensor})))
    for field, point, other in poisoned:
        point = point.clone().requires_grad_()
        solution = layer.solve(point, other)
        expected = f"NaN in {field} of one element to leave the others of {type(layer).__name__} alone"
        if other is not set:
            held = other.contains(y, atol=torch.inf)[2]
            expect(not held, f"an element with NaN in {field} to contain nothing", held, _COMPARE)
        status = solution.status[2]
        expect(status == Status.NONFINITE_INPUT, f"NONFINITE_INPUT for NaN in {field}", status, _PURE)
        expect(
            torch.equal(solution.status[healthy], reference.status[healthy]), expected, solution.status, _PURE
        )
        found, wanted = solution.value[healthy].detach(), reference.value[healthy].detach()
        expect_close(found, wanted, expected, _PURE)
        if solution.value.requires_grad:
            (gradient,) = torch.autograd.grad(solution.value[healthy].sum(), point)
            expect(gradient[healthy].isfinite().all(), f"finite derivatives, {expected}", gradient, _PURE)


def _check_who_watches(layer: ProjectionLayer, set: Any, y: torch.Tensor) -> None:
    tensors = {field: tensor_of(set, field) for field in tensor_fields(set)}
    learned = {
        field: t.clone().requires_grad_() for field, t in tensors.items() if t.numel() and t.isfinite().all()
    }
    with torch.no_grad():
        reference = copy.deepcopy(layer).eval().solve(y, set)
    for training in (True, False):
        watched = copy.deepcopy(layer).train(training)
        free = y.clone().requires_grad_()
        for point, other in ((y, set), (free, set), (free, with_tensors(set, **learned))):
            solution = watched.solve(point, other)
            for field in ("value", "status", "violation"):
                found, wanted = getattr(solution, field), getattr(reference, field)
                expected = (
                    f"{type(layer).__name__} to give the same bits of {field} in training and in eval mode, with "
                    f"gradients of y, of the set or of nothing"
                )
                expect(torch.equal(found, wanted), expected, found - wanted, _PURE)


def _check_copies(layer: ProjectionLayer, set: Any, y: torch.Tensor) -> None:
    layer = copy.deepcopy(layer).eval()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        same = torch.equal(other(y, set), layer(y, set))
        expect(
            same,
            f"a copy of {type(layer).__name__} to be the same layer",
            other,
            "Keep settings in attributes.",
        )
