"""`constrained-nn bench projection`: exact batched projections beside the installed rivals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from constrained_nn.bench.figures import Out, with_origin, write_figures
from constrained_nn.printing import make_table, print_tables

if TYPE_CHECKING:
    from rich.table import Table

# Our bars: share of the rival's forward and forward + backward time, in the same run.
BARS = {
    "w1s": ("moreau", 0.6, 0.4),
    "w1b": ("moreau", 1.0, 0.75),
    "w2": ("moreau", 0.3, 0.3),
    "dc3": ("pinet_50", 1.0, 1.0),
}
_ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "RAYON_NUM_THREADS",
        "NPROC",
    )
} | {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}


def command(
    peers: Annotated[str, typer.Option(help="Comma-separated peers, or `all` that are installed.")] = "all",
    workloads: Annotated[str, typer.Option(help="Comma-separated workloads.")] = "w1s,w1b,w2,dc3",
    batch: Annotated[int, typer.Option(min=1, help="Elements in a batch.")] = 256,
    device: Annotated[str, typer.Option(help="Device of our own layer: cpu, cuda, ...")] = "cpu",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one peer on one workload.")] = 400.0,
    out: Out = None,
) -> None:
    """Time Euclidean projections of a batch, forward and backward, beside other layers.

    Workloads (float64): w1s 20 variables and 40 rows, one matrix; w1b the same with a matrix for
    each element; w2 100 variables, 50 equalities and a box; dc3 100 variables, 50 equalities and 50
    rows (the data of DC3 and Pi-net). Each peer runs in its own process, on one thread; times are
    the least CPU milliseconds.
    """
    names = workloads.split(",")
    record = run(device, None if peers == "all" else peers.split(","), names, batch, timeout)
    print_tables(*(table(record["records"], name) for name in names))
    write_figures(out, record)


def run(
    device: str = "cpu",
    peers: list[str] | None = None,
    workloads: list[str] | None = None,
    batch: int = 256,
    timeout: float = 400.0,
) -> dict[str, Any]:
    """Measure peers (default: all installed) on workloads (default: all).

    Raises:
        ValueError: A peer or workload has no such name, or a peer is not installed.
    """
    from constrained_nn.bench.rivals import MODULES, NAMES

    peers = [p for p, module in MODULES.items() if find_spec(module)] if peers is None else peers
    workloads = list(NAMES) if workloads is None else workloads
    for given, known, what in ((peers, list(MODULES), "peer"), (workloads, list(NAMES), "workload")):
        for name in given:
            if name not in known:
                raise ValueError(
                    f"bench projection: expected a {what} among {', '.join(known)}, got '{name}'."
                )
    if device != "cpu" and not any(peer.startswith("constrained_nn") for peer in peers):
        raise ValueError("--device has no effect without the peer constrained_nn. Leave it out.")
    for peer in peers:
        if not find_spec(MODULES[peer]):
            raise ValueError(
                f"bench projection: expected {MODULES[peer]} to be installed for peer '{peer}'. Install the "
                f"extra `bench`, or name other peers with --peers."
            )
    records = [_measured(p, w, batch, device, timeout) for w in workloads for p in peers]
    record = with_origin("projection", threads=1, records=records)
    record["versions"] |= _peer_versions(peers)
    return record


def _measured(peer: str, workload: str, batch: int, device: str, timeout: float) -> dict[str, Any]:
    """The record of one peer on one workload, from a process of its own."""
    ours = device if peer.startswith("constrained_nn") else "cpu"
    here = {"peer": peer, "workload": workload, "batch": batch, "device": ours}
    call = [sys.executable, "-m", "constrained_nn.bench.measure", peer, workload, str(batch), ours]
    from constrained_nn.bench.measure import MARK

    try:
        done = subprocess.run(
            call, capture_output=True, text=True, timeout=timeout, env={**os.environ, **_ONE_THREAD}
        )
    except subprocess.TimeoutExpired:
        return here | {"error": f"no result within {timeout:g} s"}
    found = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not found:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return here | {"error": last[:200]}
    return json.loads(found[-1][len(MARK) :])


def _peer_versions(peers: list[str]) -> dict[str, str]:
    from importlib.metadata import packages_distributions, version

    from constrained_nn.bench.rivals import MODULES

    owners = packages_distributions()
    modules = {MODULES[p] for p in peers} - {"torch"}
    return {owners[m][0]: version(owners[m][0]) for m in sorted(modules) if m in owners}


def table(records: list[dict[str, Any]], workload: str) -> Table:
    """The figures of one workload, with our share of the rival's time against its bar."""
    found = [r for r in records if r["workload"] == workload]
    batch = found[0]["batch"] if found else 0
    return make_table(
        ("peer", "forward", "forward+backward", "violation", "distance", "gradient error"),
        [_cells(r) for r in found],
        title=f"{workload}, batch {batch}, CPU ms of one thread",
        caption=verdict(found, workload),
    )


def _cells(r: dict[str, Any]) -> tuple[str, ...]:
    if "error" in r:
        return r["peer"], "failed", r["error"], "", "", ""
    forward, both, where = "forward_ms", "both_ms", ""
    if r["device"] != "cpu":  # the processor's time says nothing of a GPU
        forward, both, where = "forward_wall_ms", "both_wall_ms", f" ({r['device']})"
    return (
        r["peer"] + where,
        f"{r[forward]:.2f}",
        _or_dash(r.get(both), ".2f"),
        f"{r['violation']:.1e}",
        _or_dash(r.get("distance"), ".1e"),
        _or_dash(r.get("gradient_error"), ".1e"),
    )


def _or_dash(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def verdict(rows: list[dict[str, Any]], workload: str) -> str:
    """Our share of the rival's time, and the bar."""
    rival, forward, both = BARS[workload]
    found = {r["peer"]: r for r in rows if "error" not in r and r["device"] == "cpu"}
    if not {"constrained_nn", rival} <= found.keys() or not all("both_ms" in r for r in found.values()):
        return f"bar: at most {forward} and {both} times {rival}"
    ours, theirs = found["constrained_nn"], found[rival]
    shares = [ours[key] / theirs[key] for key in ("forward_ms", "both_ms")]
    met = "met" if shares[0] <= forward and shares[1] <= both else "missed"
    return f"{shares[0]:.2f} and {shares[1]:.2f} times {rival}; bar {forward} and {both}: {met}"
