"""`constrained-nn bench nonlinear`: plans behind HardNet++, beside the published unrolled layer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from constrained_nn.bench.figures import Out, with_origin, write_figures
from constrained_nn.printing import make_table, print_tables

if TYPE_CHECKING:
    from rich.table import Table

# The published layer in full, and our bars against it.
BATCH, ITERATIONS = 1000, 500
LEAST_SPEEDUP, LARGEST_MEMORY = 20.0, 0.1
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def command(
    batch: Annotated[int, typer.Option(min=2, help="Plans in our batch.")] = BATCH,
    published_batch: Annotated[
        int, typer.Option(min=2, help="Plans in the batch of the published layer.")
    ] = 125,
    published_iterations: Annotated[int, typer.Option(min=1, help="Its measured iterations.")] = 50,
    out: Out = None,
) -> None:
    """Enforce a batch of unicycle plans of ten steps (50 numbers, 60 rows), forward and backward.

    The published layer (500 iterations on the tape of autograd, float32) is measured on a part and
    scaled linearly in batch and iterations; in full it takes about 20 GB. Ours run in float64 to
    1e-10. Each runs in its own process on one thread; CPU seconds.
    """
    record = run(batch, published_batch, published_iterations)
    print_tables(table(record))
    write_figures(out, record)


def run(batch: int = BATCH, published_batch: int = 125, published_iterations: int = 50) -> dict[str, Any]:
    """Measure ours on `batch` plans and the published layer on a part of them."""
    ours = {name: _measured(name, batch, 0) for name in ("retraced", "implicit")}
    part = _measured("published", published_batch, published_iterations)
    factor = (batch / published_batch) * (ITERATIONS / published_iterations)
    scaled = {name: factor * part[name] for name in ("forward_s", "backward_s", "peak_mib")}
    memory = max(scaled["peak_mib"], 1.0)  # less than this is not seen in the high-water mark of a process
    seconds = scaled["forward_s"] + scaled["backward_s"]
    return with_origin(
        "nonlinear",
        threads=1,
        batch=batch,
        published_measured={"batch": published_batch, "iterations": published_iterations, **part},
        published_scaled=scaled,
        ours=ours,
        speedup={n: seconds / (r["forward_s"] + r["backward_s"]) for n, r in ours.items()},
        memory={n: r["peak_mib"] / memory for n, r in ours.items()},
    )


def _measured(name: str, batch: int, iterations: int) -> dict[str, float]:
    from constrained_nn.bench.rivals import MARK

    call = [
        sys.executable,
        "-m",
        "constrained_nn.bench.rivals.planning_layers",
        name,
        str(batch),
        str(iterations),
    ]
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, **_ONE_THREAD})
    found = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not found:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise RuntimeError(f"bench nonlinear: expected a measurement of '{name}', got: {last[:200]}.")
    return json.loads(found[-1][len(MARK) :])


def table(record: dict[str, Any]) -> Table:
    """The figures, with the bars."""
    scaled = record["published_scaled"]
    rows = [
        (
            f"published, {ITERATIONS} iterations (scaled)",
            f"{scaled['forward_s']:.1f}",
            f"{scaled['backward_s']:.1f}",
            f"{scaled['peak_mib']:.0f}",
            "-",
            "1",
        )
    ]
    rows += [
        (
            f"ours, {name}",
            f"{r['forward_s']:.2f}",
            f"{r['backward_s']:.2f}",
            f"{r['peak_mib']:.0f}",
            f"{r['violation']:.1e}",
            f"{record['speedup'][name]:.0f}",
        )
        for name, r in record["ours"].items()
    ]
    speedup, memory = record["speedup"]["retraced"], record["memory"]["retraced"]
    met = speedup >= LEAST_SPEEDUP and memory < LARGEST_MEMORY
    return make_table(
        ("layer", "forward", "backward", "peak memory [MiB]", "largest violation", "speedup"),
        rows,
        title=f"{record['batch']} plans, forward and backward, CPU seconds of one thread",
        caption=f"{speedup:.0f} times faster at {memory:.1%} of the memory; "
        f"bar {LEAST_SPEEDUP:.0f} times and below {LARGEST_MEMORY:.0%}: {'met' if met else 'missed'}",
    )
