"""How trajectories leave each other, and how they leave everything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def largest_lyapunov_exponent(
    step: Callable[[Tensor], Tensor],
    start: Float[Tensor, "batch ..."],
    *,
    steps: int,
    interval: float,
    generator: torch.Generator,
    discard: int = 0,
    separation: float | None = None,
) -> Float[Tensor, " batch"]:
    """Largest Lyapunov exponent `(batch,)` [1/s] along the trajectories of a map from `start` `(batch, *shape)`.

    `λ = 1/(steps interval) Σ_t log(‖d_{t+1}‖/‖d_t‖)`, where `d` is a tangent that `step` carries along (by forward
    mode), of random direction and renormalized at every step; or, with `separation`, the difference to a second
    trajectory that is put back to that distance at every step (Benettin), for maps that have no forward mode.

    Args:
        step: The map `(batch, *shape) -> (batch, *shape)`, acting on each element alone.
        start: States on the attractor.
        steps: Steps that are averaged.
        interval: Time of a step [s].
        generator: Generator of the first direction.
        discard: Steps before those, in which the direction aligns.
        separation: Distance of the second trajectory, or None for the tangent.

    References:
        Benettin, Galgani, Giorgilli and Strelcyn, Lyapunov characteristic exponents (1980), part 2.
    """
    w = start.detach()
    d = _unit(torch.randn(w.shape, generator=generator, dtype=w.dtype, device=generator.device).to(w.device))[
        0
    ]
    total = w.new_zeros(len(w))
    with torch.no_grad():
        for i in range(discard + steps):
            if separation is None:
                w, d = torch.func.jvp(step, (w,), (d,))  # pyright: ignore[reportAssignmentType]
                d, growth = _unit(d)
            else:
                both = step(torch.cat([w, w + separation * d]))
                w, other = both.split(len(w))
                d, growth = _unit(other - w)
                growth = growth / separation
            if i >= discard:
                total = total + growth.log()
    return total / (steps * interval)


def _unit(d: Tensor) -> tuple[Tensor, Tensor]:
    """Direction and length of each element."""
    length = d.flatten(1).norm(dim=1)
    return d / length.reshape(-1, *[1] * (d.ndim - 1)), length


def blow_up_times(
    states: Float[np.ndarray, "runs T *grid"], *, bound: float, interval: float
) -> Float[np.ndarray, " runs"]:
    """First times `(runs,)` [s] at which `‖w‖` exceeds `bound` or is not finite; infinity where it never does.

    Args:
        states: States `(runs, T, *grid)`.
        bound: Euclidean norm over the grid.
        interval: Time between two states [s].
    """
    with np.errstate(over="ignore", invalid="ignore"):
        flat = states.reshape(*states.shape[:2], -1)
        norm = np.sqrt(np.einsum("rti,rti->rt", flat, flat, dtype=float))
    gone = ~(norm <= bound)
    return np.where(gone.any(1), interval * gone.argmax(1), np.inf)
