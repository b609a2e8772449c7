"""A scalar function learned under constraints that change with the input, far outside of its training points.

    python examples/piecewise_constraints.py                         about half a minute
    python examples/piecewise_constraints.py --task piecewise-box    bounds on both sides
    python examples/piecewise_constraints.py --fast                  a few steps, to see that it runs

`constrained-nn reproduce piecewise` (or `piecewise-full`, `piecewise-box`) measures the whole table, over five seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from constrained_nn.experiments import load
from constrained_nn.plotting import new_figure


def main(name: str, epochs: int, seed: int, figure: Path | None) -> None:
    torch.set_num_threads(1)
    task: Any = replace(cast("Any", load(name)), epochs=epochs)
    x = task.grid()
    rows = task.set(x)
    curves = {}
    for method in ("none", "soft", "dc3", "hardnet"):
        with tempfile.TemporaryDirectory() as directory:
            network, strategy, seconds = task.train(method, seed, Path(directory))
        with torch.no_grad():
            y = strategy.decide(network(x), rows)
        curves[method] = y.squeeze(-1)
        violated = int((rows.violation(y) > 1e-4).sum())
        print(f"{method:8s} violates at {violated:3d} of {len(x)} points ({seconds:.1f} s)")
    if figure is not None:
        draw(figure, task, curves)
        print(f"wrote {figure}")


def draw(path: Path, task, curves) -> None:
    """The allowed region in gray, the target, and what each method learned."""
    x = task.grid().squeeze(-1).numpy()
    A, lower, upper = task.bounds(x)
    fig, axes = new_figure(6.4, 3.6)
    ax = axes[0, 0]
    floor, ceiling = task.target(x).min() - 4.0, task.target(x).max() + 4.0
    low = np.where(A > 0, lower, -upper).clip(floor, ceiling)
    high = np.where(A > 0, upper, -lower).clip(floor, ceiling)
    # pieces apart: the region jumps between them
    for start, end in ((-2, -1), (-1, 0), (0, 1), (1, 2)):
        piece = (x > start) & (x <= end) if start > -2 else x <= end
        ax.fill_between(x[piece], low[piece], high[piece], color="0.9", lw=1)
    ax.plot(x, task.target(x), "k--", lw=1, label="target")
    for name, y in curves.items():
        ax.plot(x, y.numpy(), lw=1.4, label=name)
    ax.axvspan(*task.interval, ymax=0.03, color="black", alpha=0.4, lw=0)
    ax.set(xlabel="x", ylabel="y", ylim=(floor, ceiling), xlim=(-2, 2))
    ax.set_title("allowed region (gray), interval of the training points (bar below)", fontsize=9)
    ax.legend(fontsize=8, ncols=2)
    fig.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tasks = ["piecewise", "piecewise-full", "piecewise-box"]
    parser.add_argument("--task", choices=tasks, default=tasks[0])
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--figure", type=Path, default=None, help="file of the figure, such as piecewise.png")
    parser.add_argument("--fast", action="store_true", help="three epochs")
    options = parser.parse_args()
    main(options.task, 3 if options.fast else options.epochs, options.seed, options.figure)
