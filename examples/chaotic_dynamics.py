"""A chaotic system learned from data, with an energy that its rollouts can never exceed.

    python examples/chaotic_dynamics.py            Lorenz-63, about a minute
    python examples/chaotic_dynamics.py --fast     a few steps, to see that it runs
    python examples/chaotic_dynamics.py --runs runs/reproduce/eco-ks

The same network alone and behind ECO, from a start on the attractor and from one a hundred times as far. --runs draws
what `constrained-nn reproduce eco-ks | eco-kolmogorov` left instead. Writes `attractor.png` and, for fields,
`spectra.png` and `fields.png`.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch

from constrained_nn import ECO, DenseEnergy
from constrained_nn.certificates import energy_report
from constrained_nn.operators import MLP, Increment
from constrained_nn.plotting import ellipse, plot_attractor, plot_snapshots, plot_space_time, plot_spectra
from constrained_nn.statistics import Reference, spatial_spectrum, temporal_spectrum
from constrained_nn.training import fit_operator
from control_envs.dynamics import Lorenz63
from control_envs.simulate import RK4

INTERVAL = 0.05
NAMES = {"truth": "truth", "backbone-seed1": "backbone alone", "eco-seed1": "ECO"}


def trajectories(count: int, samples: int, seed: int) -> np.ndarray:
    """States `(count, samples, 3)` on the attractor."""
    x = np.random.default_rng(seed).uniform(-20, 20, (count, 3)) + np.array([0.0, 0.0, 25.0])
    states = []
    for k in range(samples + 100):
        x = RK4(substeps=10).step(Lorenz63(), 0.0, x, np.empty(0), None, INTERVAL, np)
        if k >= 100:
            states.append(x)
    return np.stack(states, 1).astype(np.float32)


def main(epochs: int, steps: int, count: int, out: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = trajectories(count, 500, seed=1)
    states = torch.from_numpy(data).double()

    # an energy with center, shape and level from the data, and what it would forbid
    energy = DenseEnergy.from_data(states.flatten(0, 1), headroom=1.1)
    print(energy_report(energy, states[:, :-1], states[:, 1:], alpha=0.99))

    model = ECO(Increment.from_data(MLP(3, 3, (64, 64)), torch.from_numpy(data)), energy, alpha=0.99)
    scale = torch.from_numpy(np.diff(data, axis=1).std((0, 1)))
    losses = fit_operator(
        model,
        data,
        epochs=epochs,
        batch=64,
        learning_rate=3e-3,
        final_learning_rate=3e-5,
        horizon=2,
        norm=lambda error: (error / scale).square().mean(-1),
    )
    print(f"loss after {epochs} epochs: {losses[-1]:.2g}")

    # the network alone, and behind the layer
    model.eval()
    alone = copy.deepcopy(model.backbone)
    start = states[0, 0]
    runs = {"truth": data.reshape(-1, 3)}
    with torch.no_grad():
        w, path = start, []
        for _ in range(steps):
            path.append(w := alone(w))
        runs["backbone alone"] = torch.stack(path).numpy()
        near, far = model.rollout(start, steps), model.rollout(100.0 * start, steps)
        runs["ECO"] = near.states.numpy()
        w = 100.0 * start
        for _ in range(steps):
            w = alone(w)
    inside = (far.energy <= energy.level).nonzero()
    print(
        f"from 100 times as far, after {steps} steps: backbone alone |x| = {w.norm():.3g}, ECO |x| = "
        f"{far.states[-1].norm():.3g}, inside the level set from step {int(inside[0]) if len(inside) else 'none'} on"
    )
    print(f"largest excess over the bound in {2 * steps} steps: {max(near.violation, far.violation):.1e}")

    # x and z, with the shadow of {V <= c}
    L = energy.factor().detach()
    shape = (energy.level * torch.cholesky_inverse(L))[[0, 2]][:, [0, 2]].detach()
    outline = ellipse(energy.center[[0, 2]].detach(), shape)
    pictures = {name: points[:, [0, 2]] for name, points in runs.items()}
    path = plot_attractor(
        out / "attractor.png",
        pictures,
        level_sets={"truth": outline, "ECO": outline},
        labels=("x", "z"),
    )
    print(f"wrote {path.name}")


def draw(folder: Path, out: Path) -> None:
    """Figures of the rows that `constrained-nn reproduce` has run in a folder."""
    from constrained_nn.experiments import load

    experiment = load(folder.name)
    truth = experiment.truth(folder / "data")  # type: ignore[attr-defined]
    truth = truth.reshape(*truth.shape[:2], *experiment.shape())[: len(truth) // 2]  # type: ignore[attr-defined]
    reference = Reference.of(truth, experiment.interval)  # type: ignore[attr-defined]
    runs = {"truth": np.array(truth)}
    for name in ("backbone-seed1", "eco-seed1"):
        if (folder / name / "rollout.npz").exists():
            runs[NAMES[name]] = np.load(folder / name / "rollout.npz")["states"][None]
    level = np.load(folder / "eco-seed1" / "level_set.npz")
    outline = ellipse(level["center"], level["shape"])
    points = {name: reference.project(w).reshape(-1, 2) for name, w in runs.items()}
    plot_attractor(out / "attractor.png", points, level_sets=dict.fromkeys(points, outline))
    finite = {name: w for name, w in runs.items() if np.isfinite(w).all()}
    plot_spectra(
        out / "spectra.png",
        {name: spatial_spectrum(w) for name, w in finite.items()},
        {name: temporal_spectrum(w) for name, w in finite.items()},
        interval=experiment.interval,  # type: ignore[attr-defined]
    )
    if truth.shape[2:] == (3,):  # three modes are no field
        print(f"wrote attractor.png and spectra.png to {out}")
        return
    if truth.ndim == 3:
        fields = {name: w[0, -200:] for name, w in runs.items()}
        plot_space_time(out / "fields.png", fields, interval=1.0, length=32 * np.pi)
    else:
        times = np.array([0, 5, 10, 15])
        plot_snapshots(out / "fields.png", {n: w[0, -20:][times] for n, w in runs.items()}, times=times)
    print(f"wrote attractor.png, spectra.png and fields.png to {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=30, help="passes over the data")
    parser.add_argument("--steps", type=int, default=5000, help="steps of the rollouts")
    parser.add_argument("--runs", type=Path, help="folder of an experiment that was run")
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"), help="folder of the figures")
    parser.add_argument("--fast", action="store_true", help="two epochs and 300 steps")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.runs:
        draw(options.runs, options.out)
    elif options.fast:
        main(2, 300, 2, options.out)
    else:
        main(options.epochs, options.steps, 20, options.out)
