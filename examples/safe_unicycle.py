"""A network that drives around two obstacles, safe before, during and after its training.

    python examples/safe_unicycle.py            about two minutes
    python examples/safe_unicycle.py --fast     a few steps, to see that it runs

Everything is spelled out here; `constrained-nn train unicycle-obstacles` does the same with checkpoints and logs.
"""

from __future__ import annotations

import argparse

import torch

from constrained_nn import ControlBarrier, HardNetAffine
from constrained_nn.control import ResidualController, SafetyFilter
from control_envs.simulate import rollout
from control_envs.tasks import UnicycleObstacles


def main(steps: int, batch: int, seed: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    task = UnicycleObstacles()
    barrier = ControlBarrier(task.barrier, task.plant, rate=task.alpha)

    # the network proposes a correction to a simple controller; the layer makes the sum safe
    network = torch.nn.Sequential(
        torch.nn.Linear(6, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 2),
    ).double()
    torch.nn.init.zeros_(network[-1].weight)
    torch.nn.init.zeros_(network[-1].bias)
    proposal = ResidualController(task.nominal, task.features, network)
    controller = SafetyFilter(proposal, barrier.condition, HardNetAffine())

    starts = {name: torch.from_numpy(x) for name, x in task.published_starts().items()}

    def simulate(x0: torch.Tensor):
        """Cost of each run, and the deepest intrusion into an obstacle (negative is clear)."""
        path = rollout(
            task.plant,
            controller,
            x0,
            dt=task.dt,
            horizon=task.horizon,
            integrator=task.integrator,
            substeps=task.substeps,
            running={"cost": task.stage_cost},
            extremes={c.name: c.g for c in task.constraints},
        )
        return path.integrals["cost"], torch.stack([*path.worst.values()]).amax(0)

    def report(when: str) -> None:
        with torch.no_grad():
            cost, intrusion = simulate(starts["test"])
        hits = int((intrusion > 0).sum())
        print(f"{when}: cost {cost.mean():7.2f}, {hits} collisions in {len(cost)} runs")

    report("before training")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(steps):
        pick = torch.randint(len(starts["train"]), (batch,))
        cost, _ = simulate(starts["train"][pick])
        optimizer.zero_grad()
        cost.mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 200.0)
        optimizer.step()
    report("after training ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300, help="gradient steps")
    parser.add_argument("--batch", type=int, default=100, help="start states a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fast", action="store_true", help="three steps of ten start states")
    options = parser.parse_args()
    if options.fast:
        options.steps, options.batch = 3, 10
    main(options.steps, options.batch, options.seed)
