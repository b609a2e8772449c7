"""A model, its controller and a Lyapunov function learned together from samples, judged by the plant.

    python examples/coils.py --plant pendulum --figure portrait.png      with and without the penalty, some minutes
    python examples/coils.py --fast                                      a few steps, to see that it runs

In the plane the figure is a phase portrait: stream lines of the plant, level sets, trajectories and their ends, and in
yellow the states at which the model needs its correction. With more states it is the error over time. With `--runs
runs/reproduce/coils-pendulum` the networks that `constrained-nn reproduce coils-pendulum` left are taken.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from constrained_nn.experiments import load
from constrained_nn.plotting import Portrait, plot_errors, plot_portraits
from control_envs.simulate import rollout

PLANTS = ("van-der-pol", "pendulum", "path-following", "cart-pole", "birotor")
ROWS = {
    "coils": "CoILS",
    "coils-no-penalty": "CoILS, not penalized",
    "soft": "soft Lyapunov penalty",
    "regression-lqr": "regression, then LQR",
}


def main(
    plant: str, epochs: int | None, seed: int, fast: bool, runs: Path | None, figure: Path | None
) -> None:
    torch.set_num_threads(1)
    task: Any = load(f"coils-{plant}")
    if fast:
        task = task.fast()
    elif epochs is not None:
        task = type(task)(epochs=epochs)
    names = (
        ["coils", "coils-no-penalty"]
        if len(task.equilibrium[0]) == 2
        else [n for n in ROWS if "no-" not in n]
    )
    learned, errors = {}, {}
    goal, width = (torch.from_numpy(a[0]) for a in (task.equilibrium, task.reach))
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            directory = Path(temporary) if runs is None else runs / f"{name}-seed{seed}"
            coils, policy = task.train(name, seed, directory)
        policy.eval()
        with torch.no_grad():
            path = rollout(task.plant, policy, task.starts(), dt=task.dt, horizon=task.horizon).x
        errors[ROWS[name]] = ((path - goal).abs() / width).amax(-1).numpy()
        arrived = 100 * (errors[ROWS[name]][:, -1] < 0.02).mean()
        print(f"{ROWS[name]}: {arrived:.1f} % of {len(path)} starts end within 2 % of the box")
        if name.startswith("coils"):
            print(f"  {task.shown(coils)}")
        learned[ROWS[name]] = (coils, path.numpy())
    if figure is not None:
        if len(goal) == 2:
            names = [f"{q.name} [{q.unit}]" for q in task.plant.state]
            panels = {title: portrait(task, *found) for title, found in learned.items()}
            plot_portraits(figure, panels, task.state_box, labels=names)
        else:
            label = "largest error, in half widths of the box"
            plot_errors(figure, {task.title: errors}, task.dt, label=label)
        print(f"wrote {figure}")


def portrait(task: Any, coils: Any, path: np.ndarray) -> Portrait:
    """One panel, with the trajectories from the border of the grid."""
    scale = coils.model.backbone[-1].weight.detach().diagonal()[: path.shape[-1]]

    def numpy(f: Any) -> Any:
        return lambda x: f(torch.from_numpy(x)).detach().numpy()

    start = np.abs(path[:, 0] - task.equilibrium[0]) / task.reach[0]
    border = path[start.max(-1) > 0.999]
    return Portrait(
        numpy(lambda x: task.plant.derivative(0.0, x, coils.policy(0.0, x), xp=torch)),
        numpy(coils.certificate.value),
        border[:: max(1, len(border) // 24)],
        marked=numpy(lambda x: (coils.correction(x) / scale).abs().amax(-1) > 1e-3),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plant", choices=PLANTS, default="pendulum")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=None, help="folder with checkpoints to go on from")
    parser.add_argument("--figure", type=Path, default=None, help="file of the figure, such as portrait.png")
    parser.add_argument("--fast", action="store_true", help="a few steps")
    options = parser.parse_args()
    runs = None if options.fast else options.runs
    main(options.plant, options.epochs, options.seed, options.fast, runs, options.figure)
