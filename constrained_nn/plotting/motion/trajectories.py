"""Closed-loop runs of any task: a figure of what happened, and an animation."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from constrained_nn.plotting.style import COLORS, OBSTACLE, new_figure

GRID = 161  # points an axis of the region that constraints forbid
COLUMNS = 3  # methods side by side
FLATTEST = 0.45  # least height of a picture in its width
PLANES = (("px", "py"), ("x", "y"))


def plot_trajectories(
    path: str | Path,
    task: Any,
    runs: Mapping[str, Any],
    *,
    subtitles: Mapping[str, str] | None = None,
    panels: Sequence[str] = ("paths", "inputs", "margins"),
) -> Path:
    """What happened, method by method: paths with what is forbidden, inputs, and margins over time.

    Paths are those of two positions where the plant has them, else a phase portrait of its first two
    states. Grey is forbidden, with all other states at the goal. Runs that break a constraint are
    red; the run with the smallest margin is drawn heavily.

    Args:
        path: File to write; the ending chooses the format.
        task: The task.
        runs: Method -> `Trajectory` of `(runs, T+1, n)` states and `(runs, T, m)` inputs.
        subtitles: Method -> second line of its title.
        panels: What is drawn of each method, from the top.
    """
    panels = [p for p in panels if p != "margins" or task.constraints]
    columns, blocks = min(COLUMNS, len(runs)), -(-len(runs) // COLUMNS)
    rows = len(panels) * blocks
    figure, axes = new_figure(4.4 * columns, 2.7 * rows + 0.4, rows, columns)
    limits = _limits(task, runs)
    for ax in axes[-len(panels) :, len(runs) - (blocks - 1) * columns :].flat:
        ax.set_axis_off()
    for k, (name, run) in enumerate(runs.items()):
        block, column = divmod(k, columns)
        mine = dict(zip(panels, axes[block * len(panels) :, column], strict=False))
        _draw_run(mine, task, run, limits, f"{name}\n{(subtitles or {}).get(name, '')}")
    for row, panel in zip(axes, panels * blocks, strict=True):
        _share_scale([ax for ax in row if ax.axison], panel)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _draw_run(
    panels: Mapping[str, Any], task: Any, run: Any, limits: list[tuple[float, float]], title: str
) -> None:
    """The panels of one method."""
    t, x, u = (np.asarray(v) for v in (run.t, run.x, run.u))
    margins = margins_of(task, run)
    smallest = margins.min((-1, -2)) if task.constraints else np.full(len(x), np.inf)
    worst, broken = int(smallest.argmin()), ~(smallest >= 0)
    if "paths" in panels:
        ax = panels["paths"]
        _draw_plane(ax, task, limits)
        first, second = plane_of(task)
        for i in np.argsort(-smallest):  # the worst last, on top
            heavy = {"lw": 1.6, "alpha": 1.0} if i == worst else {"lw": 0.6, "alpha": 0.5}
            ax.plot(x[i, :, first], x[i, :, second], color=COLORS[1 if broken[i] else 0], **heavy)
        ax.plot(x[:, 0, first], x[:, 0, second], ".", ms=2, color="black")
        note = "no constraint is broken"
        if broken.any():
            note = f"{broken.sum()} of {len(x)} break a constraint"
        ax.set_title(title + (note if task.constraints else ""), fontsize=9)
    if "inputs" in panels:
        _draw_inputs(panels["inputs"], task, t, u, worst)
    if "margins" in panels:
        _draw_margins(panels["margins"], task, t, margins, worst)
    for name, ax in panels.items():
        if name != "paths" and name == list(panels)[-1]:
            ax.set_xlabel("t [s]", fontsize=8)


def _share_scale(row: Sequence[Any], panel: str) -> None:
    """One vertical scale for the same panel of several methods."""
    ends = [ax.get_ylim() for ax in row]
    for ax in row:
        if panel != "paths":  # whose limits are equal already, and whose aspect is
            ax.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
    for ax in row[1:]:
        ax.set_ylabel("")
        ax.tick_params(labelleft=False)


def animate_trajectories(
    path: str | Path, task: Any, runs: Mapping[str, Any], *, count: int = 12, fps: int = 20
) -> Path:
    """GIF of the first `count` runs of every method, side by side; red once a constraint is broken.

    Args:
        path: File to write, `.gif`.
        task: The task.
        runs: Method -> `Trajectory`.
        count: Runs a method.
        fps: Frames a second; at most 150 frames, else samples are left out.
    """
    import imageio.v3 as imageio

    figure, axes = new_figure(4.0 * len(runs), 3.2, 1, len(runs), sharex=True, sharey=True)
    limits = _limits(task, runs)
    first, second = plane_of(task)
    lines = []
    for ax, (name, run) in zip(axes[0], runs.items(), strict=True):
        _draw_plane(ax, task, limits)
        ax.set_title(name, fontsize=9)
        x = np.asarray(run.x)[:count]
        broken = np.zeros(x.shape[:2], dtype=bool)
        if task.constraints:
            broken = np.logical_or.accumulate(margins_of(task, run)[:count].min(-1) < 0, -1)
        for one, bad in zip(x, broken, strict=True):
            trail = ax.plot([], [], lw=1.0, alpha=0.7, color=COLORS[0])[0]
            point = ax.plot([], [], "o", ms=4, color=COLORS[0])[0]
            lines.append((one, bad, trail, point))
    for ax in axes[0, 1:]:
        ax.set_ylabel("")
    steps = np.asarray(next(iter(runs.values())).x).shape[1]
    shown = list(range(0, steps, max(1, steps // 150)))
    shown = shown if shown[-1] == steps - 1 else [*shown, steps - 1]
    frames = []
    for k in shown:
        for one, bad, trail, point in lines:
            trail.set_data(one[: k + 1, first], one[: k + 1, second])
            point.set_data(one[k : k + 1, first], one[k : k + 1, second])
            for artist in (trail, point):
                artist.set_color(COLORS[1] if bad[k] else COLORS[0])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="rgba", dpi=80)
        size = (round(figure.get_figheight() * 80), round(figure.get_figwidth() * 80))
        frames.append(np.frombuffer(buffer.getvalue(), np.uint8).reshape(*size, 4)[..., :3])
    frames += [frames[-1]] * fps  # a second of rest at the end
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part.gif")
    imageio.imwrite(temporary, np.stack(frames), duration=1000 // fps, loop=0)
    os.replace(temporary, path)
    return path


def margins_of(task: Any, run: Any) -> np.ndarray:
    """`−g` of every constraint at all samples `(runs, T+1, constraints)`; the last input is held on."""
    t, x, u = (np.asarray(v) for v in (run.t, run.x, run.u))
    if not task.constraints:
        return np.full((*x.shape[:2], 0), np.inf)
    u = np.concatenate([u, u[:, -1:]], 1)
    g = [
        np.stack([np.broadcast_to(c.g(t[k], x[:, k], u[:, k]), len(x)) for k in range(len(t))], -1)
        for c in task.constraints
    ]
    return -np.stack(g, -1)


def plane_of(task: Any) -> tuple[int, int]:
    """The two states that are drawn against each other."""
    names = [q.name for q in task.plant.state]
    for first, second in PLANES:
        if first in names and second in names:
            return names.index(first), names.index(second)
    return (0, 1) if len(names) > 1 else (0, 0)


def _draw_plane(ax: Any, task: Any, limits: list[tuple[float, float]]) -> None:
    """Axes with names and units, what the constraints forbid, and the goal."""
    first, second = plane_of(task)
    quantities = task.plant.state[first], task.plant.state[second]
    ax.set_xlabel(f"{quantities[0].name} [{quantities[0].unit}]", fontsize=8)
    ax.set_ylabel(f"{quantities[1].name} [{quantities[1].unit}]", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.set_xlim(*limits[0])
    ax.set_ylim(*limits[1])
    if _in_meters(task):
        ax.set_aspect("equal")
    goal = getattr(task, "goal", None)
    base = np.zeros(task.plant.state_dim) if goal is None else np.asarray(goal, dtype=float)
    ax.plot(base[first], base[second], "*", ms=9, color=COLORS[2], zorder=5)
    axes = [np.linspace(*ends, GRID) for ends in limits]
    x = np.tile(base, (GRID, GRID, 1))
    x[..., first], x[..., second] = np.meshgrid(*axes)
    u = np.zeros((GRID, GRID, task.plant.input_dim))
    for c in task.constraints:
        with np.errstate(all="ignore"):
            g = np.broadcast_to(c.g(0.0, x, u), (GRID, GRID))
        if np.isfinite(g).all() and g.max() > 0:
            ax.contourf(*axes, g, levels=[0.0, g.max()], colors=[OBSTACLE], zorder=0)


def _limits(task: Any, runs: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Ends of the two axes: all finite states and the goal, and some room."""
    states = plane_of(task)
    points = [np.asarray(run.x)[..., list(states)].reshape(-1, 2) for run in runs.values()]
    if getattr(task, "goal", None) is not None:
        points.append(np.asarray(task.goal, dtype=float)[None, list(states)])
    every = np.concatenate(points)
    every = every[np.isfinite(every).all(-1)]
    ends = []
    for k, (low, high) in enumerate(zip(*_region(task, states), strict=True)):
        # a run that left the region would make everything else small
        first, last = (float(np.clip(v, low, high)) for v in (every[:, k].min(), every[:, k].max()))
        room = 0.12 * max(last - first, 1e-3)
        ends.append((first - room, last + room))
    if _in_meters(task):  # of equal scale: not too flat a picture
        widths = [high - low for low, high in ends]
        for k in range(2):
            more = max(0.0, FLATTEST * widths[1 - k] - widths[k])
            ends[k] = (ends[k][0] - 0.5 * more, ends[k][1] + 0.5 * more)
    return ends


def _in_meters(task: Any) -> bool:
    return {task.plant.state[i].unit for i in plane_of(task)} == {"m"}


def _region(task: Any, states: tuple[int, int]) -> tuple[list[float], list[float]]:
    """Ends of the region of two states; where the task has none, three times as far as its starts."""
    starts = task.sample_starts(np.random.default_rng(0), 50)
    low, high = [], []
    for i in states:
        far = np.pi if task.plant.state[i].angle else 3.0 * (float(np.abs(starts[:, i]).max()) + 1.0)
        bounds = float(task.state_low[i]), float(task.state_high[i])
        low.append(bounds[0] if np.isfinite(bounds[0]) else -far)
        high.append(bounds[1] if np.isfinite(bounds[1]) else far)
    return low, high


def _draw_inputs(ax: Any, task: Any, t: np.ndarray, u: np.ndarray, worst: int) -> None:
    """Inputs as shares of their limits: 0 is the middle, ±1 the limits."""
    middle = 0.5 * (task.input_low + task.input_high)
    half = np.maximum(0.5 * (task.input_high - task.input_low), 1e-12)
    share = (u - middle) / half
    for j, quantity in enumerate(task.plant.input):
        color = COLORS[j % len(COLORS)]
        low, high = np.nanpercentile(share[..., j], (5, 95), axis=0)
        ax.fill_between(t[:-1], low, high, color=color, alpha=0.2, lw=0)
        ax.plot(t[:-1], share[worst, :, j], color=color, lw=1.2, label=f"{quantity.name} [{quantity.unit}]")
    for end in (-1.0, 1.0):
        ax.axhline(end, color="black", lw=0.8, ls="--")
    ax.set_ylabel("input, of its limits", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=7, loc="upper right")


def _draw_margins(ax: Any, task: Any, t: np.ndarray, margins: np.ndarray, worst: int) -> None:
    """`−g` over time: the smallest of all runs, and the worst run heavily; below 0 is broken."""
    for j, constraint in enumerate(task.constraints):
        color = COLORS[j % len(COLORS)]
        ax.plot(t, margins[..., j].min(0), color=color, lw=0.8, ls=":")
        label = f"{constraint.name} [{constraint.unit}]"
        ax.plot(t, margins[worst, :, j], color=color, lw=1.4, label=label)
    ax.axhline(0.0, color="black", lw=0.8)
    top = float(np.nanpercentile(np.abs(margins), 75)) if np.isfinite(margins).any() else 1.0
    low = float(np.nanmin(np.where(np.isfinite(margins), margins, np.nan)))
    ax.set_ylim(min(1.2 * low, -0.1 * top), 1.5 * top)
    ax.set_ylabel("margin −g", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=7, loc="upper right")
