"""Two chaotic flows: solved, kept on disk, measured, drawn.

    python examples/chaotic_flows.py            about two minutes
    python examples/chaotic_flows.py --fast     some seconds, coarse and short

The second half of the trajectories is held against the first one: what comes out is the sampling noise of every
measure, the best that a model can score on as many states.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from constrained_nn.plotting import plot_attractor, plot_snapshots, plot_space_time, plot_spectra
from constrained_nn.statistics import (
    Reference,
    published_log_spectral_distance,
    published_pca_kl,
    published_physical_kl,
    spatial_spectrum,
    temporal_spectrum,
)
from control_envs.flows import Flow, KolmogorovFlow, KuramotoSivashinsky, record


def measure(name: str, flow: Flow, states: np.ndarray, half_width: float, out: Path) -> None:
    truth, other = np.split(np.asarray(states), 2)
    reference = Reference.of(truth, interval=1.0)
    found = reference.compare(other)
    flat = [x.reshape(-1, int(np.prod(flow.shape)))[:2000] for x in (truth, other)]
    along_time = flow.shape == flat[0].shape[1:]
    fields = flat if along_time else [x.reshape(-1, *flow.shape) for x in flat]
    norms = np.linalg.norm(states.reshape(*states.shape[:2], -1), axis=-1)
    print(f"{name}: {len(states)} trajectories of {states.shape[1]} states")
    print(f"  rms {states.std():.3f}, largest value {np.abs(states).max():.2f}", end=", ")
    print(
        "norm: mean {:.1f}, 1/50/99 % {:.0f}/{:.0f}/{:.0f}, largest {:.1f}".format(
            norms.mean(), *np.quantile(norms, [0.01, 0.5, 0.99]), norms.max()
        )
    )
    print("  truth against truth:", ", ".join(f"{key} {value:.3g}" for key, value in found.items()))
    print(
        f"  as published: physical KL {published_physical_kl(*flat):.4f}, PCA KL "
        f"{published_pca_kl(*flat, half_width=half_width):.3f}, log-spectral distance "
        f"{published_log_spectral_distance(*fields):.4f}"
    )
    halves = {"first half": truth, "second half": other}
    plot_attractor(
        out / f"{name}_attractor.png",
        {half: reference.project(x).reshape(-1, 2) for half, x in halves.items()},
    )
    plot_spectra(
        out / f"{name}_spectra.png",
        {half: spatial_spectrum(x) for half, x in halves.items()},
        {half: temporal_spectrum(x) for half, x in halves.items()},
        interval=1.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500, help="states of each trajectory, one a second")
    parser.add_argument("--out", type=Path, default=Path("runs/flows"), help="folder for figures and data")
    parser.add_argument("--fast", action="store_true", help="coarse and short")
    options = parser.parse_args()

    torch.set_num_threads(1)
    fast, steps = options.fast, 20 if options.fast else options.steps
    waves = KuramotoSivashinsky(points=128 if fast else 512)
    states = record(
        waves,
        seed=0,
        count=8 if fast else 64,
        samples=steps,
        interval=1.0,
        dt=0.05,
        transient=50.0 if fast else 200.0,
        batch=64,
        folder=options.out,
    )
    measure("kuramoto_sivashinsky", waves, states, 50.0, options.out)
    plot_space_time(
        options.out / "kuramoto_sivashinsky.png",
        {f"trajectory {i}": states[i, :200] for i in range(2)},
        interval=1.0,
        length=waves.length,
    )
    fluid = KolmogorovFlow(points=32 if fast else 64)
    states = record(
        fluid,
        seed=0,
        count=4 if fast else 16,
        samples=steps,
        interval=1.0,
        dt=0.05 if fast else 0.025,
        transient=5.0 if fast else 50.0,
        batch=16,
        folder=options.out,
    )
    measure("kolmogorov", fluid, states, 200.0, options.out)
    times = np.linspace(0, steps - 1, 5).astype(int)
    plot_snapshots(
        options.out / "kolmogorov.png", {f"trajectory {i}": states[i, times] for i in range(2)}, times=times
    )
    print(f"wrote {options.out}/*.png")


if __name__ == "__main__":
    main()
