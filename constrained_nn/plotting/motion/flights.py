"""Flights in the plane against their reference: a figure and an animation."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from constrained_nn.plotting.style import COLORS, new_figure


def plot_flights(path: str | Path, goal: Any, runs: Mapping[str, Any], dt: float) -> Path:
    """Paths of one flight by every method, and the error over time.

    Args:
        path: File to write.
        goal: States to be followed `(T + 1, n)`; the first two are the position [m].
        runs: Method -> states `(T + 1, n)`.
        dt: Time between two states [s].
    """
    goal = np.asarray(goal)
    figure, axes = new_figure(9.0, 3.6, 1, 2)
    plane, error = axes[0]
    plane.plot(goal[:, 0], goal[:, 1], "k--", lw=1)
    for color, (name, x) in zip(COLORS, runs.items(), strict=False):
        x = np.asarray(x)
        plane.plot(x[:, 0], x[:, 1], lw=1.3, color=color)
        distance = np.linalg.norm(x - goal, axis=-1)
        error.semilogy(dt * np.arange(len(x)), np.maximum(distance, 1e-3), lw=1.3, color=color, label=name)
    plane.set(xlabel="px [m]", ylabel="py [m]", aspect="equal")
    plane.set_title("dashed: reference", fontsize=8)
    error.set(xlabel="t [s]", ylabel="norm of the state error")
    error.legend(fontsize=8, loc="lower right")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def animate_flights(
    path: str | Path, goal: Any, runs: Mapping[str, Any], dt: float, *, fps: int = 20
) -> Path:
    """A GIF of one flight by every method, with the body as a bar at its roll angle; a few kilobytes a frame at most.

    Args:
        path: File to write, `.gif`.
        goal: States to be followed `(T + 1, n)`; position [m] and roll [rad] are the first three.
        runs: Method -> states `(T + 1, n)`.
        dt: Time between two states [s].
        fps: Frames a second.
    """
    from PIL import Image

    goal = np.asarray(goal)
    states = {name: np.asarray(x) for name, x in runs.items()}
    figure, axes = new_figure(5.0, 4.0)
    ax = axes[0, 0]
    ax.plot(goal[:, 0], goal[:, 1], "k--", lw=0.8, label="reference")
    artists = {}
    for color, name in zip(COLORS, states, strict=False):
        artists[name] = (
            ax.plot([], [], lw=1.0, color=color, label=name)[0],
            ax.plot([], [], lw=3.0, color=color)[0],
        )
    everything = np.concatenate([goal, *states.values()])[:, :2]
    ax.set(
        xlim=(everything[:, 0].min() - 0.6, everything[:, 0].max() + 0.6),
        ylim=(everything[:, 1].min() - 0.6, everything[:, 1].max() + 0.6),
        aspect="equal",
        xlabel="px [m]",
        ylabel="py [m]",
    )
    ax.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    frames = []
    for k in range(0, len(goal), max(1, round(1.0 / (fps * dt)))):
        for name, (trail, body) in artists.items():
            x = states[name]
            half = 0.4 * np.array([np.cos(x[k, 2]), np.sin(x[k, 2])])
            trail.set_data(x[: k + 1, 0], x[: k + 1, 1])
            body.set_data(*zip(x[k, :2] - half, x[k, :2] + half, strict=True))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="rgba", dpi=80)
        size = (round(figure.get_figwidth() * 80), round(figure.get_figheight() * 80))
        frames.append(Image.frombytes("RGBA", size, buffer.getvalue()).convert("RGB"))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part.gif")
    # one palette for all: only what moved is then written of a frame; the last frame has all colors
    palette = frames[-1].quantize(32)
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    first.save(temporary, save_all=True, append_images=others, duration=1000 // fps, loop=0, optimize=True)
    os.replace(temporary, path)
    return path
