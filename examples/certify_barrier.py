"""Two safe sets that held inputs cannot leave, whatever a network proposes: flown under hostile proposals, and proved.

    python examples/certify_barrier.py            two proofs, some minutes
    python examples/certify_barrier.py --fast     a few short runs and the proof of the double integrator

The proof needs no network: it is about the rows of the barrier, for every state of the set. A folder for each is left
for `constrained-nn certify`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from constrained_nn import HardNetAffine
from constrained_nn.certificates import SampledBarrier
from constrained_nn.evidence import certify_barrier, save_barrier, write
from constrained_nn.plotting import COLORS, new_figure
from constrained_nn.verify import check_claims
from control_envs.simulate import RK4
from control_envs.tasks import DoubleIntegratorTask, KinematicUnicycleTask

STARTS = {  # boxes of start states, lower and upper ends: proved to lie in the safe set
    "double-integrator": ([-2.5, -0.35], [-0.4, 0.35]),
    "kinematic-unicycle": ([-4.0, -2.4, -0.45], [-2.2, 2.4, 0.45]),
}
PARTS = 5  # states that are looked at within one held input


def fly(task, runs: int, steps: int) -> tuple[torch.Tensor, float]:
    """States `(steps, runs, n)` under proposals at random and at the limits, and the smallest barrier seen."""
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(task.input_low), torch.tensor(task.input_high)
    barrier = SampledBarrier(
        task.clearances, task.plant, hold=task.clearance_hold, low=low, high=high, acts_on=0
    )
    layer = HardNetAffine().eval()
    lower, upper = (torch.tensor(v) for v in task.clearance_box)
    x = lower + (upper - lower) * torch.rand(20 * runs, len(lower), generator=generator, dtype=torch.float64)
    x = x[((barrier.value(x) >= 0) & (barrier.clearance(x) >= 0)).all(-1)][:runs]
    path, worst = [x], float("inf")
    for k in range(steps):
        if k % 20 == 0:  # a new whim of the network now and then: as far as it goes, in any direction
            raw = torch.where(torch.rand(len(x), len(low), generator=generator) < 0.5, low - 1, high + 1)
        u = layer(raw, barrier.condition(0.0, x))
        for _ in range(PARTS):
            x = RK4().step(task.plant, 0.0, x, u, None, task.clearance_hold / PARTS, torch)
            worst = min(worst, float(barrier.value(x).amin()), float(barrier.clearance(x).amin()))
            path.append(x)
    return torch.stack(path), worst


def draw(path: Path, line: torch.Tensor, plane: torch.Tensor) -> None:
    """The two safe sets with the runs."""
    figure, ((left, right),) = new_figure(8.6, 3.9, 1, 2)
    task = DoubleIntegratorTask()
    low, high = torch.tensor(task.input_low), torch.tensor(task.input_high)
    barrier = SampledBarrier(task.clearances, task.plant, hold=task.clearance_hold, low=low, high=high)
    axes = [
        torch.linspace(float(a), float(b), 200, dtype=torch.float64)
        for a, b in zip(*task.clearance_box, strict=True)
    ]
    p, v = torch.meshgrid(*axes, indexing="xy")
    x = torch.stack([p, v], -1)
    least = torch.minimum(barrier.value(x).amin(-1), barrier.clearance(x).amin(-1))
    left.contourf(p, v, least, levels=[0.0, 1e9], colors=["#E3F1FA"])
    left.contour(p, v, least, levels=[0.0], colors="black", linewidths=1.2)
    left.plot(line[..., 0].numpy(), line[..., 1].numpy(), color=COLORS[0], lw=0.5, alpha=0.7)
    left.set(xlabel="p [m]", ylabel="v [m/s]", title="double integrator: walls and speed limits")
    unicycle = KinematicUnicycleTask()
    for outline in unicycle.scenery():
        right.fill(*outline.T, color="#BBBBBB")
    angle = torch.linspace(0, 6.2832, 200)
    right.plot(5.0 * torch.cos(angle), 5.0 * torch.sin(angle), color="black", lw=1.2)
    right.plot(plane[..., 0].numpy(), plane[..., 1].numpy(), color=COLORS[0], lw=0.5, alpha=0.7)
    right.set(xlabel="px [m]", ylabel="py [m]", title="unicycle: an obstacle and a fence", aspect="equal")
    for ax in (left, right):
        ax.title.set_fontsize(9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/barriers"), help="folder of all results")
    parser.add_argument("--runs", type=int, default=60, help="simulated runs of each task")
    parser.add_argument("--fast", action="store_true", help="few runs, and one proof")
    options = parser.parse_args()

    torch.set_num_threads(1)
    tasks = [DoubleIntegratorTask(), KinematicUnicycleTask()]
    runs, steps = (8, 20) if options.fast else (options.runs, 160)
    paths = []
    for task in tasks:
        x, worst = fly(task, runs, steps)
        paths.append(x)
        print(f"{task.name}: {runs} runs under hostile proposals, smallest barrier {worst:.3g}")
    draw(options.out / "barrier_proofs.png", *paths)
    for task in tasks[:1] if options.fast else tasks:
        folder = options.out / task.name
        start = STARTS[task.name]
        save_barrier(folder, task.name, start)
        certificate = certify_barrier(task, command=f"constrained-nn certify {folder}", start=start)
        write(certificate, folder / "certificate.json")
        (finding,) = check_claims(certificate)
        print(f"{task.name}: {finding.text}")
    print(
        f"wrote {options.out}; for a page: constrained-nn report {options.out}/double-integrator/certificate.json"
    )


if __name__ == "__main__":
    main()
