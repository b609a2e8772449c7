"""Errors over time of many runs by every method: medians with quartiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from constrained_nn.plotting.style import COLORS, new_figure


def plot_errors(
    path: str | Path,
    panels: Mapping[str, Mapping[str, Any]],
    dt: float,
    *,
    label: str = "error / error at the start",
    floor: float = 1e-4,
    ceiling: float = 1e3,
) -> Path:
    """One panel for each condition; a line for the median over runs, a band from the lower to the upper quartile.

    Args:
        path: File to write.
        panels: Heading -> method -> errors `(runs, T)`; infinite where a run is lost.
        dt: Time between two errors [s].
        label: Name of the error.
        floor, ceiling: Range that is drawn at most; what lies outside is drawn on its edge.
    """
    figure, axes = new_figure(3.2 * len(panels) + 0.4, 3.4, 1, len(panels), sharey=True)
    names: dict[str, Any] = {}
    for ax, (heading, methods) in zip(axes[0], panels.items(), strict=True):
        for name, values in methods.items():
            color = COLORS[list(methods).index(name) % len(COLORS)]
            values = np.clip(np.nan_to_num(np.asarray(values, dtype=float), nan=np.inf), floor, ceiling)
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
            t = dt * np.arange(values.shape[-1])
            ax.fill_between(t, low, high, color=color, alpha=0.15, lw=0)
            (names[name],) = ax.semilogy(t, middle, lw=1.5, color=color)
        ax.set(title=heading, xlabel="t [s]")
        ax.grid(color="0.92", lw=0.6)
    axes[0, 0].set_ylabel(label)
    figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=2, fontsize=8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
