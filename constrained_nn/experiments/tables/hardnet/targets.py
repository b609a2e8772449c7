"""The three piecewise tables of HardNet: a scalar function under constraints that change with the input."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from constrained_nn.experiments.runner import Column, Experiment, Published, Row

if TYPE_CHECKING:
    import numpy as np
    import torch

    from constrained_nn.sets import Polyhedron

VIOLATED = 1e-4  # what the published tables count as violated

COLUMNS = (
    Column("mse", "MSE"),
    Column("max_violation", "max violation"),
    Column("mean_violation", "mean violation"),
    Column("violated", "# violated of 401", ".1f"),
    Column("test_ms", "401 points [ms]", ".2f"),
)
_METRICS = ("mse", "max_violation", "mean_violation", "violated")


def row(name: str, label: str, *published: tuple[float, ...] | None, note: str = "") -> Row:
    """A row with its published entries in the order of the columns; `None` where none is printed."""
    entries = {
        metric: Published(*entry)
        for metric, entry in zip(_METRICS, published, strict=False)
        if entry is not None
    }
    return Row(name, label, entries, note=note)


@dataclass(frozen=True)
class Piecewise(Experiment):
    """A target on [-2, 2], 50 or 10 training points, 401 test points.

    Args:
        epochs: Steps of every method, over the full batch.
    """

    epochs: int = 1000

    columns: ClassVar = COLUMNS
    seeds: ClassVar = (1, 2, 3, 4, 5)
    notes: ClassVar = (
        "Published setting: two hidden ReLU layers of 200 with Kaiming-normal weights, float64, Adam at 1e-4, 1,000 "
        "epochs over the full batch, loss summed over the batch, penalty weight 10. A point counts as violated "
        "above 1e-4. Mean and worst violation are over the 401 test points. Published deviations are those of the "
        "population (divided by 5, not by 4).",
    )
    points: ClassVar[int] = 50
    interval: ClassVar[tuple[float, float]] = (-2.0, 2.0)
    warmup: ClassVar[int] = 0

    def target(self, x: np.ndarray) -> np.ndarray:
        """The function that is learned."""
        return target(x)

    def bounds(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`A` (±1), lower and upper bounds of `A y` at each input."""
        return one_sided(x)

    def settings(self) -> Mapping[str, Any]:
        return {
            "epochs": self.epochs,
            "points": self.points,
            "interval": list(self.interval),
            "warmup": self.warmup,
            "learning_rate": 1e-4,
            "hidden": [200, 200],
            "weight": 10.0,
            "dc3": {"corrections": 10, "step": 1e-2, "momentum": 0.5},
        }

    def fast(self) -> Experiment:
        return type(self)(epochs=3)

    def run(self, row: str, seed: int | None, directory: Path) -> Mapping[str, float]:
        import torch

        network, enforcement, seconds = self.train(row, int(seed or 0), directory)
        x = self.grid()
        set = self.set(x)
        with torch.no_grad():
            y = enforcement.decide(network(x), set)
            times = []
            for _ in range(20):
                start = time.process_time()
                enforcement.decide(network(x), self.set(x))
                times.append(1e3 * (time.process_time() - start))
        violation = set.violation(y)
        goal = torch.from_numpy(self.target(x.squeeze(-1).numpy()))
        return {
            "mse": (y.squeeze(-1) - goal).square().mean().item(),
            "max_violation": violation.max().item(),
            "mean_violation": violation.mean().item(),
            "violated": float((violation > VIOLATED).sum()),
            "test_ms": sorted(times)[len(times) // 2],
            "train_seconds": seconds,
        }

    def train(self, row: str, seed: int, directory: Path) -> tuple[Any, Any, float]:
        """Trained network, its method, and seconds of processor time."""
        import numpy as np
        import torch

        from constrained_nn.training import fit, make_backbone

        state = np.random.RandomState(17)
        x = torch.from_numpy(state.uniform(*self.interval, self.points)).unsqueeze(-1)
        goal = torch.from_numpy(self.target(x.squeeze(-1).numpy()))
        set = self.set(x)
        network = make_backbone(1, 1, (200, 200), seed, torch.float64)
        method = self.method(row)

        def loss(epoch: int, x: torch.Tensor) -> torch.Tensor:
            raw = network(x)
            y = method.decide(raw, set, epoch)
            return ((y.squeeze(-1) - goal).square() + method.penalty(raw, y, set, epoch)).sum()

        start = time.process_time()
        saved = directory / "checkpoint.safetensors"
        fit(network, [x], loss, epochs=self.epochs, learning_rate=1e-4, seed=seed, checkpoint=saved)
        return network, method, time.process_time() - start

    def method(self, row: str) -> Any:
        """The method of a row."""
        from constrained_nn.layers import HardNetAffine, HardNetConvex
        from constrained_nn.training import DC3, HardNet, Soft, Unconstrained

        dc3 = partial(DC3, corrections=10, step=0.02, normalized=False, weight=10.0)
        return {
            "none": lambda: Unconstrained(),
            "soft": lambda: Soft(weight=10.0),
            "dc3-published": lambda: dc3(wrong_lower_sign=True),
            "dc3": lambda: dc3(),
            "hardnet": lambda: HardNet(HardNetAffine(), weight=10.0, warmup=self.warmup),
            "hardnet-convex": lambda: HardNet(HardNetConvex(), weight=10.0, warmup=self.warmup),
        }[row]()

    def grid(self) -> torch.Tensor:
        """The 401 test inputs `(401, 1)`."""
        import torch

        return torch.linspace(-2.0, 2.0, 401, dtype=torch.float64).unsqueeze(-1)

    def set(self, x: torch.Tensor) -> Polyhedron:
        """The constraint at each input."""
        import torch

        from constrained_nn.sets import Polyhedron

        A, lower, upper = (torch.from_numpy(t) for t in self.bounds(x.squeeze(-1).numpy()))
        return Polyhedron(A[:, None, None], lower[:, None], upper[:, None])


def target(x: np.ndarray) -> np.ndarray:
    """`-5 s`, `0`, `4 - 9 (x - 2/3)²`, `8 - 5 x`, with `s = sin(π (x + 1) / 2)`, on the four unit intervals."""
    import numpy as np

    s = np.sin(math.pi / 2 * (x + 1))
    return _pick(x, -5 * s, 0 * x, 4 - 9 * (x - 2 / 3) ** 2, 8 - 5 * x)


def one_sided(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`y >= 5 s²`, `y <= 0`, `y >= x (4 - 9 (x - 2/3)²)`, `y <= 7.5 - 4.5 x`, as `A y <= upper`."""
    import numpy as np

    s = np.sin(math.pi / 2 * (x + 1))
    A = _pick(x, -1 + 0 * x, 1 + 0 * x, -1 + 0 * x, 1 + 0 * x)
    upper = _pick(x, -5 * s**2, 0 * x, -x * (4 - 9 * (x - 2 / 3) ** 2), 7.5 - 4.5 * x)
    return A, np.full_like(x, -np.inf), upper


def _pick(x: np.ndarray, *pieces: np.ndarray) -> np.ndarray:
    """The piece on `x <= -1`, `(-1, 0]`, `(0, 1]` or `x > 1`."""
    import numpy as np

    return np.select([x <= -1, x <= 0, x <= 1], pieces[:3], pieces[3])
