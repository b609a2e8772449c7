"""Pictures of what a certificate holds, as PNG in memory."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from constrained_nn.plotting.style import COLORS, new_figure

_MOST_BARS = 40
Box = tuple[Sequence[float], Sequence[float]]


def draw_histogram(
    values: Any, label: str, *, limit: float | None = None, worst: float | None = None
) -> bytes:
    """Distribution of one number over all runs or inputs, with what is allowed and the worst one.

    Args:
        values: Numbers `(k,)`; those that are not finite are left out.
        label: What they are, with unit.
        limit: Value that must not be passed.
        worst: The worst value.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    figure, ((ax,),) = new_figure(4.6, 2.5)
    if len(values):
        spread = np.ptp(values) > 1e-12 * max(1.0, float(np.abs(values).max()))
        ax.hist(values, bins=min(_MOST_BARS, max(1, len(values) // 2)) if spread else 1, color=COLORS[5])
    if worst is not None and np.isfinite(worst):
        ax.axvline(worst, color=COLORS[0], lw=1.4, label=f"worst {worst:.3g}")
    if limit is not None:
        ax.axvline(limit, color=COLORS[1], lw=1.4, ls="--", label=f"limit {limit:.3g}")
    ax.set_xlabel(label, fontsize=9)
    ax.set_ylabel("count", fontsize=9)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, frameon=False)
    return _png(figure, ax)


def draw_cover(
    boxes: Mapping[str, Sequence[Box]], names: Sequence[str], *, title: str = "", level: Any = None
) -> bytes:
    """The boxes of a cover in the plane of two states, by what is proved of them.

    Args:
        boxes: What is proved -> boxes `((x, y), (x, y))`, lower and upper ends.
        names: Names of the two axes, with units.
        title: Heading.
        level: `(X, Y, values)` on a grid, whose zero line is drawn, or None.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    figure, ((ax,),) = new_figure(5.6, 4.2)
    colors = ("#E8E8E8", COLORS[5], COLORS[4], COLORS[2], COLORS[3])
    handles = []
    for color, (label, group) in zip(colors, boxes.items(), strict=False):
        patches = [Rectangle((a[0], a[1]), b[0] - a[0], b[1] - a[1]) for a, b in group]
        ax.add_collection(PatchCollection(patches, facecolor=color, edgecolor="white", linewidth=0.2))
        handles.append(
            Rectangle((0, 0), 1, 1, facecolor=color, edgecolor="0.6", label=f"{label}: {len(group)}")
        )
    ax.autoscale_view()
    if level is not None:
        ax.contour(*level, levels=[0.0], colors="black", linewidths=1.2)
    ax.set_xlabel(names[0], fontsize=9)
    ax.set_ylabel(names[1], fontsize=9)
    if title:
        ax.set_title(title, fontsize=9)
    ax.legend(
        handles=handles, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False
    )
    return _png(figure, ax)


def draw_paths(runs: Sequence[Any], names: Sequence[str], *, title: str = "") -> bytes:
    """Recorded states in the plane of the first two.

    Args:
        runs: States `(T, 2)` of every run.
        names: Names of the two axes, with units.
        title: Heading.
    """
    figure, ((ax,),) = new_figure(4.6, 3.0)
    for x in runs:
        ax.plot(*np.asarray(x).T, lw=0.6, alpha=0.6, color=COLORS[0])
        ax.plot(*np.asarray(x)[0], ".", ms=2, color="black")
    ax.set_xlabel(names[0], fontsize=9)
    ax.set_ylabel(names[1], fontsize=9)
    if title:
        ax.set_title(title, fontsize=9)
    return _png(figure, ax)


def _png(figure: Any, ax: Any) -> bytes:
    ax.tick_params(labelsize=8)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": ""})
    return buffer.getvalue()
