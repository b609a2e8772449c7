"""Loops whose length depends on values, also where control flow must not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._C._functorch import (  # pyright: ignore[reportMissingModuleSource]
    get_unwrapped,
    is_functorch_wrapped_tensor,
)

from constrained_nn.linalg import lacks_values, recording

State = tuple[Tensor, ...]
# Trips where there is no loop: fake tensors show shapes only; other recorded graphs, and `vmap` inside of `compile`,
# have no loop node.
_SHAPES_ONLY, _UNROLLED = 2, 24


def repeat(
    step: Callable[..., State], state: State, times: int, running: Callable[..., Tensor], *, every: int = 2
) -> State:
    """`step(*state)` until no element of `running(*state)` is left, or `times` times.

    One loop node under `torch.compile` and `torch.export`; with fake tensors a few trips, and in other recorded graphs
    and with `vmap` inside of `compile` at most 24. `torch.func` alone changes nothing: its tensors have values.

    Args:
        every: Steps between looks at who is running (each look synchronises a GPU).
    """
    if recording():
        if torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active():
            return _loop_node(step, state, times, running)
        every, times = times + 1, min(times, _UNROLLED)
    elif not may_look(state[0]):
        every, times = times + 1, min(times, _SHAPES_ONLY)
    for k in range(times):
        if (k + 1) % every == 0 and not anyone(running(*state)):
            break
        state = step(*state)
    return state


def may_look(t: Tensor) -> bool:
    """Whether control flow may depend on values: also under `torch.func`, but not while tracing."""
    return not recording() and not lacks_values(_plain(t))


def anyone(flags: Tensor) -> bool:
    """Whether a flag is set, for any element of any `vmap`."""
    return bool(_plain(flags).any())


def _plain(t: Tensor) -> Tensor:
    """The tensor behind the wrappers of `torch.func`."""
    while is_functorch_wrapped_tensor(t):
        t = get_unwrapped(t)
    return t


def _loop_node(step: Callable[..., State], state: State, times: int, running: Callable[..., Tensor]) -> State:
    from torch._higher_order_ops.while_loop import while_loop

    counter = torch.zeros((), dtype=torch.int64, device=state[0].device)

    def goes_on(k: Tensor, *state: Tensor) -> Tensor:
        return (k < times) & running(*state).any()

    def body(k: Tensor, *state: Tensor) -> State:
        return (k + 1, *(t.clone() for t in step(*state)))

    return while_loop(goes_on, body, (counter, *state))[1:]
