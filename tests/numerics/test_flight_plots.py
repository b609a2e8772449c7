"""The animation of a flight: every frame, the bodies where they are, and few bytes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from constrained_nn.plotting import animate_flights


def test_animation_is_small_and_shows_the_flight(tmp_path):
    t = np.linspace(0.0, 2.0, 201)
    goal = np.stack([t, np.sin(t), 0.2 * t], -1)
    path = animate_flights(tmp_path / "a.gif", goal, {"low": goal - 0.3, "high": goal + 0.3}, 0.01, fps=4)
    assert path.stat().st_size < 40_000
    with Image.open(path) as animation:
        assert animation.n_frames == 9
        assert animation.info["duration"] == 250
        blue = []
        for k in range(animation.n_frames):
            animation.seek(k)
            pixels = np.asarray(animation.convert("RGB")).astype(int)
            blue.append(
                np.argwhere(pixels[30:, :, 2] - pixels[30:, :, 0] > 80)[:, 1].max()
            )  # below the legend
    assert blue[-1] > blue[4] > blue[0]  # the first body moves to the right
