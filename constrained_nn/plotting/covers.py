"""What was proved of a domain: its boxes, the sublevel set, and motions in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from constrained_nn.plotting.style import COLORS, new_figure

# label of a box -> what it means, fill
MEANINGS = {
    "d": ("V decreases", "#CFE5F5"),
    "o": ("outside of the set", "#F2F2F2"),
    "i": ("closed by the matrix inequality", "#F9DCC4"),
    "?": ("open", "#D55E00"),
}


def plot_cover(
    path: str | Path,
    labels: str,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    value: Callable[[np.ndarray], np.ndarray],
    level: float,
    trajectories: np.ndarray,
    axes: Sequence[str],
    margin: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Path:
    """Boxes of a proof in two dimensions, the boundary `V = level`, and motions; beside it the change of `V`.

    Args:
        path: File to write; the ending chooses the format.
        labels: One character a box: `d` decrease, `o` outside of the set, `i` inside the ellipsoid, `?` open.
        lower: Lower ends of the boxes `(k, 2)`.
        upper: Upper ends `(k, 2)`.
        value: `V` of states `(*batch, 2)`.
        level: Of the sublevel set.
        trajectories: States `(runs, steps, 2)`.
        axes: Names of the two states with their units.
        margin: Change of `V` of states `(*batch, 2)`; drawn in a second panel, relative to `V`, if given.
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Patch

    panels = 1 if margin is None else 2
    figure, grid = new_figure(4.4 * panels, 4.0, 1, panels, sharey=True)
    ax = grid[0, 0]
    for label, (_, color) in MEANINGS.items():
        picked = np.array([c == label for c in labels], dtype=bool)
        if picked.any():
            a, b = lower[picked], upper[picked]
            corners = np.stack([a, np.stack([b[:, 0], a[:, 1]], -1), b, np.stack([a[:, 0], b[:, 1]], -1)], 1)
            ax.add_collection(
                PolyCollection(list(corners), facecolors=color, edgecolors="#777777", linewidths=0.15)
            )
    x = np.stack(
        np.meshgrid(*(np.linspace(lo, hi, 240) for lo, hi in zip(lower.min(0), upper.max(0), strict=True))),
        -1,
    )
    V = value(x)
    for panel in grid[0]:
        panel.contour(x[..., 0], x[..., 1], V, [level], colors=[COLORS[1]], linewidths=1.4)
        panel.set_xlabel(axes[0])
    for run in trajectories:
        ax.plot(*run.T, color=COLORS[6], linewidth=0.5)
        ax.plot(*run[0], ".", color=COLORS[6], markersize=2.5)
    ax.set_ylabel(axes[1])
    present = [c for c in MEANINGS if c in labels]
    patches = [Patch(facecolor=MEANINGS[c][1], edgecolor="#777777", label=MEANINGS[c][0]) for c in present]
    ax.legend(handles=patches, loc="upper right", fontsize=7)
    ax.set_title(f"{len(labels)} boxes, V <= {level:.3g} inside the line", fontsize=9)
    if margin is not None:
        second = grid[0, 1]
        relative = np.where(V > 0, margin(x) / np.where(V > 0, V, 1.0), np.nan)
        relative = np.where(level >= V, relative, np.nan)
        image = second.pcolormesh(x[..., 0], x[..., 1], relative, cmap="viridis_r", shading="auto")
        figure.colorbar(image, ax=second, label="change of V in one step / V")
        second.set_title("sampled", fontsize=9)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path
