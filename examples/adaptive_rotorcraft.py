"""A rotorcraft that learns to fly in wind: features trained through the closed loop, beside regression and PID.

    python examples/adaptive_rotorcraft.py            ten recorded flights, 500 steps: about a quarter of an hour
    python examples/adaptive_rotorcraft.py --fast     four flights, 25 steps: less than a minute, the same order

`constrained-nn reproduce pfar` measures the whole table.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from constrained_nn.control import AdaptiveController, ConstantFeature
from constrained_nn.experiments.pfar import EXPERIMENT, Pfar
from constrained_nn.plotting import animate_flights, plot_flights


def main(task: Pfar, flights: int, seed: int, figure: Path | None) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        learned, _ = task.meta(flights, seed, Path(folder) / "ours")
        rows = {
            "PID": task.judge(ConstantFeature()),
            "ridge regression as published": task.learn("mrr", flights, seed, Path(folder) / "mrr"),
            "control-oriented": task.judge(learned.features, learned=learned),
        }
    print(f"RMS error over {task.tests} test flights (L = 1)   K 1, G 10   K 10, G 10   learned gains")
    for name, found in rows.items():
        gains = f"{found['learned']:13.3f}" if "learned" in found else ""
        print(f"{name:47s} {found['k1g10']:9.3f} {found['k10g10']:12.3f} {gains}")
    if figure is not None:
        pid = AdaptiveController(task.prior, ConstantFeature(), L=1.0, K=10.0, G=10.0)
        paths = {name: task.loop(c) for name, c in (("PID", pid), ("control-oriented", learned))}
        goal = task.loop_reference().values[:, :2].flatten(-2)
        plot_flights(figure, goal, {name: path.x for name, path in paths.items()}, 0.01)
        animate_flights(
            figure.with_suffix(".gif"), goal, {name: path.x for name, path in paths.items()}, 0.01
        )
        print(f"wrote {figure} and {figure.with_suffix('.gif').name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flights", type=int, default=10, help="recorded flights to learn from")
    parser.add_argument("--steps", type=int, default=500, help="steps through the closed loop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, default=None, help="file of the figure, such as loop.png")
    parser.add_argument("--fast", action="store_true", help="four flights, 25 steps")
    options = parser.parse_args()
    task = replace(EXPERIMENT, steps=options.steps, tests=200)
    if options.fast:
        task = replace(task, epochs=40, steps=25, ridge_steps=60, tests=40, test_seconds=4.0, meta_dt=0.0625)
    main(task, 4 if options.fast else options.flights, options.seed, options.figure)
