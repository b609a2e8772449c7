"""`constrained-nn bench lmi`: LMI-Net beside conic solvers, on the two published problems."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from constrained_nn.bench.figures import Out, Repeats, with_origin, write_figures
from constrained_nn.options import Device, Threads, prepare_torch
from constrained_nn.printing import make_table, print_tables

# How many times faster than SCS with a problem built each time, and than Clarabel with compiled
# parameters.
BARS = {"ellipsoid": (30.0, 5.0), "controller": (10.0, 3.0)}


def command(
    batch: Annotated[int, typer.Option(min=1, help="Elements in a batch of ours.")] = 1024,
    samples: Annotated[
        int, typer.Option(min=1, help="Elements that a conic solver gets; SCS a quarter.")
    ] = 200,
    repeats: Repeats = 5,
    out: Out = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Time the layer against SCS and Clarabel through cvxpy, per sample, on random proposals.

    `ellipsoid` (orders 3 and 2, 3 unknowns) and `controller` (3 and 2, 5 unknowns) with the
    published systems. The solvers get the published problems (largest `log det P`; least trace of
    `Q`) and, compiled, the layer's own (the nearest point). CPU milliseconds; every rival also runs
    on one thread.
    """
    prepare_torch(device, threads)
    records = [measure(name, batch, samples, repeats, device) for name in BARS]
    print_tables(*(table(record) for record in records))
    how = {"threads": threads, "device": device}
    write_figures(out, with_origin("lmi", **how, records=records))


def measure(name: str, batch: int, samples: int, repeats: int, device: str) -> dict[str, Any]:
    """Milliseconds a sample, violations and distances of every way to solve one problem."""
    import torch

    from constrained_nn.experiments.tables.lmi import problems as common
    from constrained_nn.layers import LeastViolation, LMINet

    data, set, dim, conic, goal = _problem(name, max(batch, samples))
    generator = torch.Generator().manual_seed(7)
    points = torch.randn(len(data[0]), dim, generator=generator, dtype=torch.float64)
    layer = LMINet(on_failure=LeastViolation()).to(device)
    moved = set(*(t[:batch].to(device) for t in data))
    rows = [_measure_ours(layer, points[:batch].to(device), moved, repeats)]
    plain = tuple(t[:samples].numpy() for t in data)
    near = (*plain, points[:samples].numpy())
    rivals = [
        ("SCS, built each time", goal, "SCS", False, {}, plain),
        ("SCS, compiled", goal, "SCS", True, {"warm_start": False}, plain),
        ("SCS, compiled, warm start", goal, "SCS", True, {"warm_start": True}, plain),
        ("Clarabel, compiled", goal, "CLARABEL", True, {}, plain),
        ("Clarabel, compiled", "nearest", "CLARABEL", True, {}, near),
        ("Clarabel at 1e-12", "nearest", "CLARABEL", True, common.TIGHT, near),
    ]
    for peer, problem, solver, compiled, options, given in rivals:
        count = max(1, samples // 4) if solver == "SCS" else samples
        values, _, milliseconds = common.run_conic(
            lambda problem=problem: conic(problem),
            tuple(g[:count] for g in given),
            solver,
            compiled,
            **options,
        )
        missed = set(*(t[:count] for t in data)).violation(torch.from_numpy(values))
        row = {"peer": peer, "problem": problem, "ms": milliseconds}
        row["violated"] = _percent(~(missed <= 0))  # NaN counts as violated
        row["violated_1e6"] = _percent(~(missed <= 1e-6))
        if solver == "CLARABEL" and options:
            ours = layer.solve(points[:count].to(device), set(*(t[:count].to(device) for t in data)))
            row |= _distances(ours, values)
        rows.append(row)
    return {"workload": name, "batch": batch, "rows": rows, "bars": list(BARS[name])}


def _measure_ours(layer: Any, y: Any, set: Any, repeats: int) -> dict[str, Any]:
    """The row of our layer, on points `y` and as many sets."""
    import torch

    from constrained_nn.solvers import FoundBy

    def forward() -> Any:
        with torch.no_grad():
            return layer.solve(y, set)

    def both() -> None:
        leaf = y.clone().requires_grad_()
        layer.solve(leaf, set).value.sum().backward()

    solution = forward()
    proved = set.certified(solution.value)
    return {
        "peer": "LMINet",
        "problem": "nearest",
        "ms": _least(forward, repeats) / len(y),
        "violated": _percent(~(proved & solution.ok)),
        "both_ms": _least(both, repeats) / len(y),
        "fallback": _percent(solution.found_by == int(FoundBy.INTERIOR_POINT)),
        "steps": int(solution.steps.max()),
    }


def _percent(mask: Any) -> float:
    return 100.0 * mask.double().mean().item()


def _distances(ours: Any, values: Any) -> dict[str, float]:
    """How far ours is from the values of a solver, relative, where both are solved."""
    import numpy as np

    solved = np.isfinite(values).all(-1) & ours.ok.cpu().numpy()
    apart = np.abs(ours.value.cpu().numpy() - values).max(-1)
    relative = (apart / (1.0 + np.abs(values).max(-1)))[solved]
    return {
        "distance": float(np.median(relative)),
        "distance_99": float(np.quantile(relative, 0.99)),
    }


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
    """How many times faster ours is than SCS built each time, and than compiled Clarabel."""
    ours = record["rows"][0]["ms"]
    scs = min(r["ms"] for r in record["rows"] if r["peer"] == "SCS, built each time")
    clarabel = min(r["ms"] for r in record["rows"] if r["peer"] == "Clarabel, compiled")
    return scs / ours, clarabel / ours


def table(record: dict[str, Any]) -> Any:
    """The figures of one problem, with the bars."""
    rows = []
    for r in record["rows"]:
        note = ""
        if "fallback" in r:
            note = f"with derivative {r['both_ms']:.3f} ms; interior {r['fallback']:.1f} %; "
            note += f"<= {r['steps']} steps"
        if "distance" in r:
            note = f"ours is {r['distance']:.0e} from it (median), {r['distance_99']:.0e} (99 %)"
        loose = f"{r.get('violated_1e6', 0.0):.1f}"
        rows.append((r["peer"], r["problem"], f"{r['ms']:.3f}", f"{r['violated']:.1f}", loose, note))
    found, bars = ratios(record), record["bars"]
    faster = all(f >= b for f, b in zip(found, bars, strict=True))
    met = faster and record["rows"][0]["violated"] == 0
    return make_table(
        ("peer", "problem", "ms", "violated at 0 [%]", "above 1e-6 [%]", "note"),
        rows,
        title=f"{record['workload']}, ours in a batch of {record['batch']}, CPU ms a sample",
        caption=f"{found[0]:.0f} times faster than SCS built each time (bar {bars[0]:g}), "
        f"{found[1]:.1f} times faster than compiled Clarabel (bar {bars[1]:g}): "
        f"{'met' if met else 'missed'}",
        text=("problem", "note"),
    )
