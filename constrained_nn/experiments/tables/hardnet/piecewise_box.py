"""Piecewise two-sided bounds of HardNet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from constrained_nn.experiments.tables.hardnet.targets import Piecewise, _pick, row

if TYPE_CHECKING:
    import numpy as np


WRONG_SIGN = (
    "the published code has the wrong sign in the gradient of lower bounds, so that the correction pushes into "
    "their violation; this row reproduces it, the next one has the right sign."
)


class PiecewiseBox(Piecewise):
    """Bounds on both sides, which meet on (-1, 0]; ten training points; the layer comes on after 100 epochs."""

    name: ClassVar[str] = "piecewise-box"
    title: ClassVar[str] = "Piecewise bounds on both sides"
    source: ClassVar[str] = "HardNet, the authors' notebook for two-sided bounds"
    points: ClassVar = 10
    warmup: ClassVar = 100
    rows: ClassVar = (
        row("none", "NN", (0.14, 0.04), (0.92,), None, (166.2,)),
        row("soft", "Soft", (0.15, 0.05), (0.99,), None, (165.6,)),
        row("dc3-published", "DC3 as published", (0.20, 0.10), (1.27,), None, (165.4,), note=WRONG_SIGN),
        row("dc3", "DC3, right sign"),
        row("hardnet", "HardNet-Aff", (0.15, 0.01), (0.0,), None, (0.0,)),
    )

    def target(self, x: np.ndarray) -> np.ndarray:
        import numpy as np

        s = np.sin(math.pi / 2 * (x + 1))
        with np.errstate(divide="ignore"):  # 1/x² at 0, which is in another piece
            return _pick(x, -5 * s - 2, -2 + 0 * x, 2 - 9 * (x - 2 / 3) ** 2, 3 / x**2 - 2)

    def bounds(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        import numpy as np

        s = np.sin(math.pi / 2 * (x + 1))
        with np.errstate(divide="ignore"):
            lower = _pick(x, 5 * s**2 - 2, -2 + 0 * x, x * (4 - 9 * (x - 2 / 3) ** 2) - 2, 3 / x**3 - 2)
        upper = _pick(x, -3 * s, -2 + 0 * x, 3 - 4 * (x - 0.5) ** 2, 2 + 0 * x)
        return np.ones_like(x), lower, upper


EXPERIMENT = PiecewiseBox()
