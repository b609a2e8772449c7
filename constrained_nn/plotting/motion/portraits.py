"""Plants of two states in the plane: velocities, level sets of a Lyapunov function, trajectories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from constrained_nn.plotting.style import COLORS, new_figure

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Portrait:
    """One panel: a closed loop in the plane.

    Args:
        velocity: Function `(k, 2) -> (k, 2)` of the plant under its policy.
        value: Function `(k, 2) -> (k)`, the Lyapunov function; None for none.
        paths: Trajectories `(runs, T+1, 2)`.
        level: A level set to be drawn heavily, such as that on which decrease is shown; None for none.
        marked: Function `(k, 2) -> (k)`, true where the correction acts; None for none.
    """

    velocity: Callable[[Array], Array]
    value: Callable[[Array], Array] | None
    paths: Array
    level: float | None = None
    marked: Callable[[Array], Array] | None = None


def plot_portraits(
    path: str | Path,
    panels: Mapping[str, Portrait],
    box: tuple[Array, Array],
    *,
    labels: Sequence[str] = ("x1", "x2"),
    count: int = 101,
) -> Path:
    """Phase portraits side by side: stream lines of the plant, level sets, trajectories, and where they end.

    Args:
        path: File to write; the ending chooses the format.
        panels: Title -> panel.
        box: Lower and upper ends of the states.
        labels: Names of the axes, with their units.
        count: Points of the grid along each axis.
    """
    figure, axes = new_figure(3.9 * len(panels) + 0.3, 3.7, 1, len(panels), sharex=True, sharey=True)
    x, y = (np.linspace(a, b, count) for a, b in zip(*box, strict=True))
    grid = np.stack(np.meshgrid(x, y), -1)
    flat = grid.reshape(-1, 2)
    for ax, (title, panel) in zip(axes[0], panels.items(), strict=True):
        v = panel.velocity(flat).reshape(grid.shape)
        ax.streamplot(x, y, v[..., 0], v[..., 1], color="0.8", linewidth=0.5, arrowsize=0.6, density=1.1)
        if panel.marked is not None:
            acts = panel.marked(flat).reshape(grid.shape[:2]).astype(float)
            ax.contourf(x, y, acts, levels=[0.5, 1.5], colors=[COLORS[4]], alpha=0.5)
        if panel.value is not None:
            V = panel.value(flat).reshape(grid.shape[:2])
            ax.contour(x, y, np.sqrt(V), levels=8, colors=COLORS[2], linewidths=0.6, alpha=0.8)
            if panel.level:
                ax.contour(x, y, V, levels=[panel.level], colors=COLORS[2], linewidths=2.0)
        for one in panel.paths:
            ax.plot(one[:, 0], one[:, 1], color=COLORS[0], lw=0.7, alpha=0.8)
        ax.plot(panel.paths[:, -1, 0], panel.paths[:, -1, 1], "o", ms=3, color=COLORS[1], zorder=3)
        ax.set_title(title, fontsize=9)
        ax.set_xlim(*x[[0, -1]])
        ax.set_ylim(*y[[0, -1]])
        ax.set_xlabel(labels[0])
        ax.tick_params(labelsize=8)
    axes[0, 0].set_ylabel(labels[1])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
