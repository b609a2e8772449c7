"""Four times more rows than outputs: the closed form does not apply, and the layer falls back to exact projection.

    python examples/many_rows.py            some seconds
    python examples/many_rows.py --fast     one epoch, to see that it runs

`constrained-nn reproduce many-rows` measures the table.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from constrained_nn import HardNetAffine
from constrained_nn.experiments import load
from constrained_nn.plotting import new_figure

METHODS = {"none": "NN", "soft": "Soft", "dc3": "DC3", "hardnet": "HardNet-Aff with fallback"}


def main(epochs: int, seed: int, figure: Path | None) -> None:
    torch.set_num_threads(1)
    task = replace(load("many-rows"), epochs=epochs)
    x, goal = task.data(500, seed=101)
    rows = task.set(x)
    points = {}
    for method, label in METHODS.items():
        with tempfile.TemporaryDirectory() as directory:
            network, strategy = task.train(method, seed, Path(directory))
        with torch.no_grad():
            raw = network(x)
            y = strategy.decide(raw, rows)
        violation = rows.violation(y)
        points[label] = (y - goal).norm(dim=-1), violation
        print(f"{label:26s} violates at {int((violation > 1e-9).sum()):3d} of {len(x)} points")
        if method == "hardnet":
            counts = {
                status.name: count for status, count in HardNetAffine().solve(raw, rows).counts().items()
            }
            print(f"{'':26s} statuses {counts}")
    if figure is not None:
        draw(figure, points)
        print(f"wrote {figure}")


def draw(path: Path, points: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Violations of all points in order, and errors."""
    fig, axes = new_figure(7.2, 3.2, 1, 2)
    left, right = axes[0]
    for label, (error, violation) in points.items():
        share = torch.arange(1, len(error) + 1) / len(error)
        left.plot(share, violation.sort().values.clamp_min(1e-17))
        right.plot(share, error.sort().values, label=label)
    left.set(yscale="log", ylim=(5e-18, 1.0), xlabel="share of the points", ylabel="violation, at most")
    right.set(xlabel="share of the points", ylabel="distance to the target, at most")
    right.legend(fontsize=7)
    fig.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=load("many-rows").epochs)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--figure", type=Path, default=None, help="file of the figure, such as rows.png")
    parser.add_argument("--fast", action="store_true", help="one epoch")
    options = parser.parse_args()
    main(1 if options.fast else options.epochs, options.seed, options.figure)
