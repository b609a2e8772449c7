"""Means with deviations against a number, beside published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from constrained_nn.plotting.style import COLORS, new_figure

Point = tuple[float, float, float | None]
Curves = Mapping[str, Sequence[Point]]


def plot_curves(
    path: str | Path, panels: Mapping[str, tuple[Curves, Curves]], *, xlabel: str, ylabel: str
) -> Path:
    """One panel a quantity, on logarithmic axes: ours with bars, published dashed; the same method in one color.

    Args:
        path: File to write.
        panels: Heading -> (ours, published); each is method -> points (x, mean, deviation or None). A single point
            with x = NaN is drawn as a level.
        xlabel, ylabel: Names of the axes.
    """
    from matplotlib.ticker import LogLocator

    figure, axes = new_figure(2.5 * len(panels) + 0.6, 3.3, 1, len(panels))
    names = list(dict.fromkeys(name for pair in panels.values() for curves in pair for name in curves))
    color = dict(zip(names, COLORS, strict=False))
    ticks = sorted(
        {x for pair in panels.values() for c in pair for points in c.values() for x, *_ in points if x == x}
    )
    for ax, (heading, pair) in zip(axes[0], panels.items(), strict=True):
        for curves, style, note in ((pair[0], "-", ""), (pair[1], "--", ", published")):
            for name, points in curves.items():
                look = {"color": color[name], "ls": style, "lw": 1.3, "label": name + note}
                if points[0][0] != points[0][0]:  # no x: a level
                    ax.axhline(points[0][1], **look)
                    continue
                xs, means, deviations = zip(*points, strict=True)
                bars = [deviation or 0.0 for deviation in deviations]
                marker = {"marker": "o", "ms": 3, "capsize": 2} if style == "-" else {"alpha": 0.7}
                ax.errorbar(xs, means, bars, **look, **marker)
        ax.set(xscale="log", yscale="log", title=heading, xlabel=xlabel)
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
    axes[0][0].set_ylabel(ylabel)
    handles = {label: h for ax in axes[0] for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, fontsize=7, ncols=4, loc="outside lower center")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
