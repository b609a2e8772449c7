"""Derivatives of a function of a set against finite differences, entry by entry, in one call.

`function(y, *tensors)` takes points `(batch, n)` and tensors of a set by name; some may be the same
for all elements. Every entry moves in all elements at once, which would show what one element does
to another, and all moves are one batch: a solver is called twice, not twice an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.oracles import differences, is_shared, neighbors, tensor_of


def check_first_derivatives(
    function: Callable[..., Tensor],
    set: Any,
    names: Sequence[str],
    y: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float,
) -> None:
    """The whole Jacobian of `function`."""
    inputs = [t.clone().requires_grad_() for t in (y, *(tensor_of(set, name) for name in names))]
    value = function(*inputs)
    found = [torch.autograd.grad(v.sum(), inputs, retain_graph=True) for v in value.unbind(-1)]
    own = _of_each_element(set, names, [t.detach() for t in inputs])
    expected = _sum_shared(set, names, differences(function(*neighbors(own)), own))
    for k, name in enumerate(["y", *names]):
        jacobian = torch.stack([gradient[k] for gradient in found], -1)
        torch.testing.assert_close(jacobian, expected[k], rtol=rtol, atol=atol, msg=name)


def check_second_derivatives(
    function: Callable[..., Tensor],
    set: Any,
    names: Sequence[str],
    y: Tensor,
    generator: torch.Generator,
    *,
    atol: float,
) -> None:
    """The gradient along a direction, differentiated by every entry of inputs and of its weights."""
    inputs = [y, *(tensor_of(set, name) for name in names), y]
    draws = [torch.randn(t.shape, generator=generator).double() for t in (y, *inputs[:-1])]
    inputs[-1], *directions = draws

    def slopes(tensors: list[Tensor], directions: list[Tensor], **options) -> list[Tensor]:
        """Products of gradients with directions, before their entries are added."""
        *leaves, weights = tensors
        total = (function(*leaves) * weights).sum()
        gradients = torch.autograd.grad(total, leaves, materialize_grads=True, **options)
        return [g * d for g, d in zip(gradients, directions, strict=True)]

    leaves = [t.clone().requires_grad_() for t in inputs]
    total = sum(product.sum() for product in slopes(leaves, directions, create_graph=True))
    found = torch.autograd.grad(total, leaves, materialize_grads=True)
    own = _of_each_element(set, names, inputs)
    step = 3e-5  # searches leave 1e-9 in the gradient of a steep element; truncation is below that
    moved = [t.requires_grad_() for t in neighbors(own, step)]
    products = slopes(moved, _of_each_element(set, names, directions))
    values = sum(product.reshape(*product.shape[:2], -1).sum(-1) for product in products)
    expected = _sum_shared(set, names, differences(values, own, step))
    for name, a, b in zip(["y", *names, "weights"], found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=atol, msg=name)


def _of_each_element(set: Any, names: Sequence[str], tensors: list[Tensor]) -> list[Tensor]:
    """Inputs and tensors of those names, with a copy for each element of what all share."""
    shared, batch = _shared(set, names), tensors[0].shape[:1]
    return [t.expand(*batch, *t.shape) if s else t for t, s in zip(tensors, shared, strict=False)]


def _sum_shared(set: Any, names: Sequence[str], derivatives: list[Tensor]) -> list[Tensor]:
    """Derivatives by the copies of the elements, as derivatives by what all share."""
    return [d.sum(0) if s else d for d, s in zip(derivatives, _shared(set, names), strict=False)]


def _shared(set: Any, names: Sequence[str]) -> list[bool]:
    """Which of `y`, the tensors of those names and the weights are the same for all elements."""
    return [False, *(is_shared(set, name) for name in names), False]
