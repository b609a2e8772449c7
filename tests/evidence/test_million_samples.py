"""A million states of every proved domain, and none that speaks against the proof.

The Lyapunov proofs have theirs in `test_lyapunov.py`, the sets of outputs in `test_outputs.py`, the energies in
`constrained-nn bench energy`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from constrained_nn.certificates import SampledBarrier
from constrained_nn.evidence import certify_barrier, certify_model
from constrained_nn.layers import HardNetAffine
from constrained_nn.models import CoILS
from constrained_nn.verify import Outcome, check_claims
from control_envs.simulate import RK4
from control_envs.tasks import DoubleIntegratorTask, KinematicUnicycleTask
from tests.evidence.test_model_decrease import HOLE, LOWER, UPPER, coils, saved

COUNT, CHUNK = 1_000_000, 100_000


@pytest.mark.slow
@pytest.mark.parametrize("task", [DoubleIntegratorTask(), KinematicUnicycleTask()], ids=["line", "unicycle"])
def test_held_inputs_keep_the_proved_set(task) -> None:
    (finding,) = check_claims(certify_barrier(task, command="test"))
    assert finding.outcome is Outcome.HOLDS, finding.text
    low, high, lower, upper = (
        torch.as_tensor(v) for v in (task.input_low, task.input_high, *task.clearance_box)
    )
    barrier = SampledBarrier(
        task.clearances, task.plant, hold=task.clearance_hold, low=low, high=high, acts_on=0
    )
    layer, generator = HardNetAffine().eval(), torch.Generator().manual_seed(0)
    seen, worst = 0, np.inf
    while seen < COUNT:
        x = lower + (upper - lower) * torch.rand(CHUNK, len(lower), generator=generator, dtype=torch.float64)
        x = x[(barrier.value(x) >= 0).all(-1) & (barrier.clearance(x) >= 0).all(-1)]
        share = torch.rand(len(x), len(low), generator=generator, dtype=torch.float64)
        hostile = torch.where(torch.rand(len(x), 1, generator=generator) < 0.5, share.round(), share)
        u = layer(low - 1 + (high - low + 2) * hostile, barrier.condition(0.0, x))
        for _ in range(4):
            x = RK4().step(task.plant, 0.0, x, u, None, task.clearance_hold / 4, torch)
            worst = min(worst, float(barrier.value(x).amin()), float(barrier.clearance(x).amin()))
        seen += len(x)
    print(f"{task.name}: {seen} states, smallest barrier {worst:.3g}")
    assert worst > -1e-9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["anchored", "affine", "free"])
def test_models_decrease_everywhere_outside_of_the_hole(kind: str, tmp_path: Path) -> None:
    model = coils(kind)
    (finding,) = check_claims(certify_model(saved(tmp_path, model), command="test"))
    assert finding.outcome is Outcome.HOLDS, finding.text
    rng, worst, seen = np.random.default_rng(0), -np.inf, 0
    while seen < COUNT:
        x = torch.from_numpy(rng.uniform(LOWER, UPPER, (CHUNK, 2)))
        x = x[x.abs().amax(-1) > HOLE]
        with torch.no_grad():
            f = (model.closed_loop(x) if isinstance(model, CoILS) else model.solve(x)).value
            V, gradient = model.certificate.value_and_gradient(x)
        rate = model.certificate.rate
        scale = gradient.norm(dim=-1) * f.norm(dim=-1) + rate * V
        worst = max(worst, float((((gradient * f).sum(-1) + rate * V) / scale).max()))
        seen += len(x)
    print(f"{kind}: {seen} states, largest relative slack {worst:.3g}")
    assert worst <= 1e-12
