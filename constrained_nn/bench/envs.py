"""`constrained-nn bench envs`: steps per second of the environments."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Annotated, Any

import typer

from constrained_nn.bench.figures import Out, with_origin, write_figures
from constrained_nn.bench.rollout import _clock, _time
from constrained_nn.options import Device, Threads, prepare_torch
from constrained_nn.printing import make_table, print_tables

BARS = {"single": 8_000, "vector": 2_000_000}


def command(
    task: Annotated[str, typer.Option(help="Task, such as pendulum.")] = "pendulum",
    num_envs: Annotated[int, typer.Option(min=1, help="Copies in the vector environment.")] = 4096,
    steps: Annotated[int, typer.Option(min=1, help="Control intervals of one repetition.")] = 150,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions; the median counts.")] = 7,
    compile: Annotated[str | None, typer.Option(help="Also with this backend of torch.compile.")] = None,
    out: Out = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Count steps per second of processor time, of the single and of the vector environment.

    The vector environment works on tensors. The task's own integrator; every step with observation,
    reward, constraints and `info`; resets are not timed.
    """
    prepare_torch(device, threads)
    records = [single(task, min(10 * steps, 2000), repeats)]
    for dtype in ("float64", "float32"):
        records += [
            vector(task, num_envs, steps, repeats, dtype, backend, device)
            for backend in (None, compile)[: 1 if compile is None else 2]
        ]
    heads = ("environment", "copies", "dtype", "compiled by", "env-steps a second", "goal")
    rows = [(*_cells(r), _goal(task, r)) for r in records]
    print_tables(make_table(heads, rows, title=f"{task}, {threads} thread(s), {device}"))
    run = {"task": task, "threads": threads, "device": device}
    write_figures(out, with_origin("envs", **run, records=records))


def _cells(r: dict[str, Any]) -> tuple[str, ...]:
    rate = f"{r['steps_per_second']:,.0f}"
    return r["kind"], str(r["num_envs"]), r["dtype"], r["compile"] or "", rate


def _goal(task: str, r: dict[str, Any]) -> str:
    return f">= {BARS[r['kind']]:,}" if task == "pendulum" else ""


def single(task: str, steps: int, repeats: int) -> dict[str, Any]:
    """The single environment in NumPy."""
    import numpy as np

    from control_envs.envs import ControlEnv

    env = ControlEnv(task, horizon=steps + 1)
    action = np.zeros(env.action_space.shape, np.float32)  # pyright: ignore

    def play() -> None:
        for _ in range(steps):
            if env.step(action)[3]:
                env.reset()

    env.reset(seed=0)
    return _record("single", 1, steps, repeats, "float64", None, play, lambda: env.reset(), "cpu")


def vector(
    task: str, num_envs: int, steps: int, repeats: int, dtype: str, backend: str | None, device: str
) -> dict[str, Any]:
    """The vector environment on tensors."""
    import torch

    from control_envs.envs import ControlVectorEnv

    envs = ControlVectorEnv(
        task,
        num_envs,
        dtype=getattr(torch, dtype),
        device=device,
        to_numpy=False,
        compile=backend,
        max_episode_steps=steps + 1,
    )
    actions = torch.zeros(envs.action_space.shape, dtype=getattr(torch, dtype), device=device)  # pyright: ignore
    envs.reset(seed=0)

    def play() -> None:
        for _ in range(steps):
            envs.step(actions)

    return _record("vector", num_envs, steps, repeats, dtype, backend, play, lambda: envs.reset(), device)


def _record(
    kind: str,
    num_envs: int,
    steps: int,
    repeats: int,
    dtype: str,
    backend: str | None,
    play: Callable[[], None],
    reset: Callable[[], object],
    device: str,
) -> dict[str, Any]:
    clock = _clock(device)
    play()  # warm-up, compilation
    seconds = []
    for _ in range(repeats):
        reset()
        seconds.append(_time(play, clock))
    return {
        "kind": kind,
        "num_envs": num_envs,
        "dtype": dtype,
        "compile": backend,
        "steps": steps,
        "steps_per_second": num_envs * steps / statistics.median(seconds),
    }
