"""Piecewise constraints of HardNet, learned from points of [-1.2, 1.2] only."""

from __future__ import annotations

from typing import ClassVar

from constrained_nn.experiments.tables.hardnet.targets import Piecewise, row

CONVEX = (
    "published without violations, 3931.8 ms for the 401 points; here the set goes to the projection core. The same "
    "constraint written in cvxpy and compiled once is solved by `HardNetConvex` too, in about 0.7 s with diffcp."
)


class PiecewiseInner(Piecewise):
    """The first table: the outside of [-1.2, 1.2] is extrapolation."""

    name: ClassVar[str] = "piecewise"
    title: ClassVar[str] = "Piecewise constraints: extrapolation"
    source: ClassVar[str] = "HardNet (arXiv 2410.10807 v4), the table of its piecewise constraints"
    interval: ClassVar = (-1.2, 1.2)
    rows: ClassVar = (
        row("none", "NN", (1.85, 0.19), (3.16, 0.29), (0.60, 0.04), (212.2, 7.2)),
        row("soft", "Soft", (2.36, 0.22), (3.70, 0.25), (0.69, 0.03), (205.2, 1.9)),
        row(
            "dc3",
            "DC3",
            (1.15, 0.10),
            (2.31, 0.23),
            (0.43, 0.02),
            (207.0, 3.6),
        ),
        row("hardnet", "HardNet-Aff", (0.16, 0.01), (0.0,), (0.0,), (0.0,)),
        row("hardnet-convex", "HardNet-Cvx", (0.16, 0.01), note=CONVEX),
    )


EXPERIMENT = PiecewiseInner()
