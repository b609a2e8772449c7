"""A network that flies a quadrotor through a gate: 12 states, 20 stages, 440 rows, all of them enforced.

    python examples/quadrotor_gate.py            about three minutes
    python examples/quadrotor_gate.py --fast     two steps, to see that it runs

The plan has 320 numbers. Its rows are the dynamics, limits on thrust, torques and tilt, the floor, a pole to avoid,
and at stage 10 the gate. HardNet++ solves them by a banded factorization; no matrix of the whole problem is built.
Finally the inputs are replayed on the quadrotor of `control_envs` (unit quaternion, small steps), which knows nothing
of the plan.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from constrained_nn import HardNetPlusPlus, NonlinearSet, TrajectoryMap
from constrained_nn.layers import Implicit
from constrained_nn.solvers import GaussNewton, ResidualDamping
from control_envs.dynamics import Quadrotor
from control_envs.simulate import RK4, rollout

DT, HORIZON, GATE_STAGE, GRAVITY = 0.1, 20, 10, 9.81
GATE, GATE_RADIUS = (0.0, 0.4, 1.5), 0.3  # center [m], in the plane px = 0
MARGIN = 0.05  # [m], for what the long steps of the plan miss
POLE, POLE_RADIUS = (1.0, -0.1), 0.3
GOAL = (2.0, 0.0, 1.2)


def derivative(x: Tensor, u: Tensor) -> Tensor:
    """Position, velocity, roll-pitch-yaw, body rates; input: thrust by mass, torques by inertia [m/s², rad/s²]."""
    velocity, angle, rate = x[..., 3:6], x[..., 6:9], x[..., 9:12]
    sin, cos = torch.sin(angle), torch.cos(angle)
    (sr, sp, sy), (cr, cp, cy) = sin.unbind(-1), cos.unbind(-1)
    axis = torch.stack([cr * sp * cy + sr * sy, cr * sp * sy - sr * cy, cr * cp], -1)
    down = torch.tensor([0.0, 0.0, GRAVITY], dtype=x.dtype)
    a, b, c = rate.unbind(-1)
    turn = b * sr + c * cr
    turning = torch.stack([a + turn * sp / cp, b * cr - c * sr, turn / cp], -1)
    plant = Quadrotor()
    gyroscopic = torch.stack(
        [
            (plant.Jy - plant.Jz) / plant.Jx * b * c,
            (plant.Jz - plant.Jx) / plant.Jy * c * a,
            (plant.Jx - plant.Jy) / plant.Jz * a * b,
        ],
        -1,
    )
    return torch.cat([velocity, u[..., :1] * axis - down, turning, u[..., 1:] + gyroscopic], -1)


def step(x: Tensor, u: Tensor, p: Tensor) -> Tensor:
    """One midpoint step."""
    return x + DT * derivative(x + 0.5 * DT * derivative(x, u), u)


def path(x: Tensor, u: Tensor, p: Tensor) -> Tensor:
    """Inputs, height, roll and pitch, squared distance to the pole, place in the gate."""
    px, py, pz = x[..., 0], x[..., 1], x[..., 2]
    pole = (px - POLE[0]) ** 2 + (py - POLE[1]) ** 2
    gate = (py - GATE[1]) ** 2 + (pz - GATE[2]) ** 2
    return torch.cat([u, x[..., 6:8], torch.stack([pz, pole, px, gate], -1)], -1)


ROWS = TrajectoryMap(step, path, state_dim=12, input_dim=4, path_dim=10, horizon=HORIZON)


def feasible(x0: Tensor) -> NonlinearSet:
    """The plans from a start state."""
    free = torch.inf
    lower = torch.tensor([3.0, *[-15.0] * 3, -1.0, -1.0, 0.2, POLE_RADIUS**2, -free, -free], dtype=x0.dtype)
    upper = torch.tensor([20.0, *[15.0] * 3, 1.0, 1.0, free, free, free, free], dtype=x0.dtype)
    lower, upper = lower.repeat(HORIZON, 1), upper.repeat(HORIZON, 1)
    lower[GATE_STAGE - 1, 8], upper[GATE_STAGE - 1, 8:] = (
        0.0,
        torch.tensor([0.0, (GATE_RADIUS - MARGIN) ** 2]),
    )
    return NonlinearSet(ROWS, *ROWS.bounds(lower, upper), x0)


def guess(x0: Tensor) -> Tensor:
    """Straight to the gate and on to the goal, hovering: not feasible, but near."""
    gate, goal = (torch.tensor(point, dtype=x0.dtype) for point in (GATE, GOAL))
    share = torch.arange(1, HORIZON + 1, dtype=x0.dtype)[:, None] / GATE_STAGE
    start = x0[:, None, :3]
    way = torch.where(share <= 1.0, start + share * (gate - start), gate + (share - 1.0) * (goal - gate))
    before = torch.cat([start, way[:, :-1]], 1)
    states = torch.cat([way, (way - before) / DT, torch.zeros(len(x0), HORIZON, 6, dtype=x0.dtype)], -1)
    hover = torch.tensor([GRAVITY, 0.0, 0.0, 0.0], dtype=x0.dtype).expand(len(x0), HORIZON, 4)
    return ROWS.join(states, hover)


def cost(y: Tensor) -> Tensor:
    """Distance to the goal, speed at the end, tilt and effort."""
    states, inputs = ROWS.split(y)
    away = (states[..., :3] - states.new_tensor(GOAL)).square().sum(-1)
    effort = (inputs - inputs.new_tensor([GRAVITY, 0.0, 0.0, 0.0])).square().sum((-2, -1))
    tilt = states[..., 6:].square().sum((-2, -1))
    last = 20.0 * away[:, -1] + 2.0 * states[:, -1, 3:6].square().sum(-1)
    return away.sum(-1) + last + 0.01 * effort + 0.05 * tilt


def draw(count: int, seed: int) -> Tensor:
    """Start states at rest before the gate."""
    place = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    place = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64) + place * torch.tensor([0.4, 1.0, 0.4])
    return torch.cat([place, torch.zeros(count, 9, dtype=torch.float64)], -1)


def replay(x0: Tensor, inputs: Tensor) -> Tensor:
    """Positions under the inputs on the plant with a quaternion."""
    plant = Quadrotor()
    upright = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=x0.dtype).expand(len(x0), 4)
    start = torch.cat([x0[:, :3], upright, x0[:, 3:6], x0[:, 9:]], -1)
    scale = torch.tensor([plant.mass, plant.Jx, plant.Jy, plant.Jz], dtype=x0.dtype)
    run = rollout(
        plant,
        lambda t, x: scale * inputs[:, round(t / DT)],
        start,
        dt=DT,
        horizon=HORIZON,
        integrator=RK4(substeps=5),
    )
    return run.x[..., :3]


def main(steps: int, batch: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(3, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 320),
    ).double()
    torch.nn.init.zeros_(network[-1].weight)
    torch.nn.init.zeros_(network[-1].bias)
    light = ResidualDamping(
        rate=0.003
    )  # many rows: their norm is large where each of them is nearly satisfied
    layer = HardNetPlusPlus(method=GaussNewton(atol=1e-6, damping=light), adjoint=Implicit())
    strict = HardNetPlusPlus(method=GaussNewton(damping=light))

    def plan(x0: Tensor, layer: HardNetPlusPlus):
        raw = guess(x0) + network(x0[:, :3])
        return raw, layer.solve(raw, feasible(x0))

    def report(when: str) -> Tensor:
        x0 = draw(20, seed=1)
        with torch.no_grad():
            _, solution = plan(x0, strict)
        y = solution.value
        print(
            f"{when}: cost {cost(y).mean():7.2f}, largest violation {solution.violation.max():.1e}, "
            f"at most {solution.steps.max()} steps, {int(solution.ok.sum())} of 20 plans ok"
        )
        return y

    report("before training")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for k in range(steps):
        raw, solution = plan(draw(batch, seed=100 + k), layer)
        y = solution.value
        loss = (cost(y) + 0.3 * (y - raw).square().sum(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    y = report("after training ")
    states, inputs = ROWS.split(y)
    x0 = draw(20, seed=1)
    flown = replay(x0, inputs)
    gap = (flown[:, 1:] - states[..., :3]).norm(dim=-1)
    at_gate = flown[:, GATE_STAGE]
    miss = ((at_gate[:, 1] - GATE[1]) ** 2 + (at_gate[:, 2] - GATE[2]) ** 2).sqrt()
    print(
        f"replayed on the other plant: at most {gap.max():.2f} m from the plan, {gap[:, GATE_STAGE - 1].max():.2f} m "
        f"at the gate, which is passed {miss.max():.2f} m from its center (radius {GATE_RADIUS} m)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=150, help="gradient steps")
    parser.add_argument("--batch", type=int, default=32, help="start states a step")
    parser.add_argument("--fast", action="store_true", help="two steps of four start states")
    options = parser.parse_args()
    if options.fast:
        options.steps, options.batch = 2, 4
    main(options.steps, options.batch)
