"""Plans and closed loops in the plane, beside the scenery of a task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from constrained_nn.plotting.style import COLORS, OBSTACLE, new_figure


def plot_plans(
    path: str | Path,
    task: Any,
    plans: Mapping[str, np.ndarray],
    *,
    axes: tuple[int, int] = (0, 1),
    labels: tuple[str, str] = ("px [m]", "py [m]"),
) -> Path:
    """One panel an entry: the ways in the plane of two states, their points, and where they start.

    Args:
        path: File to write; the ending chooses the format.
        task: Something with `scenery()`: polylines `(k, 2)`, drawn filled.
        plans: Title -> states `(count, T + 1, n)`.
        axes: The two states that are drawn.
        labels: Their names, with units.
    """
    figure, panels = new_figure(4.4 * len(plans), 3.4, 1, len(plans), sharex=True, sharey=True)
    for ax, (title, states) in zip(panels[0], plans.items(), strict=True):
        for line in task.scenery():
            ax.fill(*np.asarray(line).T, facecolor=OBSTACLE, edgecolor="gray", zorder=0)
        for way in states:
            ax.plot(way[:, axes[0]], way[:, axes[1]], ".-", ms=2.5, lw=0.7, alpha=0.7, color=COLORS[0])
        ax.plot(states[:, 0, axes[0]], states[:, 0, axes[1]], ".", ms=4, color="black")
        ax.set(title=title, xlabel=labels[0], aspect="equal")
        ax.title.set_fontsize(9)
    panels[0, 0].set_ylabel(labels[1])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
