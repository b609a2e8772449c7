"""Regulators from few samples: a birotor whose model is learned from 50, 200 and 1,000 of them.

    python examples/sd_lqr.py                      some minutes
    python examples/sd_lqr.py --plant spacecraft
    python examples/sd_lqr.py --fast               a few short runs

SD-LQR solves a Riccati equation at every state, with factors of the error dynamics that are exact for the model; plain
LQR solves it for the linearization at the reference.
`constrained-nn reproduce sd-lqr-birotor` measures the whole table.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from constrained_nn import experiments

ROWS = ("sd-lqr", "lqr-economical", "lqr-known")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plant", choices=("birotor", "spacecraft"), default="birotor")
    parser.add_argument("--steps", type=int, default=1000, help="steps of Adam")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/sd_lqr"), help="folder for weights and figure")
    parser.add_argument("--fast", action="store_true", help="a few short runs")
    options = parser.parse_args()

    torch.set_num_threads(1)
    task = experiments.load(f"sd-lqr-{options.plant}")
    steps = 20 if options.fast else options.steps
    task = replace(task, steps={"economical": steps})
    out, counts = options.out / f"{options.plant}-{steps}", task.settings()["counts"]
    task = replace(task, tests=4, horizon=30) if options.fast else replace(task, tests=20)
    if options.fast and options.plant == "birotor":
        task = replace(task, loop=10)
    print(f"{'median error, N =':50s}" + "".join(f"{count:>8d}" for count in counts))
    for row in task.rows:
        if row.name not in ROWS:
            continue
        folder = out / (f"{row.name}-seed{options.seed}" if row.seeded else row.name)
        folder.mkdir(parents=True, exist_ok=True)
        found = task.run(row.name, options.seed, folder)
        print(f"{row.label:50s}" + "".join(f"{found[f'median_{count}']:8.3f}" for count in counts))
    print(f"wrote {task.draw(out, out / 'errors.png', ROWS)}")


if __name__ == "__main__":
    main()
