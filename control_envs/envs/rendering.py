"""Pictures of states with Matplotlib's Agg canvas, headless; artists and background are reused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from control_envs.dynamics import Dynamics
from control_envs.tasks import Task

_SIZE, _DPI = (4.8, 3.6), 100


class Renderer:
    """Draws one state after the other into the same figure.

    Args:
        task: Gives scenery, outlines and window.
        window: Show frames in a window where there is a display.
    """

    def __init__(self, task: Task, *, window: bool = False) -> None:
        self.task = task
        self._window = window and _interactive()
        self._lines: list[Any] = []
        if self._window:
            from matplotlib import pyplot

            self.figure = pyplot.figure(figsize=_SIZE, dpi=_DPI)
        else:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

            self.figure = Figure(figsize=_SIZE, dpi=_DPI)
            FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_subplot()
        horizontal, vertical = _fitted(task.view or _window_of(task), _SIZE[0] / _SIZE[1])
        self.axes.set(xlim=horizontal, ylim=vertical, aspect="equal")
        for line in task.scenery():
            self.axes.fill(*line.T, facecolor="0.8", edgecolor="0.4")
        self._title = self.axes.text(0.02, 0.96, "", transform=self.axes.transAxes, va="top", animated=True)
        self.figure.canvas.draw()
        self._background = self.figure.canvas.copy_from_bbox(self.figure.bbox)  # pyright: ignore

    def frame(self, x: np.ndarray, t: float, plant: Dynamics | None = None) -> np.ndarray:
        """RGB picture `(height, width, 3)` uint8 of state `(n,)` at time `t` [s]."""
        outline = list((plant or self.task.plant).outline(np.asarray(x, dtype=float)))
        while len(self._lines) < len(outline):
            (line,) = self.axes.plot([], [], color=f"C{len(self._lines) % 10}", linewidth=2, animated=True)
            self._lines.append(line)
        canvas = self.figure.canvas
        canvas.restore_region(self._background)  # pyright: ignore[reportAttributeAccessIssue]
        for line, points in zip(self._lines, outline, strict=True):
            line.set_data(*points.T)
            self.axes.draw_artist(line)
        self._title.set_text(f"t = {t:.2f} s")
        self.axes.draw_artist(self._title)
        picture = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # pyright: ignore[reportAttributeAccessIssue]
        if self._window:
            canvas.blit(self.figure.bbox)  # pyright: ignore[reportAttributeAccessIssue]
            canvas.start_event_loop(self.task.dt)
        return picture

    def close(self) -> None:
        if self._window:
            from matplotlib import pyplot

            pyplot.close(self.figure)


def record(task: Task, states: np.ndarray, path: str | Path, *, plant: Dynamics | None = None) -> Path:
    """Write states `(T+1, n)` as a film in real time: `.gif` always, `.mp4` where its codec is installed.

    Raises:
        ValueError: The file name ends otherwise.
        MissingExtraError: No MP4 codec is installed.
    """
    renderer = Renderer(task)
    stride = max(1, round(1.0 / (25.0 * task.dt)))  # about 25 frames a second
    frames = (renderer.frame(states[k], k * task.dt, plant) for k in range(0, len(states), stride))
    return write_film(frames, path, fps=1.0 / (stride * task.dt))


def write_film(frames: Iterable[np.ndarray], path: str | Path, *, fps: float) -> Path:
    """Write RGB frames as `.gif` or `.mp4`, by a temporary name, so that nothing half-written stays.

    Raises:
        ValueError: The file name ends otherwise.
        MissingExtraError: No MP4 codec is installed.
    """
    import imageio.v2 as imageio

    from control_envs.errors import MissingExtraError

    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"write_film: expected a file name that ends in .gif or .mp4, got '{path.name}'.")
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        if path.suffix == ".gif":
            imageio.mimwrite(temporary, list(frames), duration=1000.0 / fps, loop=0)  # pyright: ignore
        else:
            try:
                import imageio_ffmpeg  # pyright: ignore[reportMissingImports]  # noqa: F401
            except ImportError as error:
                raise MissingExtraError(
                    "write_film: MP4 needs the package imageio-ffmpeg. Install it, or write a .gif."
                ) from error
            imageio.mimwrite(temporary, list(frames), fps=fps, macro_block_size=2)  # pyright: ignore
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _interactive() -> bool:
    import matplotlib
    from matplotlib.backends.registry import BackendFilter, backend_registry

    return matplotlib.get_backend().lower() in backend_registry.list_builtin(BackendFilter.INTERACTIVE)


def _window_of(task: Task) -> tuple[tuple[float, float], tuple[float, float]]:
    """A window that holds the outlines at zero and at the corners of the state region, and the scenery."""
    low = np.where(np.isfinite(task.state_low), task.state_low, -np.pi)
    high = np.where(np.isfinite(task.state_high), task.state_high, np.pi)
    points = np.concatenate(
        [line for x in (low, high, 0.0 * low) for line in task.plant.outline(x)] + list(task.scenery())
    )
    margin = 0.05 * max(1e-3, float(np.ptp(points, axis=0).max()))
    (left, bottom), (right, top) = points.min(0) - margin, points.max(0) + margin
    return (left, right), (bottom, top)


def _fitted(view: Any, ratio: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """The smallest window of this ratio around `view`, so that equal axes fill the figure."""
    (left, right), (bottom, top) = view
    width = max(right - left, ratio * (top - bottom))
    height = width / ratio
    x, y = 0.5 * (left + right), 0.5 * (bottom + top)
    return (x - 0.5 * width, x + 0.5 * width), (y - 0.5 * height, y + 0.5 * height)
