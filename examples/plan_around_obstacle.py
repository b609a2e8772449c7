"""A network that plans around an obstacle, with dynamics, obstacle and limits satisfied to machine precision.

    python examples/plan_around_obstacle.py            about two minutes
    python examples/plan_around_obstacle.py --fast     a few steps, to see that it runs

It learns without labels, then drives in closed loop: a new plan at every step, of which it takes the first input.
Writes `plans.png` and `closed_loop.gif`. --checkpoint loads what `constrained-nn reproduce mpc-obstacle` trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from constrained_nn.experiments.tables.hardnet_plus_plus import HORIZON, HardNetPlanner
from constrained_nn.plotting import plot_plans
from constrained_nn.training.supervised import PlanSolver, draw_starts, plan_cost, plan_map, plan_set
from control_envs.envs import record
from control_envs.simulate import rollout
from control_envs.tasks import make_task


def main(steps: int, batch: int, checkpoint: Path | None, out: Path) -> None:
    torch.set_num_threads(1)
    task = make_task("kinematic-unicycle")
    planner = HardNetPlanner()
    network = planner.network(seed=1) if checkpoint is None else planner.load(checkpoint)
    steps = steps if checkpoint is None else 0

    starts = torch.from_numpy(draw_starts(seed=0, count=max(batch, 500)))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for step in range(steps):
        chosen = torch.randint(len(starts), (batch,), generator=torch.Generator().manual_seed(step))
        loss = planner.loss(network, starts[chosen], done=step / steps) / batch
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 5) == 0:
            print(f"step {step:4d}: loss {loss.item():8.2f}")

    # plans from fresh start states
    x0 = torch.from_numpy(draw_starts(seed=101, count=40))
    with torch.no_grad():
        y, worst = planner.plan(network, x0)
    violation = plan_set(x0, HORIZON).violation(y).max()
    print(
        f"40 fresh plans: cost {plan_cost(y, HORIZON).mean():.1f}, largest violation {violation:.1e}, "
        f"at most {worst} steps"
    )

    # closed loop: plan, use the first input, plan again
    def controller(t: float, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            plan, _ = planner.plan(network, x)
        return plan_map(HORIZON).split(plan)[1][..., 0, :]

    def optimal(t: float, x: torch.Tensor) -> torch.Tensor:
        solver = PlanSolver(HORIZON)
        first = [solver.solve(one, solver.guesses(one)[::3]).inputs[0] for one in x.numpy()]
        return torch.stack([torch.from_numpy(u) for u in first])

    begin = torch.tensor([[-3.2, 0.3, -0.1]], dtype=torch.float64)
    drives = {}
    for name, policy in {"network behind HardNet++": controller, "re-solved at every step": optimal}.items():
        drive = rollout(
            task.plant,
            policy,
            begin,
            dt=task.dt,
            horizon=task.horizon,
            integrator=task.integrator,
            extremes={c.name: c.g for c in task.constraints},
        )
        both = plan_map(task.horizon).join(drive.x[:, 1:], drive.u)
        cost, intrusion = plan_cost(both, task.horizon).item(), drive.worst["obstacle"].item()
        print(f"closed loop, {name}: cost {cost:.2f}, obstacle margin {-intrusion:.1e}")
        drives[f"closed loop, {name}"] = drive.x.numpy()

    out.mkdir(parents=True, exist_ok=True)
    planned = torch.cat([x0.unsqueeze(1), plan_map(HORIZON).split(y)[0]], 1)
    picture = plot_plans(
        out / "plans.png", task, {"plans from fresh start states": planned.numpy(), **drives}
    )
    film = record(task, next(iter(drives.values()))[0], out / "closed_loop.gif")
    print(f"wrote {picture.name} and {film.name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500, help="gradient steps")
    parser.add_argument("--batch", type=int, default=100, help="start states a step")
    parser.add_argument("--checkpoint", type=Path, help="trained weights")
    parser.add_argument("--out", type=Path, default=Path("runs/plans"), help="folder of picture and film")
    parser.add_argument("--fast", action="store_true", help="three steps of twenty start states")
    options = parser.parse_args()
    if options.fast:
        options.steps, options.batch = 3, 20
    main(options.steps, options.batch, options.checkpoint, options.out)
