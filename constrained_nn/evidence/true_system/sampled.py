"""What a learned Lyapunov function shows of the plant at drawn states: decrease on a level set, with a confidence."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from constrained_nn.evidence.true_system.bound import TrueSystem
from constrained_nn.models import CoILS
from constrained_nn.verify.claims import clopper_pearson


def sample_true_system(
    coils: CoILS,
    plant: Any,
    box: tuple[Float[Tensor, " n"], Float[Tensor, " n"]],
    *,
    rate: float,
    count: int = 100_000,
    seed: int = 0,
) -> TrueSystem:
    """Decrease of `V` along the plant at drawn states of the level set: grade `sampled`, for any number of states.

    The level is the least value of `V` that was drawn on the faces of the box.

    Args:
        coils: Model, policy and certificate.
        plant: The plant.
        box: Lower and upper ends of the states.
        rate: The claim `dV/dt <= −rate V` [1/s], chosen before the draws.
        count: Draws in the box; those outside of the level set are left out.
        seed: Seed of the draws.

    Returns:
        The statement with the worst rate that was found, and the share that can fail `rate` with confidence 0.999.
    """
    low, high = box
    generator = torch.Generator().manual_seed(seed)
    n = len(low)
    x = low + (high - low) * torch.rand(count, n, generator=generator, dtype=low.dtype)
    faces = low + (high - low) * torch.rand(count, n, generator=generator, dtype=low.dtype)
    axis = torch.randint(n, (count, 1), generator=generator)
    side = torch.rand(count, 1, generator=generator) < 0.5
    faces.scatter_(1, axis, torch.where(side, low[axis], high[axis]).to(faces.dtype))
    with torch.no_grad():
        level = coils.certificate.value(faces).min().item()
        value = coils.certificate.value(x)
        inside = value <= level
        share = inside.double().mean().item()
        x, value = x[inside], value[inside]
        u = coils.policy(0.0, x)
        velocity = plant.derivative(0.0, x, u, xp=torch)
        slope = coils.certificate.gradient(x)
        found = -(slope * velocity).sum(-1) / value.clamp_min(torch.finfo(value.dtype).tiny)
        residual = torch.linalg.vector_norm(velocity - coils(x, u), dim=-1).max().item() if len(x) else 0.0
    failed = int((~(found >= rate)).sum())
    worst = x[found.argmin()] if len(x) else low
    least = found.min().item() if len(x) else 0.0
    return TrueSystem(
        "sampled",
        level if least > 0 else 0.0,
        0.0,
        least,
        residual,
        tuple(worst.tolist()),
        len(x),
        share,
        f"{len(x)} uniform draws of the level set, {failed} of which fall slower than {rate:g}; nothing is claimed "
        f"between them.",
        failure_bound=clopper_pearson(failed, len(x), 0.999) if len(x) else 1.0,
    )
