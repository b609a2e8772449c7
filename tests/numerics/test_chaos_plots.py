"""Figures of chaotic systems are written whatever a model does."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from constrained_nn.plotting import ellipse, plot_attractor, plot_snapshots, plot_space_time, plot_spectra


def colorful(path) -> float:
    """Share of pixels that are not white, black or gray."""
    pixels = imread(path)[..., :3]
    return float((np.ptp(pixels, -1) > 0.1).mean())


def test_ellipse_is_the_boundary_of_the_shadow(rng):
    """No state of the set lies outside of the outline, and some come close to every point of it."""
    Q = np.diag(rng.uniform(0.5, 4.0, 6))
    plane = np.linalg.qr(rng.standard_normal((6, 2)))[0].T
    center, level = rng.standard_normal(6), 2.0
    shape = level * plane @ np.linalg.inv(Q) @ plane.T
    outline = ellipse(plane @ center, shape)
    gap = np.einsum("ki,ij,kj->k", outline - plane @ center, np.linalg.inv(shape), outline - plane @ center)
    np.testing.assert_allclose(gap, 1.0)
    support = np.linalg.solve(
        Q, plane.T @ rng.standard_normal((2, 100))
    )  # maximizers of directions in the plane
    support *= np.sqrt(level / (support * (Q @ support)).sum(0))
    shadow = (plane @ support).T
    on_edge = np.einsum("ki,ij,kj->k", shadow, np.linalg.inv(shape), shadow)
    np.testing.assert_allclose(on_edge, 1.0)
    inside = rng.standard_normal((6, 500))
    inside *= np.sqrt(level / (inside * (Q @ inside)).sum(0))
    shadow = (plane @ inside).T
    assert np.einsum("ki,ij,kj->k", shadow, np.linalg.inv(shape), shadow).max() <= 1.0 + 1e-12


@pytest.mark.parametrize("bad", [None, np.nan, 1e15])
def test_figures(bad, rng, tmp_path):
    states = rng.standard_normal((40, 16))
    model = states.copy()
    if bad is not None:
        model[20:] = bad
    runs = {"truth": states, "model": model}
    path = plot_space_time(tmp_path / "a.png", runs, interval=1.0, length=10.0)
    assert colorful(path) > 0.2
    fields = {name: x[:, :, None] * np.ones(16) for name, x in runs.items()}
    path = plot_snapshots(tmp_path / "b.png", {n: f[[0, 39]] for n, f in fields.items()}, times=[0.0, 39.0])
    assert colorful(path) > 0.2
    points = {name: x[:, :2] for name, x in runs.items()}
    outline = ellipse(np.zeros(2), 9.0 * np.eye(2))
    path = plot_attractor(tmp_path / "c.png", points, level_sets={"model": outline}, lines=True)
    assert 0.001 < colorful(path) < 0.5
    path = plot_spectra(
        tmp_path / "d.png",
        {name: np.nan_to_num(x[0] ** 2 + 0.1, nan=1e30) for name, x in runs.items()},
        {name: np.nan_to_num(x[1] ** 2 + 0.1, nan=1e30) for name, x in runs.items()},
        interval=1.0,
    )
    assert colorful(path) > 0.001
