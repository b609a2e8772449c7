"""What every controller promises."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from constrained_nn.testing.tensors import expect, expect_close

_PURE = "Write it over leading batch dimensions, of its arguments alone; a state of its own is `z`."


def check_controller(controller: Any, states: Tensor, *, reference: Any = None, atol: float = 1e-9) -> None:
    """Check a controller at given states: batches, bad elements and copies.

    Args:
        controller: `(t, x) -> u`, or `(t, x, reference, z) -> (u, dz/dt)` with `state_dim` of its own.
        states: States `(batch, n)`, at least three.
        reference: What a controller with a state tracks `(k, p)`.
        atol: Difference between two ways to the same input.

    Raises:
        AssertionError: A promise of `Controller` is broken.
    """
    name, call = type(controller).__name__, _caller(reference)
    controller = copy.deepcopy(controller).eval()
    u = call(controller, states).detach()
    loop = torch.stack([call(controller, x) for x in states]).detach()
    expect_close(
        u, loop, f"the inputs of {name} for a batch to be those of its elements", _PURE, rtol=1e-9, atol=atol
    )
    expect_close(
        call(copy.deepcopy(controller), states).detach(), u, f"a copy of {name} to be the same", _PURE
    )
    controller.train()
    healthy, bad = torch.arange(len(states)) != 2, states.clone()
    bad[2] = torch.nan
    bad.requires_grad_()
    found, expected = call(controller, bad), f"NaN in one state to leave the other inputs of {name} alone"
    wanted = call(controller, states)[healthy].detach()
    expect_close(found[healthy].detach(), wanted, expected, _PURE, rtol=1e-9, atol=atol)
    if found.requires_grad:
        (gradient,) = torch.autograd.grad(found[healthy].sum(), bad)
        expect(gradient[healthy].isfinite().all(), f"finite derivatives, {expected}", gradient, _PURE)


def _caller(reference: Any) -> Callable[[Any, Tensor], Tensor]:
    """The input at `t = 0`; for a controller with a state also the rate of its state, at a state of 0.1."""

    def call(controller: Any, x: Tensor) -> Tensor:
        size = int(getattr(controller, "state_dim", 0))
        if not size:
            return controller(0.0, x)
        z = torch.full((*x.shape[:-1], size), 0.1, dtype=x.dtype)
        return torch.cat(controller(0.0, x, reference.expand(*x.shape[:-1], *reference.shape), z), -1)

    return call
