"""Four times more rows than outputs: where the closed form of HardNet does not apply."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from constrained_nn.experiments.runner import Column, Experiment, Row

if TYPE_CHECKING:
    import torch

    from constrained_nn.sets import Polyhedron

INPUTS, OUTPUTS, ROWS = 3, 5, 20


@dataclass(frozen=True)
class ManyRows(Experiment):
    """A smooth map into a polytope of 20 rows in 5 dimensions that shrinks and grows with the input.

    Args:
        epochs: Passes over 200 training points, in batches of 50.
    """

    epochs: int = 40

    name: ClassVar[str] = "many-rows"
    title: ClassVar[str] = "Four times more rows than outputs"
    source: ClassVar[str] = "none; the paper has no such task, and its closed form does not cover it"
    columns: ClassVar = (
        Column("mse", "MSE", ".4f"),
        Column("max_violation", "max violation", ".1e"),
        Column("violated", "# violated of 500", ".1f"),
        Column("test_ms", "500 points [ms]", ".1f"),
    )
    rows: ClassVar = (
        Row("none", "NN"),
        Row("soft", "Soft"),
        Row("dc3", "DC3"),
        Row("hardnet", "HardNet-Aff with fallback"),
    )
    seeds: ClassVar = (1, 2)
    notes: ClassVar = (
        "20 random unit rows `a·y <= 0.3 + 0.2 sin(w·x)`; the target leaves the polytope at many inputs; the error "
        "is against the nearest feasible target. Network 3 → 64 → 64 → 5, float64, Adam at 1e-3, penalty weight 10.",
    )

    def settings(self) -> Mapping[str, Any]:
        return {"epochs": self.epochs, "weight": 10.0, "learning_rate": 1e-3, "hidden": [64, 64]}

    def fast(self) -> Experiment:
        return ManyRows(epochs=1)

    def set(self, x: torch.Tensor) -> Polyhedron:
        """The polytope at each input."""
        import torch

        from constrained_nn.sets import Polyhedron

        generator = torch.Generator().manual_seed(20)
        A = torch.randn(ROWS, OUTPUTS, generator=generator, dtype=torch.float64)
        w = torch.randn(INPUTS, ROWS, generator=generator, dtype=torch.float64)
        return Polyhedron(A / A.norm(dim=-1, keepdim=True), upper=0.3 + 0.2 * torch.sin(x @ w))

    def data(self, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs, and the nearest feasible point to a smooth target."""
        import torch

        from constrained_nn.layers import EuclideanProjection

        generator = torch.Generator().manual_seed(seed)
        x = 2.0 * torch.rand(count, INPUTS, generator=generator, dtype=torch.float64) - 1.0
        w = torch.randn(INPUTS, OUTPUTS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        return x, EuclideanProjection()(0.6 * torch.sin(2.0 * x @ w), self.set(x))

    def run(self, row: str, seed: int | None, directory: Path) -> Mapping[str, float]:
        import torch

        network, method = self.train(row, int(seed or 0), directory)
        x, goal = self.data(500, seed=101)
        with torch.no_grad():
            start = time.process_time()
            y = method.decide(network(x), self.set(x))
            milliseconds = 1e3 * (time.process_time() - start)
        violation = self.set(x).violation(y)
        return {
            "mse": (y - goal).square().mean().item(),
            "max_violation": violation.max().item(),
            "violated": float((violation > 1e-9).sum()),
            "test_ms": milliseconds,
        }

    def train(self, row: str, seed: int, directory: Path) -> tuple[Any, Any]:
        """Trained network and its method."""
        import torch

        from constrained_nn.layers import HardNetAffine
        from constrained_nn.training import DC3, HardNet, Soft, Unconstrained, fit, make_backbone

        network = make_backbone(INPUTS, OUTPUTS, (64, 64), seed, torch.float64)
        method = {
            "none": Unconstrained(),
            "soft": Soft(weight=10.0),
            "dc3": DC3(corrections=10, step=0.02, normalized=False, weight=10.0),
            "hardnet": HardNet(HardNetAffine(), distance_weight=0.1),
        }[row]

        def loss(epoch: int, x: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
            raw, set = network(x), self.set(x)
            y = method.decide(raw, set, epoch)
            return ((y - goal).square().sum(-1) + method.penalty(raw, y, set, epoch)).sum()

        saved = directory / "checkpoint.safetensors"
        data = self.data(200, seed=100)
        fit(
            network, data, loss, epochs=self.epochs, learning_rate=1e-3, seed=seed, batch=50, checkpoint=saved
        )
        return network, method


EXPERIMENT = ManyRows()
