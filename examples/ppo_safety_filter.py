"""PPO on 512 copies of a mass on a line, without and with a safety filter in front of the plant.

The filter is proved safe for the sampled system. Let `b(v) = max(v, 0)²/2 + max(v, 0) dt/2`: a bound on the way to
stop at full force under inputs held for `dt`. The set `p + b(v) <= wall` is invariant, because full braking (or, in
the last interval, the force that stops the mass) keeps it, so the filter may allow any force F that keeps it after
the step: `p + v dt + F dt²/2 + b(v + F dt) <= wall`. The left side increases with F: this is an upper bound on F.

    python examples/ppo_safety_filter.py [--fast]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from stable_baselines3 import PPO

from constrained_nn import HardNetAffine, Polyhedron
from control_envs import make_vec
from control_envs.envs import VectorSafetyFilter, evaluate
from control_envs.envs.sb3 import Sb3VecEnv

WALL, SPEED, FORCE, MASS, DT = 0.1, 0.7, 1.0, 1.0, 0.05  # as in the task "double-integrator"
ROUNDING = 1e-9  # [m], [m/s]: keeps the limits under rounding of the simulation


def safe_forces(t: torch.Tensor, x: torch.Tensor) -> Polyhedron:
    """Forces after which the mass can still stop before the wall, and which keep the speed limit."""
    p, v = x[..., 0], x[..., 1]
    # The largest speed s = v + F dt with p + (v + s) dt/2 + s²/2 + s dt/2 <= wall, for s >= 0 a quadratic ...
    room = WALL - ROUNDING - p - 0.5 * v * DT
    fastest = -DT + torch.sqrt(torch.clamp(DT * DT + 2.0 * room, min=0.0))
    # ... and for s < 0, where only p + (v + s) dt/2 <= wall is asked, linear.
    fastest = torch.where(room >= 0, fastest, 2.0 * room / DT)
    upper = (torch.clamp(fastest, max=SPEED - ROUNDING) - v) / DT
    lower = (-SPEED + ROUNDING - v) / DT
    limit = torch.full_like(upper, FORCE / MASS)
    sides = [torch.maximum(lower, -limit), torch.minimum(upper, limit)]
    return Polyhedron(torch.ones_like(v)[..., None, None], *(MASS * side[..., None] for side in sides))


def build(copies: int, filtered: bool, autoreset: str):
    """The vector environment, with or without the filter."""
    env = make_vec("DoubleIntegrator-v0", copies, autoreset_mode=autoreset)
    return VectorSafetyFilter(env, safe_forces, HardNetAffine(), on_infeasible="raise") if filtered else env


def main(steps: int, episodes: int) -> dict[str, dict[str, float]]:
    """Train both, play `episodes` fresh episodes with the noise of training, print and return the comparison."""
    torch.set_num_threads(1)
    results = {}
    for name, filtered in (("without filter", False), ("with filter", True)):
        agent = PPO(
            "MlpPolicy", Sb3VecEnv(build(512, filtered, "SameStep")), n_steps=32, batch_size=4096, seed=0
        )
        agent.learn(steps)
        played = evaluate(
            lambda observation, info, agent=agent: agent.predict(observation)[0],
            build(episodes, filtered, "Disabled"),
            seed=10_000,
        )
        results[name] = {
            "return": float(np.mean(played["return"])),
            "episodes with a violation": int((played["violations"] > 0).sum()),
            "smallest margin": float(played["margin"].min()),
        }
        print(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in results[name].items()))
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="two updates only, 1,000 episodes all the same")
    fast = parser.parse_args().fast
    main(steps=2 * 512 * 32 if fast else 40 * 512 * 32, episodes=1000)
