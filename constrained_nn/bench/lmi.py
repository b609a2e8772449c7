"""`constrained-nn bench lmi`: LMI-Net beside conic solvers, on the two published problems."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from constrained_nn.options import Device, Threads, prepare_torch

# How many times faster than SCS with a problem built each time, and than Clarabel with compiled
# parameters.
BARS = {"ellipsoid": (30.0, 5.0), "controller": (10.0, 3.0)}


def command(
    batch: Annotated[int, typer.Option(min=1, help="Elements in a batch of ours.")] = 1024,
    samples: Annotated[
        int, typer.Option(min=1, help="Elements that a conic solver gets; SCS a quarter.")
    ] = 200,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions; the least time counts.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Time the layer against SCS and Clarabel through cvxpy, per sample, on random proposals (no trained network).

    `ellipsoid` (orders 3 and 2, 3 unknowns) and `controller` (3 and 2, 5 unknowns) with the
    published systems. The solvers get the published problems (largest `log det P`; least trace of
    `Q`) and, compiled, the layer's own (the nearest point). CPU milliseconds; every rival also runs
    on one thread.
    """
    prepare_torch(device, threads)
    from rich.console import Console

    from constrained_nn.files import commit, machine, versions, write_json

    records = [measure(name, batch, samples, repeats, device) for name in BARS]
    for record in records:
        Console(width=110).print(table(record))
    if out is not None:
        whole = {"benchmark": "lmi", "threads": threads, "device": device, "records": records}
        write_json(out, whole | {"commit": commit(), "versions": versions(), "machine": machine()})
        typer.echo(f"wrote {out}")


def measure(name: str, batch: int, samples: int, repeats: int, device: str) -> dict[str, Any]:
    """Milliseconds a sample, violations and distances of every way to solve one problem."""
    import numpy as np
    import torch

    from constrained_nn.experiments.tables.lmi import problems as common
    from constrained_nn.layers import LeastViolation, LMINet

    data, set, dim, conic, goal = _problem(name, max(batch, samples))
    points = torch.randn(len(data[0]), dim, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    layer = LMINet(on_failure=LeastViolation()).to(device)
    y, moved = points[:batch].to(device), set(*(t[:batch].to(device) for t in data))

    def forward() -> Any:
        with torch.no_grad():
            return layer.solve(y, moved)

    def both() -> None:
        leaf = y.clone().requires_grad_()
        layer.solve(leaf, moved).value.sum().backward()

    solution = forward()
    proved = moved.certified(solution.value)
    rows = [
        {
            "peer": "LMINet",
            "problem": "nearest",
            "ms": _least(forward, repeats) / batch,
            "violated": 100.0 * (~(proved & solution.ok)).double().mean().item(),
            "both_ms": _least(both, repeats) / batch,
            "fallback": 100.0 * (solution.status == 1).double().mean().item(),
            "steps": int(solution.steps.max()),
        }
    ]
    plain = tuple(t[:samples].numpy() for t in data)
    near = (*plain, points[:samples].numpy())
    runs = [
        ("SCS, built each time", goal, "SCS", False, {}, plain),
        ("SCS, compiled", goal, "SCS", True, {"warm_start": False}, plain),
        ("SCS, compiled, warm start", goal, "SCS", True, {"warm_start": True}, plain),
        ("Clarabel, compiled", goal, "CLARABEL", True, {}, plain),
        ("Clarabel, compiled", "nearest", "CLARABEL", True, {}, near),
        ("Clarabel at 1e-12", "nearest", "CLARABEL", True, common.TIGHT, near),
    ]
    for peer, problem, solver, compiled, options, given in runs:
        count = max(1, samples // 4) if solver == "SCS" else samples
        values, _, milliseconds = common.run_conic(
            lambda problem=problem: conic(problem),
            tuple(g[:count] for g in given),
            solver,
            compiled,
            **options,
        )
        part = set(*(t[:count] for t in data))
        missed = part.violation(torch.from_numpy(values))
        row = {
            "peer": peer,
            "problem": problem,
            "ms": milliseconds,
            "violated": 100.0 * (~(missed <= 0)).double().mean().item(),
            "violated_1e6": 100.0 * (~(missed <= 1e-6)).double().mean().item(),
        }
        if solver == "CLARABEL" and options:
            ours = layer.solve(points[:count].to(device), set(*(t[:count].to(device) for t in data)))
            both_ok = np.isfinite(values).all(-1) & ours.ok.cpu().numpy()
            apart = np.abs(ours.value.cpu().numpy() - values).max(-1)
            relative = apart / (1.0 + np.abs(values).max(-1))
            row["distance"] = float(np.median(relative[both_ok]))
            row["distance_99"] = float(np.quantile(relative[both_ok], 0.99))
        rows.append(row)
    return {"workload": name, "batch": batch, "rows": rows, "bars": list(BARS[name])}


def _problem(name: str, count: int) -> tuple[Any, ...]:
    """Data, set and dimension, the conic problem by its objective, and the published objective."""
    from constrained_nn.experiments.tables.lmi import problems as common

    if name == "ellipsoid":
        return (
            common.stable_systems("train", count, 1000),
            common.ellipsoid,
            3,
            common.conic_ellipsoid,
            "volume",
        )
    return common.joint_systems("train", count, 2000), common.controller, 5, common.conic_controller, "trace"


def _least(function: Any, repeats: int) -> float:
    """Least CPU milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(1e3 * (time.process_time() - start))
    return min(times)


def ratios(record: dict[str, Any]) -> tuple[float, float]:
    """How many times faster ours is than SCS built each time and than the faster compiled Clarabel."""
    ours = record["rows"][0]["ms"]
    scs = min(r["ms"] for r in record["rows"] if r["peer"] == "SCS, built each time")
    clarabel = min(r["ms"] for r in record["rows"] if r["peer"] == "Clarabel, compiled")
    return scs / ours, clarabel / ours


def table(record: dict[str, Any]) -> Any:
    """The figures of one problem, with the bars."""
    from rich.table import Table

    grid = Table(title=f"{record['workload']}, ours in a batch of {record['batch']}, CPU ms a sample")
    for heading in ("peer", "problem", "ms", "violated at 0 [%]", "above 1e-6 [%]", "note"):
        grid.add_column(heading, justify="left" if heading in ("peer", "problem", "note") else "right")
    for r in record["rows"]:
        note = ""
        if "fallback" in r:
            note = f"with derivative {r['both_ms']:.3f} ms; interior {r['fallback']:.1f} %; <= {r['steps']} steps"
        if "distance" in r:
            note = f"ours is {r['distance']:.0e} from it (median), {r['distance_99']:.0e} (99 %)"
        loose = f"{r['violated_1e6']:.1f}" if "violated_1e6" in r else "0.0"
        grid.add_row(r["peer"], r["problem"], f"{r['ms']:.3f}", f"{r['violated']:.1f}", loose, note)
    found, bars = ratios(record), record["bars"]
    met = all(f >= b for f, b in zip(found, bars, strict=True)) and record["rows"][0]["violated"] == 0
    grid.caption = (
        f"{found[0]:.0f} times faster than SCS built each time (bar {bars[0]:g}), {found[1]:.1f} times faster than "
        f"compiled Clarabel (bar {bars[1]:g}): {'met' if met else 'missed'}"
    )
    return grid
