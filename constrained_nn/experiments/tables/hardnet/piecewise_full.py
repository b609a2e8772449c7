"""Piecewise constraints of HardNet, learned from points of the whole interval."""

from __future__ import annotations

from typing import ClassVar

from constrained_nn.experiments.tables.hardnet.targets import Piecewise, row


class PiecewiseFull(Piecewise):
    """The same problem with training points everywhere."""

    name: ClassVar[str] = "piecewise-full"
    title: ClassVar[str] = "Piecewise constraints: training points everywhere"
    source: ClassVar[str] = "HardNet, the authors' notebook for points of the whole interval"
    rows: ClassVar = (
        row("none", "NN", (0.04,), (0.73,), None, (42.4,)),
        row("soft", "Soft", (0.05,), (0.69,), None, (28.6,)),
        row("dc3", "DC3", (0.04,), (0.48,), None, (30.6,)),
        row("hardnet", "HardNet-Aff", (0.06,), (0.0,), None, (0.0,)),
    )


EXPERIMENT = PiecewiseFull()
