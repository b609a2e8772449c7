"""Kolmogorov flow at Reynolds number 40 with the published number of trajectories; for a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from constrained_nn.experiments.tables.eco.eco_kolmogorov import EXPERIMENT as REDUCED
from constrained_nn.experiments.tables.eco.eco_kolmogorov import EcoKolmogorov


@dataclass(frozen=True)
class EcoKolmogorovFull(EcoKolmogorov):
    """`EcoKolmogorov` with a larger network and as many trajectories as published.

    Args:
        recipe, steps, samples, far_steps, device, count, length, inner, width, depth, tests,
            test_length, dt: See `EcoKolmogorov`.
    """

    name: ClassVar[str] = "eco-kolmogorov-full"
    title: ClassVar[str] = "Kolmogorov flow at Reynolds number 40, with the published number of trajectories"
    notes: ClassVar = (
        "As `eco-kolmogorov`, with 160 trajectories of 100 s for training, at 20 states a second (published: 160 of "
        "500 s, at one), a network of width 24 and depth 5, and 24 epochs: made for a GPU, "
        "`constrained-nn reproduce eco-kolmogorov-full --device cuda`.",
        *EcoKolmogorov.notes[1:],
    )


EXPERIMENT = EcoKolmogorovFull(
    replace(REDUCED.recipe, shared=20, own=4, batch=32, horizon=(2, 8)),
    count=160,
    length=2000,
    width=24,
    depth=5,
    dt=0.0125,  # with 0.025, 6 of these 160 random starts become infinite
)
