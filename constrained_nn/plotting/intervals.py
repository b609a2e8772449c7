"""Means with intervals: methods side by side, and what is missing."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from constrained_nn.plotting.style import COLORS, new_figure


@runtime_checkable
class Interval(Protocol):
    """A mean of one metric of one method with its interval; `mean` is None where there is none."""

    @property
    def task(self) -> str: ...
    @property
    def scenario(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def mean(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def complete(self) -> bool: ...
    @property
    def problems(self) -> tuple[str, ...]: ...


def plot_intervals(
    path: str | Path, entries: Sequence[Interval], panels: Mapping[str, str], *, note: str = ""
) -> Path:
    """One row of panels for each task and scenario, one panel for each metric, one line for each method.

    A mean that not all seeds stand behind is drawn hollow; a missing one is written out.

    Args:
        path: File to write; the ending chooses the format.
        entries: The means.
        panels: Metric -> heading with its unit.
        note: Line under the figure, such as what the intervals are.
    """
    groups = list(dict.fromkeys((e.task, e.scenario) for e in entries))
    methods = list(dict.fromkeys(e.method for e in entries))
    height = 0.34 * len(methods) + 0.75
    width = 3.3 * len(panels) + 0.7
    words = textwrap.fill(note, width=int(16 * width))
    below = 0.4 + 0.14 * (words.count("\n") + 1)
    figure, axes = new_figure(width, height * len(groups) + below, len(groups), len(panels))
    for row, (task, scenario) in zip(axes, groups, strict=True):
        for ax, (metric, heading) in zip(row, panels.items(), strict=True):
            here = [e for e in entries if (e.task, e.scenario, e.metric) == (task, scenario, metric)]
            _panel(ax, here, methods)
            ax.set_xlabel(heading, fontsize=9)
        row[0].set_title(f"{task}, {scenario}", fontsize=9, loc="left")
        row[0].set_yticklabels(methods, fontsize=9)
    figure.supxlabel(words, fontsize=7, color="0.35")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.removeprefix(".") or "png", dpi=160)
    path.write_bytes(buffer.getvalue())
    return path


def _panel(ax: Any, entries: Sequence[Interval], methods: Sequence[str]) -> None:
    for e in entries:
        i = methods.index(e.method)
        color = COLORS[i % len(COLORS)]
        if e.mean is None or e.low is None or e.high is None:
            words = e.problems[0] if e.problems else "no value"
            words = words if len(words) <= 34 else words[:33] + "…"
            place = ax.get_yaxis_transform()
            ax.text(0.5, i, words, transform=place, ha="center", va="center", fontsize=7, color="0.4")
            continue
        ax.plot([e.low, e.high], [i, i], color=color, lw=2, solid_capstyle="butt")
        ax.plot(e.mean, i, "o", ms=6, color=color, mfc=color if e.complete else "white")
    ax.set_yticks(range(len(methods)), [])
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.margins(x=0.12)
    ax.grid(axis="x", color="0.9", lw=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8, length=2)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
