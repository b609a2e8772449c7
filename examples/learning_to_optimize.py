"""A network that solves a non-convex program of 100 variables in one pass, with every constraint satisfied.

    python examples/learning_to_optimize.py            200 epochs of each method, some minutes
    python examples/learning_to_optimize.py --fast     a few steps, to see that it runs

`constrained-nn reproduce learning-to-optimize` measures the whole table, over 1,000 epochs. With `--epochs 1000 --runs
runs/reproduce/learning-to-optimize` this script takes the networks that it has left.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from constrained_nn.experiments import load
from constrained_nn.experiments.tables.hardnet import published_program
from constrained_nn.plotting import new_figure

EXPERIMENT = load("learning-to-optimize")
METHODS = {"none": "NN", "soft": "Soft", "dc3": "DC3", "hardnet": "HardNet-Aff"}


def main(
    epochs: int, samples: int, instances: int, seed: int, runs: Path | None, figure: Path | None
) -> None:
    torch.set_num_threads(1)
    task = replace(EXPERIMENT, epochs=epochs, samples=samples)
    program = published_program()
    x = torch.from_numpy(program.test[:instances])
    best = program.objective(torch.from_numpy(np.stack([program.solve(one) for one in x.numpy()])))
    print(f"{'optimum':12s} objective {best.mean():8.2f}")
    points = {}
    for method, label in METHODS.items():
        with tempfile.TemporaryDirectory() as temporary:
            directory = Path(temporary) if runs is None else runs / f"{method}-seed{seed}"
            network, strategy = task.train(method, seed, directory)
        with torch.no_grad():
            y = strategy.decide(network(x), program.set(x))
        gap, violation = program.objective(y) - best, program.set(x).violation(y)
        points[label] = gap, violation
        print(
            f"{label:12s} objective {(gap + best).mean():8.2f}, worst row of all instances {violation.max():.1e}"
        )
    if figure is not None:
        draw(figure, points)
        print(f"wrote {figure}")


def draw(path: Path, points: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    """One point an instance: how far above the optimum, and its most violated row."""
    fig, axes = new_figure(6.4, 3.6)
    ax = axes[0, 0]
    for label, (gap, violation) in points.items():
        ax.scatter(gap, violation.clamp_min(1e-16), s=6, alpha=0.5, lw=0, label=label)
    ax.axvline(0.0, color="black", lw=1, ls="--")
    ax.set(yscale="log", ylim=(1e-17, 1e3), xlabel="objective above that of the solver")
    ax.set_ylabel("most violated row")
    ax.set_title("one point for each test instance; left of the line is cheaper than the solver", fontsize=9)
    ax.legend(fontsize=8, markerscale=2)
    fig.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=None, help="folder with checkpoints to go on from")
    parser.add_argument("--figure", type=Path, default=None, help="file of the figure, such as program.png")
    parser.add_argument("--fast", action="store_true", help="two epochs over 400 samples")
    options = parser.parse_args()
    sizes = (2, 400, 3) if options.fast else (options.epochs, EXPERIMENT.samples, EXPERIMENT.instances)
    main(*sizes, options.seed, None if options.fast else options.runs, options.figure)
