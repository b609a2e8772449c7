"""One peer on one workload, in a process of its own (arguments: peer, workload, batch, device)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from constrained_nn.bench.rivals import BUILDERS, reference, workload

MARK = "MEASURED "
# Elements whose reference is computed, and seconds for the repetitions of one run.
_CHECKED, _BUDGET = 1024, 6.0


def fastest(run: Callable[[], object], device: str) -> tuple[float, float, int]:
    """Least CPU and wall milliseconds of the process, and repetitions; at least 3, at most 25."""
    run()
    run()
    cpu, wall, start = [], [], time.perf_counter()
    while len(wall) < 3 or (time.perf_counter() - start < _BUDGET and len(wall) < 25):
        _synchronize(device)
        c, w = time.process_time(), time.perf_counter()
        run()
        _synchronize(device)
        cpu.append(time.process_time() - c)
        wall.append(time.perf_counter() - w)
        if time.perf_counter() - start > 5 * _BUDGET:
            break
    return 1e3 * min(cpu), 1e3 * min(wall), len(wall)


def _synchronize(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def measure(peer: str, name: str, batch: int, device: str) -> dict[str, Any]:
    """Times, violation, distance to the reference and relative error of the derivative."""
    work = workload(name, batch)
    forward, both = BUILDERS[peer](work, device)
    forward_cpu, forward_wall, repeats = fastest(forward, device)
    value = forward().astype(np.float64)
    record: dict[str, Any] = {
        "peer": peer,
        "workload": name,
        "batch": batch,
        "device": device,
        "forward_ms": forward_cpu,
        "forward_wall_ms": forward_wall,
        "repeats": repeats,
        "violation": work.violation(value),
    }
    slope = None
    if both is not None:
        try:
            record["both_ms"], record["both_wall_ms"], _ = fastest(both, device)
            slope = both().astype(np.float64)
        except Exception as error:  # a peer without this derivative is a result, not a crash
            record["backward_error"] = f"{type(error).__name__}: {str(error)[:120]}"
    if batch <= _CHECKED:
        exact, slopes = reference(work)
        record["distance"] = float(np.abs(value - exact).max())
        if slope is not None:
            record["gradient_error"] = float(np.linalg.norm(slope - slopes) / np.linalg.norm(slopes))
    return record


def main() -> None:
    peer, name, batch, device = sys.argv[1:]
    if "torch" in sys.modules or peer in ("constrained_nn", "constrained_nn_float32"):
        import torch

        torch.set_num_threads(1)
    print(MARK + json.dumps(measure(peer, name, int(batch), device)))


if __name__ == "__main__":
    main()
