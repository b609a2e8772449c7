"""A learned controller keeps a pendulum upright: trained, proved for a whole set of states, and checked again.

    python examples/certify_pendulum.py            under a minute
    python examples/certify_pendulum.py --fast     a smaller set of states

A network with 2-16-16-1 units learns to saturate like a clipped LQR. For every state with `V(x) <= level` the proof
shows that `V` falls in each step of the simulation, down to a small ellipse that a matrix inequality closes: every
motion from there ends at rest. The same network, plant and integrator run here, are written as programs into
`loop.json`, and are evaluated in ball arithmetic by a checker that knows neither PyTorch nor the plant.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import solve_discrete_are
from torch import nn

from constrained_nn.control import AnchoredController
from constrained_nn.evidence import (
    certify_loop,
    load_loop,
    quadratic_value,
    save_loop,
    suggest_level,
    trace_module,
    write,
)
from constrained_nn.plotting import plot_cover
from constrained_nn.verify import check_claims, decode, decode_one, leaves
from control_envs.simulate import rollout
from control_envs.tasks import PendulumTask

TOP = np.array([np.pi, 0.0])
LIMIT = 6.0  # N m; the weight alone pulls with up to 9.81 N m


def regulator(task: PendulumTask) -> tuple[np.ndarray, np.ndarray]:
    """Cost `x' P x` and gain `K` of the LQR of one step at the top."""
    step = torch.func.jacfwd(
        lambda x, u: task.integrator.step(task.plant, 0.0, x, u, None, task.dt, torch), argnums=(0, 1)
    )
    A, B = (M.numpy() for M in step(torch.from_numpy(TOP), torch.zeros(1).double()))
    P = solve_discrete_are(A, B, np.diag([10.0, 0.1]), 0.1 * np.eye(1))
    return P, np.linalg.solve(0.1 * np.eye(1) + B.T @ P @ B, B.T @ P @ A)


def learn(K: np.ndarray, steps: int, seed: int) -> AnchoredController:
    """A network that imitates the clipped LQR, saturated by construction and at rest at the top."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    backbone = nn.Sequential(
        nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
    ).double()
    origin, one = torch.from_numpy(TOP), torch.ones(1).double()
    policy = AnchoredController(backbone, origin, 0 * one, -LIMIT * one, LIMIT * one)
    optimizer = torch.optim.Adam(policy.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        e = (2.0 * torch.rand(256, 2, generator=generator).double() - 1.0) * torch.tensor([1.2, 4.0])
        e = e * torch.rand(256, 1, generator=generator).double()  # more of them near the top
        target = (-e @ torch.from_numpy(K).T).clamp(-LIMIT, LIMIT)
        loss = (policy(0.0, origin + e) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return policy.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="training steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes of the proof")
    parser.add_argument("--out", type=Path, default=Path("runs/pendulum"), help="folder of the results")
    parser.add_argument("--fast", action="store_true", help="a smaller set of states")
    options = parser.parse_args()

    torch.set_num_threads(1)
    task = PendulumTask()
    P, K = regulator(task)
    policy = learn(K, 300 if options.fast else options.steps, options.seed)
    value, width = quadratic_value(P, TOP), np.array([1.0, 3.6])
    settings = {"lower": TOP - width, "upper": TOP + width, "center": TOP}
    path = save_loop(options.out, task, trace_module(policy, 2), value, level=1.0, **settings)
    _, _, loop, _ = load_loop(path)
    level = 0.97 * suggest_level(loop, np.random.default_rng(options.seed))
    if options.fast:  # a smaller set, in a smaller box
        level = min(level, 0.4)
        width = 1.05 * np.sqrt(level * np.diag(np.linalg.inv(P)))
        settings |= {"lower": TOP - width, "upper": TOP + width}
    save_loop(options.out, task, trace_module(policy, 2), value, level=level, **settings)

    start = time.perf_counter()
    certificate = certify_loop(path, command="examples/certify_pendulum.py", jobs=options.jobs)
    file = write(certificate, options.out / "certificate.json")
    print(f"proof: {time.perf_counter() - start:.1f} s, {file.stat().st_size / 1e3:.0f} kB")
    start = time.perf_counter()
    (finding,) = check_claims(json.loads(file.read_text()))
    print(f"check: {time.perf_counter() - start:.1f} s")
    print(finding.statement)
    print(finding.text)

    _, _, loop, _ = load_loop(path)
    states = loop.sample(np.random.default_rng(1), 20_000)
    claim, e = certificate["claims"][0], states - loop.center
    inner = np.array(decode(claim["data"]["P"], "P")).reshape(2, 2)
    outside = ((e @ inner) * e).sum(-1) > decode_one(claim["radius"], "radius")
    states = states[(loop.lyapunov(states) <= level) & outside]
    print(f"largest change of V at {len(states)} samples outside of E: {loop.change(states).max():.3g}")
    starts = states[np.argsort(loop.lyapunov(states))[-24:]]
    with torch.no_grad():
        runs = rollout(
            task.plant, policy, torch.from_numpy(starts), dt=task.dt, horizon=60, integrator=task.integrator
        )
    claim = certificate["claims"][0]
    boxes = list(leaves(claim["data"]["cover"], loop.lower.tolist(), loop.upper.tolist(), "oid?", "cover"))
    figure = plot_cover(
        options.out / "certify_pendulum.png",
        "".join(box.label for box in boxes),
        np.array([box.lower for box in boxes]),
        np.array([box.upper for box in boxes]),
        value=loop.lyapunov,
        level=level,
        trajectories=runs.x.numpy(),
        axes=("theta [rad]", "omega [rad/s]"),
        margin=loop.change,
    )
    print(f"wrote {figure} and {file}; check it: constrained-nn check {file}")
    raise SystemExit(int(finding.outcome))


if __name__ == "__main__":
    main()
