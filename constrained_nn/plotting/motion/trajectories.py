"""Trajectories in the plane around obstacles: a figure and an animation."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from constrained_nn.plotting.style import COLORS, OBSTACLE, new_figure


def plot_trajectories(
    path: str | Path, task: Any, runs: Mapping[str, np.ndarray], *, subtitles: Mapping[str, str] | None = None
) -> Path:
    """One panel a method: every trajectory, those through an obstacle in red.

    Args:
        path: File to write; the ending chooses the format.
        task: A task with a `barrier` of ellipses.
        runs: Method -> states `(runs, T+1, n)` with the position first.
        subtitles: Method -> second line of its title.
    """
    columns = min(3, len(runs))
    rows = math.ceil(len(runs) / columns)
    figure, axes = new_figure(4.2 * columns, 2.9 * rows + 0.4, rows, columns, sharex=True, sharey=True)
    for ax in axes.flat[len(runs) :]:
        ax.set_axis_off()
    for ax, (name, x) in zip(axes.flat, runs.items(), strict=False):
        _draw_obstacles(ax, task)
        hit = np.atleast_1d((np.asarray(task.barrier.clearance(x)) < 0).any((-1, -2)))
        for one, collides in zip(x, hit, strict=True):
            ax.plot(one[:, 0], one[:, 1], lw=0.6, alpha=0.6, color=COLORS[1] if collides else COLORS[0])
        ax.plot(x[:, 0, 0], x[:, 0, 1], ".", ms=2, color="black")
        count = f"{hit.sum()} of {len(x)} collide" if hit.any() else "no collision"
        ax.set_title(f"{name}\n{(subtitles or {}).get(name, '')}{count}", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("px [m]")
    for ax in axes[:, 0]:
        ax.set_ylabel("py [m]")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def animate_trajectories(
    path: str | Path, task: Any, runs: Mapping[str, np.ndarray], *, count: int = 12, fps: int = 20
) -> Path:
    """GIF of the first `count` trajectories of every method, side by side in one plane.

    Args:
        path: File to write, `.gif`.
        task: A task with a `barrier` of ellipses and a `dt`.
        runs: Method -> states `(runs, T+1, n)`.
        count: Trajectories a method.
        fps: Frames a second; one frame a control interval.
    """
    import imageio.v3 as imageio

    figure, axes = new_figure(4.0 * len(runs), 3.2, 1, len(runs), sharex=True, sharey=True)
    lines = []
    for ax, (name, x) in zip(axes[0], runs.items(), strict=True):
        _draw_obstacles(ax, task)
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("px [m]")
        for one in x[:count]:
            trail = ax.plot([], [], lw=1.0, alpha=0.7, color=COLORS[0])[0]
            point = ax.plot([], [], "o", ms=4, color=COLORS[0])[0]
            inside = np.logical_or.accumulate((np.asarray(task.barrier.clearance(one)) < 0).any(-1))
            lines.append((one, inside, trail, point))
    axes[0, 0].set_ylabel("py [m]")
    frames = []
    steps = len(next(iter(runs.values()))[0])
    for k in [*range(steps), *[steps - 1] * fps]:  # a second of rest at the end
        for one, inside, trail, point in lines:
            trail.set_data(one[: k + 1, 0], one[: k + 1, 1])
            point.set_data(one[k : k + 1, 0], one[k : k + 1, 1])
            for artist in (trail, point):
                artist.set_color(COLORS[1] if inside[k] else COLORS[0])
        if not frames or k < steps - 1:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="rgba", dpi=80)
            size = (round(figure.get_figheight() * 80), round(figure.get_figwidth() * 80))
            frames.append(np.frombuffer(buffer.getvalue(), np.uint8).reshape(*size, 4)[..., :3])
        else:
            frames.append(frames[-1])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part.gif")
    imageio.imwrite(temporary, np.stack(frames), duration=1000 // fps, loop=0)
    os.replace(temporary, path)
    return path


def _draw_obstacles(ax: Any, task: Any) -> None:
    from matplotlib.patches import Ellipse

    for center, radii in zip(task.barrier.centers, task.barrier.radii, strict=True):
        ax.add_patch(Ellipse(center, *(2 * radii), facecolor=OBSTACLE, edgecolor="gray", zorder=0))
    ax.plot(0.0, 0.0, "*", ms=9, color=COLORS[2])
    ax.set_xlim(-4.2, 0.6)
    ax.set_ylim(-1.6, 1.6)
    ax.set_aspect("equal")
    ax.tick_params(labelsize=8)
