"""Rotorcraft that learn to fly in wind: features trained through the closed loop, beside regression and no learning.

    python examples/adaptive_control.py                fully actuated rotorcraft, ten recorded flights, 500 steps
    python examples/adaptive_control.py --task pvtol   underactuated aircraft, 100 steps
    python examples/adaptive_control.py --fast         four flights, a few steps: about a minute, the same order

With `--figure loop.png` both loops are drawn and animated. `constrained-nn reproduce pfar | pvtol` measures the whole
tables; `--runs runs/reproduce/pfar` reads back what it trained.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from constrained_nn.experiments import load
from constrained_nn.plotting import animate_flights, plot_flights

SHORT = {"epochs": 40, "ridge_steps": 60, "tests": 40, "test_seconds": 4.0}
FAST = {
    "pfar": {**SHORT, "steps": 25, "meta_dt": 0.0625},
    "pvtol": {**SHORT, "steps": 12, "meta_dt": 0.1, "seconds": 10.0},
}


def main(task, flights: int, seed: int, runs: Path, figure: Path | None) -> None:
    learned, _ = task.meta(flights, seed, runs / f"ours-m{flights}-seed{seed}")
    regression = task.ridge("mrr", flights, seed, runs / f"mrr-m{flights}-seed{seed}")
    rows = {
        task.rows[0].label: task.run(task.rows[0].name, None, runs),
        "ridge regression as published": task.judge(regression, learned=learned),
        "control-oriented": task.judge(learned.features, learned=learned),
    }
    headings = {column.name: column.label for column in task.columns if column.name in task.errors}
    print(f"RMS error over {task.tests} test flights{''.join(f'{h:>16s}' for h in headings.values())}")
    for name, found in rows.items():
        print(f"{name:34s}" + "".join(f"{found.get(column, float('nan')):16.3f}" for column in headings))
    if figure is not None:
        paths = {task.rows[0].label: task.loop(task.baseline()), "control-oriented": task.loop(learned)}
        states = {name: path.x for name, path in paths.items()}
        plot_flights(figure, task.loop_goal(), states, 0.01)
        animate_flights(figure.with_suffix(".gif"), task.loop_goal(), states, 0.01, fps=4)
        for name, x in states.items():
            error = (x - task.loop_goal()).square().sum(-1).mean().sqrt()
            print(f"loop, {name}: RMS error {error:.3f}")
        print(f"wrote {figure} and {figure.with_suffix('.gif').name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=("pfar", "pvtol"), default="pfar")
    parser.add_argument("--flights", type=int, default=10, help="recorded flights to learn from")
    parser.add_argument("--steps", type=int, default=None, help="steps through the closed loop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, default=None, help="file of the figure, such as loop.png")
    parser.add_argument("--runs", type=Path, default=None, help="folder that keeps the trainings")
    parser.add_argument("--fast", action="store_true", help="four flights, a few steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    more = {} if options.steps is None else {"steps": options.steps}
    try:
        budget: Any = FAST[options.task] if options.fast else {}
        task = replace(load(options.task), **{"tests": 200, **budget, **more})
        with tempfile.TemporaryDirectory() as folder:
            runs = options.runs or Path(folder)
            main(task, 4 if options.fast else options.flights, options.seed, runs, options.figure)
    except ValueError as error:
        parser.error(str(error))
