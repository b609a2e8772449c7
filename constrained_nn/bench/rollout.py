"""`constrained-nn bench rollout`: what the layer costs in a closed loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from constrained_nn.bench.figures import Out, with_origin, write_figures
from constrained_nn.options import Device, Threads, prepare_torch
from constrained_nn.printing import make_table, print_tables

BARS = {"float64": 1.3, "float32": 2.0}


def command(
    states: Annotated[int, typer.Option(min=1, help="Start states of the rollout.")] = 1000,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions; the median ratio counts.")] = 9,
    run: Annotated[Path | None, typer.Option(help="Use the trained network of this run.")] = None,
    out: Out = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Time a rollout with HardNet-Aff in the loop, forward and backward, and the network alone.

    The rollout has 50 steps. The yardstick is the backbone's own evaluations on the very inputs of
    the rollout, forward and backward, in the same run. Also the time of one enforced control at
    batch 1.
    """
    prepare_torch(device, threads)
    records = [measure(dtype, states, repeats, run, device) for dtype in BARS]
    heads = ("dtype", "network evaluations", "rollout ms", "network ms", "ratio", "bar", "batch 1 ms")
    rows = [
        (
            r["dtype"],
            str(r["evaluations"]),
            f"{r['rollout_ms']:.0f}",
            f"{r['network_ms']:.0f}",
            f"{r['ratio']:.2f}",
            f"<= {r['bar']}",
            f"{r['batch_1_ms']:.2f}",
        )
        for r in records
    ]
    title = f"unicycle among obstacles, {states} states, forward and backward, {threads} thread(s)"
    print_tables(make_table(heads, rows, title=title))
    how = {"threads": threads, "device": device}
    write_figures(out, with_origin("rollout", **how, records=records))


def measure(dtype: str, states: int, repeats: int, run: Path | None, device: str) -> dict[str, Any]:
    """Times in CPU milliseconds (wall milliseconds on another device), medians over `repeats`."""
    import torch

    from constrained_nn.training import HardNet, TrainConfig, load_run, simulate
    from constrained_nn.training.closed_loop import new_run
    from control_envs.tasks import UnicycleObstacles

    if run is None:
        config = TrainConfig(UnicycleObstacles(), HardNet(), dtype=dtype)  # pyright: ignore
        subject = new_run(Path(), config, device=device)
        with torch.no_grad():  # an untrained residual, small enough to follow the nominal controller
            subject.backbone[-1].weight.mul_(0.01)  # pyright: ignore
    else:
        subject = load_run(run, device=device)
    torch_dtype = getattr(torch, dtype)
    policy, backbone = subject.controller.to(torch_dtype), subject.backbone
    policy.train()
    task = subject.task
    starts = torch.as_tensor(task.published_starts()["train"], dtype=torch_dtype, device=device)  # pyright: ignore
    x0 = starts.repeat(-(-states // len(starts)), 1)[:states]
    inputs: list[torch.Tensor] = []
    hook = backbone.register_forward_pre_hook(lambda module, args: inputs.append(args[0].detach()))
    with torch.no_grad():
        simulate(task, policy, x0)
    hook.remove()

    def rollout() -> None:
        trajectory = simulate(task, policy, x0, running={"cost": task.stage_cost})
        trajectory.integrals["cost"].sum().backward()

    def network() -> None:
        total = torch.zeros((), dtype=torch_dtype, device=device)
        for features in inputs:
            total = total + backbone(features.detach().requires_grad_()).sum()
        total.backward()

    clock = _clock(device)
    for function in (rollout, network):
        function()
    pairs = [(_time(rollout, clock), _time(network, clock)) for _ in range(repeats)]
    policy.eval()
    with torch.no_grad():
        one = [_time(lambda: policy(0.0, x0[:1]), clock) for _ in range(200)]
    return {
        "dtype": dtype,
        "evaluations": len(inputs),
        "elements": sum(len(i) for i in inputs),
        "rollout_ms": 1e3 * statistics.median(a for a, _ in pairs),
        "network_ms": 1e3 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "batch_1_ms": 1e3 * statistics.median(one[50:]),
        "bar": BARS[dtype],
        "network": "untrained" if run is None else "trained",
    }


def _clock(device: str) -> Callable[[], float]:
    if device == "cpu":
        return time.process_time

    def synchronized() -> float:
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    return synchronized


def _time(function: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    function()
    return clock() - start
