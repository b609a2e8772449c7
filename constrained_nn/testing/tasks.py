"""What every task promises; `control_envs.checks.check_plant` looks at its plant."""

from __future__ import annotations

import numpy as np
import torch

from constrained_nn.testing.tensors import expect
from control_envs.tasks import Task

_BOTH = "Write it over leading batch dimensions against `array_namespace(x)`, without branches on values."


def check_task(task: Task, *, count: int = 5, seed: int = 0) -> None:
    """Check a task at sampled starts: shapes, starts inside their bounds, NumPy equal to torch, batch equal to loop.

    Args:
        task: The task.
        count: Number of starts.
        seed: Seed of the draws.

    Raises:
        AssertionError: A promise of `Task` is broken.
    """
    name, plant, rng = type(task).__name__, task.plant, np.random.default_rng(seed)
    x = task.sample_starts(rng, count)
    shape = (count, plant.state_dim)
    expect(x.shape == shape, f"{name}.sample_starts of shape {shape}", x.shape, "One row for each start.")
    again = task.sample_starts(np.random.default_rng(seed), count)
    advice = "Draw from the generator that is passed, and from nothing else."
    expect(np.array_equal(x, again), f"{name}.sample_starts to repeat with its seed", again, advice)
    u = rng.uniform(-1.0, 1.0, (count, plant.input_dim))
    u = np.clip(u, task.input_low, task.input_high)
    functions = {
        "stage_cost": lambda x, u: task.stage_cost(0.0, x, u),
        "features": lambda x, u: task.features(0.0, x),
        "nominal": lambda x, u: task.nominal(0.0, x),
    } | {f"constraint {c.name}": lambda x, u, g=c.g: g(0.0, x, u) for c in task.constraints}
    for what, function in functions.items():
        found = np.asarray(function(x, u))
        expect(found.shape[:1] == (count,), f"{name}: {what} of {count} elements", found.shape, _BOTH)
        expect(
            np.isfinite(found).all(),
            f"{name}: {what} finite at the starts",
            found,
            "Look at the formula there.",
        )
        loop = np.stack([np.asarray(function(x[i], u[i])) for i in range(count)])
        same = np.allclose(found, loop, rtol=1e-12, atol=1e-12)
        expect(same, f"{name}: {what} of a batch to be that of its elements", found - loop, _BOTH)
        torched = function(torch.from_numpy(x), torch.from_numpy(u))
        same = np.allclose(torch.as_tensor(torched).numpy(), found, rtol=1e-12, atol=1e-12)
        expect(same, f"{name}: {what} to be the same in torch", torched, _BOTH)
    push = task.nominal(0.0, x)
    expect(
        push.shape == u.shape, f"{name}.nominal of shape {u.shape}", push.shape, "One number for each input."
    )
