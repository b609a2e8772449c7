"""Kolmogorov flow at Reynolds number 40 with the published amount of data; for a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from constrained_nn.experiments._chaos import Recipe
from constrained_nn.experiments.eco_kolmogorov import EcoKolmogorov


@dataclass(frozen=True)
class EcoKolmogorovFull(EcoKolmogorov):
    """`EcoKolmogorov` with a larger network and 200 trajectories of 500 s, as published.

    Args:
        recipe, steps, samples, far_steps, device, count, length, inner, width, depth, tests, test_length, dt: See
            `EcoKolmogorov`.
    """

    name: ClassVar[str] = "eco-kolmogorov-full"
    title: ClassVar[str] = "Kolmogorov flow at Reynolds number 40, with the published amount of data"
    notes: ClassVar = (
        "As `eco-kolmogorov`, with 160 trajectories of 450 s for training (published: 160 of 500 s), a network on "
        "48 by 48 points of width 64, and 20 epochs: made for a GPU, "
        "`constrained-nn reproduce eco-kolmogorov-full --device cuda`.",
        *EcoKolmogorov.notes[1:],
    )


EXPERIMENT = EcoKolmogorovFull(
    Recipe(shared=16, own=4, batch=64, horizon=(1, 4)),
    count=160,
    length=1800,
    inner=48,
    width=64,
    depth=4,
)
