"""Chaotic systems: attractors with level sets, spectra, space-time plots, vorticity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from constrained_nn.plotting.style import COLORS, new_figure


def ellipse(center: Any, shape: Any, count: int = 200) -> np.ndarray:
    """Boundary `(count, 2)` of `{p : (p − center)ᵀ shape⁻¹ (p − center) <= 1}`.

    The shadow of `{w : (w − c)ᵀ Q (w − c) <= level}` on a plane with directions `P` `(2, n)` through `mean` is the
    ellipse with center `P (c − mean)` and shape `level P Q⁻¹ Pᵀ`; every state of the set lies over it.
    """
    angle = np.linspace(0.0, 2.0 * np.pi, count)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    return np.asarray(center, dtype=float) + circle @ np.linalg.cholesky(np.asarray(shape, dtype=float)).T


def plot_attractor(
    path: str | Path,
    runs: Mapping[str, np.ndarray],
    *,
    level_sets: Mapping[str, np.ndarray] | None = None,
    labels: tuple[str, str] = ("first component", "second component"),
    lines: bool = False,
) -> Path:
    """One panel a method: its states in a plane, on the axes of the first one, with the outline of a level set.

    Args:
        path: File to write.
        runs: Method -> points `(N, 2)`, the truth first; points that are not finite or far away are counted.
        level_sets: Method -> outline `(k, 2)`.
        labels: Names of the axes.
        lines: Whether the points of a panel are one trajectory.
    """
    outlines = level_sets or {}
    first = np.concatenate([next(iter(runs.values())), *outlines.values()])
    low, high = first.min(0), first.max(0)
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    figure, axes = new_figure(3.4 * len(runs), 3.3, 1, len(runs), sharex=True, sharey=True)
    for ax, (name, points) in zip(axes[0], runs.items(), strict=True):
        seen = ((points >= low) & (points <= high)).all(1)
        drawn = points if lines else points[seen]
        if lines and seen.all():
            ax.plot(*drawn.T, lw=0.4, color=COLORS[0])
        else:
            ax.plot(*points[seen].T, ",", color=COLORS[0], alpha=0.7)
        if name in outlines:
            ax.plot(*outlines[name].T, color=COLORS[1], lw=1.5, label="level set")
            ax.legend(fontsize=8, loc="upper right")
        gone = "" if seen.all() else f"\n{100 * (1 - seen.mean()):.1f} % outside"
        ax.set_title(name + gone, fontsize=9)
        ax.set_xlabel(labels[0])
    axes[0, 0].set_ylabel(labels[1])
    axes[0, 0].set_xlim(low[0], high[0])
    axes[0, 0].set_ylim(low[1], high[1])
    return _save(figure, path)


def plot_spectra(
    path: str | Path,
    spatial: Mapping[str, np.ndarray],
    temporal: Mapping[str, np.ndarray],
    *,
    interval: float,
    floor: float = 1e-10,
) -> Path:
    """Power by wavenumber and by frequency, all methods in one panel each.

    Args:
        path: File to write.
        spatial: Method -> `spatial_spectrum`, the truth first.
        temporal: Method -> `temporal_spectrum`.
        interval: Time between two states [s].
        floor: Share of the truth's largest power below which nothing is shown.
    """
    figure, axes = new_figure(8.6, 3.3, 1, 2)
    for ax, spectra in zip(axes[0], (spatial, temporal), strict=True):
        top = next(iter(spectra.values())).max()
        for i, (name, power) in enumerate(spectra.items()):
            index = np.arange(len(power)) if ax is axes[0, 0] else np.arange(1, len(power) + 1)
            place = index if ax is axes[0, 0] else index / (2 * len(power) * interval)
            style: dict[str, Any] = (
                {"color": "black", "lw": 2.0} if i == 0 else {"color": COLORS[i - 1], "lw": 1.2}
            )
            ax.loglog(place[index > 0], power[index > 0], label=name, **style)
        ax.set_ylim(floor * top, 3.0 * top)
    axes[0, 0].set(xlabel="wavenumber", ylabel="power")
    axes[0, 1].set(xlabel="frequency [1/s]", ylim=None)
    low, high = (f(next(iter(temporal.values()))) for f in (np.min, np.max))
    axes[0, 1].set_ylim(0.1 * low, 3.0 * high)
    axes[0, 0].legend(fontsize=8)
    return _save(figure, path)


def plot_space_time(
    path: str | Path,
    runs: Mapping[str, np.ndarray],
    *,
    interval: float,
    length: float,
    limit: float | None = None,
) -> Path:
    """States in one dimension over time, one panel a method; what is not finite is gray.

    Args:
        path: File to write.
        runs: Method -> states `(T, n)`, the truth first.
        interval: Time between two states [s].
        length: Period in space.
        limit: Largest absolute value of the color scale; default: the truth's.
    """
    limit = limit or float(np.abs(next(iter(runs.values()))).max())
    figure, axes = new_figure(7.2, 0.6 + 1.5 * len(runs), len(runs), 1, sharex=True, sharey=True)
    image = None
    for ax, (name, states) in zip(axes[:, 0], runs.items(), strict=True):
        image = _field(ax, states, (0.0, interval * len(states), 0.0, length), limit)
        ax.set_title(name, fontsize=9)
        ax.set_ylabel("x")
    axes[-1, 0].set_xlabel("t [s]")
    figure.colorbar(image, ax=axes[:, 0], pad=0.01)
    return _save(figure, path)


def plot_snapshots(
    path: str | Path, runs: Mapping[str, np.ndarray], *, times: Any, limit: float | None = None
) -> Path:
    """Fields in the plane at some times, one row a method; what is not finite is gray.

    Args:
        path: File to write.
        runs: Method -> fields `(k, nx, ny)`, the truth first.
        times: Times `(k,)` [s].
        limit: Largest absolute value of the color scale; default: the truth's.
    """
    limit = limit or float(np.abs(next(iter(runs.values()))).max())
    columns = len(times)
    figure, axes = new_figure(1.7 * columns + 0.8, 1.75 * len(runs) + 0.2, len(runs), columns)
    image = None
    for ax, t in zip(axes[0], times, strict=True):
        ax.set_title(f"t = {t:g} s", fontsize=9)
    for row, (name, fields) in zip(axes, runs.items(), strict=True):
        for ax, field in zip(row, fields, strict=True):
            image = _field(ax, field, (0.0, 1.0, 0.0, 1.0), limit)
            ax.set(xticks=[], yticks=[], aspect="equal")
        row[0].set_ylabel(name, fontsize=9)
    figure.colorbar(image, ax=axes, pad=0.01, shrink=0.9)
    return _save(figure, path)


def _field(ax: Any, values: np.ndarray, extent: tuple[float, float, float, float], limit: float) -> Any:
    """Values `(horizontal, vertical)` as an image."""
    from matplotlib import colormaps

    colors = colormaps["RdBu_r"].with_extremes(bad="0.6")
    shown = np.where(np.isfinite(values), np.clip(values, -limit, limit), np.nan)
    return ax.imshow(
        shown.T, origin="lower", aspect="auto", extent=extent, cmap=colors, vmin=-limit, vmax=limit
    )


def _save(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path
